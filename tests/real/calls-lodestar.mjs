// A client of Lodestar's API package: `calls-lodestar.mjs URL` asks, posts and listens, and says what it got, until SIGTERM. A block that is not
// the one that its root names is an error.
import { getClient } from '@lodestar/api'
import { ssz } from '@lodestar/types'
import { keepCalling } from './calls.mjs'
import { config } from './lodestar.mjs'
import { listen } from './lodestar-events.mjs'

const api = getClient({ baseUrl: process.argv[2] }, { config })
const toHex = (bytes) => `0x${Buffer.from(bytes).toString('hex')}`

/** The block by the head's root, whose own root must be the same. */
async function block(responseWireFormat) {
  const { root, header } = (await api.beacon.getBlockHeader({ blockId: 'head' })).value()
  const answer = await api.beacon.getBlockV2({ blockId: toHex(root) }, { responseWireFormat })
  const { message } = answer.value()
  const own = toHex(ssz.electra.BeaconBlock.hashTreeRoot(message))
  if (own !== toHex(root) || answer.wireFormat() !== responseWireFormat) throw new Error(`${own} came as ${answer.wireFormat()} for ${toHex(root)}`)
  return [header.message.slot]
}

await listen(api)
await keepCalling({
  rest: {
    call: async () => [(await api.node.getSyncingStatus()).value().headSlot],
    ssz: () => block('ssz'),
    json: () => block('json'),
    validators: async () => (await api.beacon.postStateValidators({ stateId: 'head', validatorIds: [7, 3] })).value().map(({ index }) => index),
    prepare: async () => {
      (await api.validator.prepareBeaconProposer({ proposers: [{ validatorIndex: 7, feeRecipient: `0x${'11'.repeat(20)}` }] })).assertOk()
      return []
    },
  },
})
