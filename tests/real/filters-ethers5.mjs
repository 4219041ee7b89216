// An ethers 5 client over HTTP: `filters-ethers5.mjs URL ADDRESS` says the same as filters-ethers.mjs. For logs it asks for those of each new
// stretch of heights, so a reorganisation of heights that it has seen is nothing to it.
import { ethers } from 'ethers-5'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const provider = new ethers.providers.JsonRpcProvider(url)
provider.pollingInterval = 250
provider.on('error', (error) => console.log(`error ${error.message}`))

provider.on('block', blocks((number) => provider.getBlock(number)))
provider.on('pending', (hash) => console.log(`pending ${hash}`))
new ethers.Contract(address, ['event Ticked(uint256 height)'], provider).on('Ticked', (height, log) =>
  console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${height}`))
