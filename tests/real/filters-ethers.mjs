// An ethers client over HTTP: `filters-ethers.mjs URL ADDRESS` says what its default provider tells: blocks, for which it polls the height,
// the contract's logs and pending transactions, for which it polls filters. What the provider logs by itself is said too, and no check lets
// that pass.
import { Contract, JsonRpcProvider } from 'ethers'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const provider = new JsonRpcProvider(url)
provider.pollingInterval = 250
provider.on('error', (error) => console.log(`error ${error.message}`))

provider.on('block', blocks((number) => provider.getBlock(number)))
provider.on('pending', (hash) => console.log(`pending ${hash}`))
new Contract(address, ['event Ticked(uint256 height)'], provider).on('Ticked', (height, { log }) =>
  console.log(`log ${log.blockNumber} ${log.index} ${log.blockHash} ${height}`))
