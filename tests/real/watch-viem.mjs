// A viem client: `watch-viem.mjs URL [ADDRESS]` says the same as watch-ethers.mjs. It does not connect anew when it loses its connection,
// and gives a call 30 s in place of its default of 10 s.
import { createPublicClient, parseAbiItem, webSocket } from 'viem'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const onError = (error) => console.log(`error ${error.message}`)
const client = createPublicClient({ transport: webSocket(url, { reconnect: false, timeout: 30_000, keepAlive: { interval: 1000 } }) })
const { socket } = await client.transport.getRpcClient()
socket.addEventListener('close', (event) => console.log(`closed ${event.code} ${event.reason}`))

client.watchBlockNumber({
  onError,
  onBlockNumber: blocks((blockNumber) => client.getBlock({ blockNumber })),
})
if (address) {
  client.watchEvent({
    address,
    event: parseAbiItem('event Ticked(uint256 height)'),
    onError,
    onLogs(logs) {
      for (const log of logs) {
        console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${log.args.height}${log.removed ? ' removed' : ''}`)
      }
    },
  })
}
