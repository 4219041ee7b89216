// An ethers client: `calls-ethers.mjs HTTP_URL WS_URL SINK KEY KEY` calls and pays through both doors, each from an account of its own.
import { JsonRpcProvider, Wallet, WebSocketProvider } from 'ethers'
import { keepCalling, Sent } from './calls.mjs'

const [http, ws, sink, ...keys] = process.argv.slice(2)
const options = { cacheTimeout: -1, pollingInterval: 100 }

function door(provider, key, sent) {
  const wallet = new Wallet(key, provider)
  return {
    call: async () => [await provider.getBlockNumber()],
    // Over HTTP what is asked for at once goes in one batch; over WebSocket this library has none.
    batch: async () => {
      const [chain, height, code] = await Promise.all([
        provider.send('eth_chainId', []), provider.getBlockNumber(), provider.getCode(sink)])
      sent?.demandBatch()
      return [Number(chain), height, code]
    },
    paid: async () => {
      const payment = await wallet.sendTransaction({ to: sink, value: 1 })
      const { hash, blockNumber, status } = await payment.wait()
      return [hash, blockNumber, status]
    },
  }
}

const poller = new JsonRpcProvider(http, undefined, options)
const sent = new Sent()
poller.on('debug', ({ action, payload }) => action === 'sendRpcPayload' && sent.note(payload))
const socket = new WebSocketProvider(ws, undefined, options)
socket.websocket.onclose = (event) => console.log(`closed ${event.code} ${event.reason}`)
await keepCalling({ http: door(poller, keys[0], sent), ws: door(socket, keys[1]) })
