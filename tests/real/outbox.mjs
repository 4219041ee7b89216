// `outbox.mjs URL HASH`: follows a transaction of the outbox by `steadfast_transaction`, and prints each state with its number and node, until the
// connection ends. A connection that ends is opened anew, and a transition that was printed is not printed again.
import WebSocket from 'ws'

const [url, hash] = process.argv.slice(2)
let last = 0

function follow() {
  const socket = new WebSocket(url)
  socket.on('open', () =>
    socket.send(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'eth_subscribe', params: ['steadfast_transaction', hash] })))
  socket.on('message', (text) => {
    const message = JSON.parse(text)
    if (message.error) return console.log(`error ${JSON.stringify(message.error)}`)
    if (message.method !== 'eth_subscription') return
    const { seq, state, node } = message.params.result
    if (seq <= last) return
    if (seq !== last + 1) console.log(`error: ${seq} follows ${last}`)
    last = seq
    console.log(`${seq} ${state} ${node ?? '-'}`)
  })
  socket.on('error', () => {})
  socket.on('close', () => setTimeout(follow, 100))
}

follow()
