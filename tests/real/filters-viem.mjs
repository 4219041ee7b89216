// A viem client over HTTP: `filters-viem.mjs URL ADDRESS` says blocks, for which `watchBlocks` polls the last one, the contract's logs, for
// which `watchContractEvent` polls a filter, and the hashes of a block filter of its own.
import { setTimeout as pause } from 'node:timers/promises'
import { createPublicClient, http, parseAbi } from 'viem'

const [url, address] = process.argv.slice(2)
// A call gets 30 s in place of the library's default of 10 s.
const onError = (error) => console.log(`error ${error.message}`)
const client = createPublicClient({ transport: http(url, { timeout: 30_000 }), pollingInterval: 250 })

client.watchBlocks({
  emitMissed: true,
  onError,
  onBlock: (block) => console.log(`block ${block.number} ${block.hash}`),
})
client.watchContractEvent({
  address,
  abi: parseAbi(['event Ticked(uint256 height)']),
  eventName: 'Ticked',
  onError,
  onLogs(logs) {
    for (const log of logs) {
      console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${log.args.height}${log.removed ? ' removed' : ''}`)
    }
  },
})
for (const filter = await client.createBlockFilter(); ; await pause(250)) {
  const hashes = await client.getFilterChanges({ filter }).catch((error) => onError(error) ?? [])
  for (const hash of hashes) console.log(`hash ${hash}`)
}
