// An ethers client: `watch-ethers.mjs URL [ADDRESS]` says each block, and each log of the contract if one is named, as they come to it,
// until it is killed. Whatever else happens is said too, and no check lets that pass.
import { WebSocketProvider, id } from 'ethers'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const provider = new WebSocketProvider(url)
provider.websocket.onclose = (event) => console.log(`closed ${event.code} ${event.reason}`)
provider.websocket.onerror = (event) => console.log(`error ${event.message}`)
provider.on('error', (error) => console.log(`error ${error.message}`))

provider.on('block', blocks((number) => provider.getBlock(number)))
if (address) {
  provider.on({ address, topics: [id('Ticked(uint256)')] }, (log) =>
    console.log(`log ${log.blockNumber} ${log.index} ${log.blockHash} ${BigInt(log.data)}${log.removed ? ' removed' : ''}`))
}
