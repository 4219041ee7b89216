// A web3.js client over HTTP: `filters-web3js.mjs URL ADDRESS` says the hashes of a block filter and the logs of a filter.
import { setTimeout as pause } from 'node:timers/promises'
import { Web3 } from 'web3'

const [url, address] = process.argv.slice(2)
const { eth, utils } = new Web3(url)
const heads = await eth.createNewBlockFilter()
const logs = await eth.createNewFilter({ address, topics: [utils.keccak256('Ticked(uint256)')] })

/** What is new, which an error is said instead of. */
async function changes(filter) {
  return eth.getFilterChanges(filter).catch((error) => console.log(`error ${error.message}`) ?? [])
}

for (;; await pause(250)) {
  for (const hash of await changes(heads)) console.log(`hash ${hash}`)
  for (const log of await changes(logs)) {
    console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${BigInt(log.data)}${log.removed ? ' removed' : ''}`)
  }
}
