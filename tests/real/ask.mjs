// `ask.mjs URL CALL`: the answer to one call over WebSocket, as it comes.
import WebSocket from 'ws'

const [url, call] = process.argv.slice(2)
const socket = new WebSocket(url)
socket.on('open', () => socket.send(call))
socket.on('message', (answer) => {
  console.log(String(answer))
  process.exit()
})
setTimeout(() => process.exit(1), 5000)
