// A viem client: `watch-viem.mjs URL [ADDRESS]` says the same as watch-ethers.mjs. It does not connect anew when it loses its connection.
import { createPublicClient, parseAbiItem, webSocket } from 'viem'

const [url, address] = process.argv.slice(2)
const onError = (error) => console.log(`error ${error.message}`)
const client = createPublicClient({ transport: webSocket(url, { reconnect: false, keepAlive: { interval: 1000 } }) })
const { socket } = await client.transport.getRpcClient()
socket.addEventListener('close', (event) => console.log(`closed ${event.code} ${event.reason}`))

let said = Promise.resolve()
client.watchBlockNumber({
  onError,
  onBlockNumber(blockNumber) {
    const fetched = client.getBlock({ blockNumber }).then((block) => block.hash, (error) => error.message)
    said = said.then(async () => console.log(`block ${blockNumber} ${await fetched}`))
  },
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
