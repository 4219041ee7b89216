// A viem client: `calls-viem.mjs HTTP_URL WS_URL SINK KEY KEY` does the same as calls-ethers.mjs. It does not call again what has failed, nor
// connect anew.
import { createWalletClient, http, publicActions, webSocket } from 'viem'
import { privateKeyToAccount } from 'viem/accounts'
import { anvil } from 'viem/chains'
import { keepCalling, Sent } from './calls.mjs'

const [httpUrl, wsUrl, sink, ...keys] = process.argv.slice(2)
const chain = { ...anvil, id: 1337 }
// Milliseconds for an answer. By its default the library gives up after 10 s.
const timeout = 30_000

function connect(transport, key) {
  return createWalletClient({ account: privateKeyToAccount(key), chain, transport, pollingInterval: 100, cacheTime: 0 }).extend(publicActions)
}

function door(client, sent) {
  return {
    call: async () => [await client.getBlockNumber()],
    // Over HTTP this transport sends what is asked for at once in one batch; over WebSocket this library has none.
    batch: async () => {
      const [chain, height, code = '0x'] = await Promise.all([client.getChainId(), client.getBlockNumber(), client.getCode({ address: sink })])
      sent?.demandBatch()
      return [chain, height, code]
    },
    paid: async () => {
      const hash = await client.sendTransaction({ to: sink, value: 1n })
      const { transactionHash, blockNumber, status } = await client.waitForTransactionReceipt({ hash })
      return [transactionHash, blockNumber, status === 'success' ? 1 : 0]
    },
  }
}

const sent = new Sent()
const onFetchRequest = async (request) => sent.note(await request.clone().json())
const overHttp = connect(http(httpUrl, { batch: true, retryCount: 0, timeout, onFetchRequest }), keys[0])
const overWs = connect(webSocket(wsUrl, { retryCount: 0, timeout, reconnect: false }), keys[1])
const { socket } = await overWs.transport.getRpcClient()
socket.addEventListener('close', (event) => console.log(`closed ${event.code} ${event.reason}`))
await keepCalling({ http: door(overHttp, sent), ws: door(overWs) })
