// A web3.js client: `calls-web3js.mjs HTTP_URL WS_URL SINK KEY KEY` does the same as calls-ethers.mjs. It does not connect anew.
import { Web3, WebSocketProvider } from 'web3'
import { keepCalling } from './calls.mjs'

const [http, ws, sink, ...keys] = process.argv.slice(2)
// By itself the library gives up a batch after a second, which is sooner than a node that hangs is noticed; that ends the program, too.
const patience = 30_000

function door(provider, key) {
  const web3 = new Web3(provider)
  web3.eth.transactionPollingInterval = 100
  const [{ address: from }] = web3.eth.accounts.wallet.add(key)
  const asked = [['eth_chainId', []], ['eth_blockNumber', []], ['eth_getCode', [sink, 'latest']]]
  return {
    call: async () => [await web3.eth.getBlockNumber()],
    batch: async () => {
      const batch = new web3.BatchRequest()
      for (const [id, [method, params]] of asked.entries()) batch.add({ jsonrpc: '2.0', id: id + 1, method, params })
      const answers = (await batch.execute({ timeout: patience })).toSorted((one, other) => one.id - other.id)
      const [chain, height, code] = answers.map(({ result }) => result)
      return [Number(chain), Number(height), code]
    },
    paid: async () => {
      const { transactionHash, blockNumber, status } = await web3.eth.sendTransaction({ from, to: sink, value: 1 })
      return [transactionHash, blockNumber, status]
    },
  }
}

const socket = new WebSocketProvider(ws, {}, { autoReconnect: false })
socket.on('disconnect', ({ code, message }) => console.log(`closed ${code} ${message}`))
await keepCalling({ http: door(http, keys[0]), ws: door(socket, keys[1]) })
