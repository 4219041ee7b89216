// `lodestar-node.mjs PORT GENESIS NAME`: a consensus node of Lodestar's own server of the beacon API, over a made-up chain that has a block in
// each slot since the genesis (in seconds). Every such node has the same chain.
import { fastify } from 'fastify'
import qs from 'qs'
import { registerRoutes } from '@lodestar/api/beacon/server'
import { ssz } from '@lodestar/types'
import { config, spec, version } from './lodestar.mjs'

const [port, genesis, name] = process.argv.slice(2)
const electra = ssz.electra.SignedBeaconBlock
const chain = [{ block: electra.defaultValue() }]
const listeners = new Set()

function grow() {
  const now = Math.floor((Date.now() / 1000 - Number(genesis)) / config.SECONDS_PER_SLOT)
  chain[0].root ??= ssz.electra.BeaconBlock.hashTreeRoot(chain[0].block.message)
  while (chain.length <= now) {
    const block = electra.defaultValue()
    block.message.slot = chain.length
    block.message.parentRoot = chain.at(-1).root
    const root = ssz.electra.BeaconBlock.hashTreeRoot(block.message)
    chain.push({ block, root })
    const [slot, hex, zero] = [block.message.slot, toHex(root), toHex(new Uint8Array(32))]
    tell('block', { slot, block: hex, executionOptimistic: false })
    const dependent = { previousDutyDependentRoot: zero, currentDutyDependentRoot: zero }
    tell('head', { slot, block: hex, state: zero, epochTransition: false, executionOptimistic: false, ...dependent })
  }
  return chain.length - 1
}

function tell(type, message) {
  for (const { topics, onEvent } of listeners) if (topics.includes(type)) onEvent({ type, message })
}

function find(id) {
  const head = grow()
  const at = id === 'head' ? head : String(id).startsWith('0x') ? chain.findIndex(({ root }) => toHex(root) === id) : Number(id)
  if (!chain[at]) throw Object.assign(new Error('Block not found'), { statusCode: 404 })
  return chain[at]
}

const toHex = (bytes) => `0x${Buffer.from(bytes).toString('hex')}`
const meta = { executionOptimistic: false, finalized: false, version }
const validator = (index) => ({ index, balance: 32e9, status: 'active_ongoing', validator: ssz.phase0.Validator.defaultValue() })
const header = ({ block, root }) => {
  const { slot, proposerIndex, parentRoot, stateRoot, body } = block.message
  const bodyRoot = ssz.electra.BeaconBlockBody.hashTreeRoot(body)
  return { root, canonical: true, header: { message: { slot, proposerIndex, parentRoot, stateRoot, bodyRoot }, signature: block.signature } }
}
const methods = {
  beacon: {
    getGenesis: async () => ({ data: { genesisTime: Number(genesis), genesisValidatorsRoot: new Uint8Array(32), genesisForkVersion: new Uint8Array(4) } }),
    getBlockHeader: async ({ blockId }) => ({ data: header(find(blockId)), meta }),
    getBlockHeaders: async ({ slot }) => ({ data: [header(find(slot ?? 'head'))], meta }),
    getBlockRoot: async ({ blockId }) => ({ data: { root: find(blockId).root }, meta }),
    getBlockV2: async ({ blockId }) => ({ data: find(blockId).block, meta }),
    postStateValidators: async ({ validatorIds }) => ({ data: validatorIds.map(Number).map(validator), meta }),
    publishBlockV2: async ({ signedBlockContents: { signedBlock } }) => console.log(`published ${signedBlock.message.slot}`),
  },
  config: { getSpec: async () => ({ data: spec }) },
  events: { eventstream: async (stream) => void listeners.add(stream) && stream.signal.addEventListener('abort', () => listeners.delete(stream)) },
  node: {
    getNodeVersion: async () => ({ data: { version: `Lodestar/${name}` } }),
    getSyncingStatus: async () => ({ data: { headSlot: grow(), syncDistance: 0, isSyncing: false, isOptimistic: false, elOffline: false } }),
  },
  validator: {
    getProposerDuties: async ({ epoch }) => ({ data: [{ slot: 32 * epoch, validatorIndex: 1, pubkey: new Uint8Array(48) }], meta: { ...meta, dependentRoot: toHex(new Uint8Array(32)) } }),
    prepareBeaconProposer: async ({ proposers }) => console.log(`prepared ${proposers.map(({ validatorIndex }) => validatorIndex)}`),
  },
}

const server = fastify({ routerOptions: { querystringParser: (text) => qs.parse(text, { comma: true }) }, ajv: { customOptions: { coerceTypes: 'array' } } })
server.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, async (_, body) => body)
registerRoutes(server, config, methods, Object.keys(methods))
grow()
setInterval(grow, 50)
await server.listen({ port: Number(port), host: '127.0.0.1' })
