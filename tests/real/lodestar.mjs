// What both sides of Lodestar's API take for settled: a network that has had electra from its beginning, with a slot in each second.
import { chainConfigToJson, createChainForkConfig } from '@lodestar/config'
import { activePreset } from '@lodestar/params'

const forks = ['ALTAIR', 'BELLATRIX', 'CAPELLA', 'DENEB', 'ELECTRA'].map((name) => [`${name}_FORK_EPOCH`, 0])
export const config = createChainForkConfig({ ...Object.fromEntries(forks), FULU_FORK_EPOCH: Infinity, SECONDS_PER_SLOT: 1, SLOT_DURATION_MS: 1000 })
export const version = 'electra'
export const spec = { ...chainConfigToJson(config), ...Object.fromEntries(Object.entries(activePreset).map(([name, value]) => [name, String(value)])) }
