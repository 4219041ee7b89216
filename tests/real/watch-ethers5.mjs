// An ethers 5 client: `watch-ethers5.mjs URL ADDRESS` says the same as watch-ethers.mjs.
import { ethers } from 'ethers-5'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const provider = new ethers.providers.WebSocketProvider(url)
provider._websocket.onclose = (event) => console.log(`closed ${event.code} ${event.reason}`)
provider._websocket.onerror = (event) => console.log(`error ${event.message}`)
provider.on('error', (error) => console.log(`error ${error.message}`))

provider.on('block', blocks((number) => provider.getBlock(number)))
provider.on({ address, topics: [ethers.utils.id('Ticked(uint256)')] }, (log) =>
  console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${BigInt(log.data)}${log.removed ? ' removed' : ''}`))
