// A client of Lodestar's API package, as a validator uses it: `duties-lodestar.mjs URL` asks for the head, for blocks, for its validators and their
// duties and for what to attest to, posts where its proposers' fees go, listens to events, and says what it got, until SIGTERM.
import { getClient } from '@lodestar/api'
import { keepCalling } from './calls.mjs'
import { config } from './lodestar.mjs'
import { listen } from './lodestar-events.mjs'

const api = getClient({ baseUrl: process.argv[2] }, { config })
const toHex = (bytes) => `0x${Buffer.from(bytes).toString('hex')}`
const indices = [1, 2, 3]

const head = async () => (await api.beacon.getBlockHeader({ blockId: 'head' })).value().header.message.slot
/** The head's block as JSON, which is all of a block: the package takes none that lacks a member. */
async function block() {
  const { root, header } = (await api.beacon.getBlockHeader({ blockId: 'head' })).value()
  const { message } = (await api.beacon.getBlockV2({ blockId: toHex(root) }, { responseWireFormat: 'json' })).value()
  const [own, said] = [message, header.message].map(({ slot, stateRoot, parentRoot }) => [slot, toHex(stateRoot), toHex(parentRoot)].join(' '))
  if (own !== said) throw new Error(`${own} came for ${said}`)
  return [message.slot]
}

const epoch = async () => Math.floor((await head()) / 8)

await listen(api)
await keepCalling({
  rest: {
    call: async () => [await head()],
    block,
    validators: async () => (await api.beacon.postStateValidators({ stateId: 'head', validatorIds: indices })).value().map(({ index }) => index),
    proposers: async () => (await api.validator.getProposerDuties({ epoch: await epoch() })).value().map(({ slot }) => slot % 8),
    attesters: async () => (await api.validator.getAttesterDuties({ epoch: await epoch(), indices })).value().map(({ validatorIndex }) => validatorIndex),
    data: async () => [(await api.validator.produceAttestationData({ slot: await head(), committeeIndex: 0 })).value().slot],
    prepare: async () => {
      (await api.validator.prepareBeaconProposer({ proposers: [{ validatorIndex: 1, feeRecipient: `0x${'11'.repeat(20)}` }] })).assertOk()
      return []
    },
  },
})
