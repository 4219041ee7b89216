// An ethers 5 client: `calls-ethers5.mjs HTTP_URL WS_URL SINK KEY KEY` does the same as calls-ethers.mjs.
import { ethers } from 'ethers-5'
import { keepCalling, Sent } from './calls.mjs'

const [http, ws, sink, ...keys] = process.argv.slice(2)

function door(provider, key, sent) {
  const wallet = new ethers.Wallet(key, provider)
  return {
    call: async () => [await provider.getBlockNumber()],
    // Over HTTP this provider sends what is asked for at once in one batch; over WebSocket this library has none.
    batch: async () => {
      const [chain, height, code] = await Promise.all([
        provider.send('eth_chainId', []), provider.getBlockNumber(), provider.getCode(sink)])
      sent?.demandBatch()
      return [Number(chain), height, code]
    },
    paid: async () => {
      const payment = await wallet.sendTransaction({ to: sink, value: 1 })
      const { transactionHash, blockNumber, status } = await payment.wait()
      return [transactionHash, blockNumber, status]
    },
  }
}

const socket = new ethers.providers.WebSocketProvider(ws)
socket._websocket.onclose = (event) => console.log(`closed ${event.code} ${event.reason}`)
const poller = new ethers.providers.JsonRpcBatchProvider(http)
poller.pollingInterval = 100
const sent = new Sent()
poller.on('debug', ({ action, request }) => action === 'requestBatch' && sent.note(request))
await keepCalling({ http: door(poller, keys[0], sent), ws: door(socket, keys[1]) })
