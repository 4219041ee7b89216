// The words for what the proxy tells: numbers, nodes, sides, and why calls go where they go.

export const side = layer => (layer === 'el' ? 'Execution' : 'Consensus')
export const unit = layer => (layer === 'el' ? 'block' : 'slot')

export function count(number) {
  return number == null ? '–' : Math.round(number).toLocaleString('en')
}

export function rate(number) {
  if (number == null) return '–'
  return number === 0 ? '0' : number < 0.1 ? '<0.1' : number < 10 ? number.toFixed(1) : count(number)
}

export function time(seconds) {
  if (seconds == null) return '–'
  const ms = seconds * 1000
  if (ms < 1) return `${ms.toFixed(2)} ms`
  return ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${seconds.toFixed(1)} s`
}

export function bytes(number) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let place = 0
  while (number >= 1024 && place < units.length - 1) [number, place] = [number / 1024, place + 1]
  return `${place && number < 10 ? number.toFixed(1) : Math.round(number)} ${units[place]}`
}

export function ago(seconds) {
  if (seconds < 1.5) return 'now'
  if (seconds < 100) return `${Math.round(seconds)} s ago`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`
}

export function list(names) {
  return names.length < 2 ? names.join('') : `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`
}

// Why calls left a node, as `side.last_switch.reason` names it.
const REASONS = {
  start: 'The first node that serves was found',
  recovered: 'A node serves again',
  failback: 'A better node is back',
  cordoned: 'The operator took it out',
  behind: 'It had not reached the block that clients were shown',
  events: 'Its stream of events was lost or told nothing',
  duties: 'It failed what validators ask, one time after the other',
  removed: 'A reload took it away',
  down: 'It is down',
  lagging: 'It lags behind the chain',
  stalled: 'Its head stands still',
  optimistic: 'No execution node has verified its head',
  el_offline: 'It lost its execution node',
  syncing: 'It is syncing',
  resting: 'It refuses calls for quota',
  suspect: 'It reports a head that no other node confirms',
  wrong_chain: 'It is on another chain',
}

export function reason(word) {
  return REASONS[word] ?? word.replaceAll('_', ' ')
}

const SHAPES = {
  well: ['M20 6 9 17l-5-5'],
  down: ['M18 6 6 18', 'M6 6l12 12'],
  behind: ['M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18', 'M12 7v5l3 2'],
  waits: ['M6 3h12', 'M6 21h12', 'M7 3c0 6 10 6 10 12v6', 'M17 3c0 6-10 6-10 12v6'],
  held: ['M8 5v14', 'M16 5v14'],
  alarm: ['M12 3 2 20h20z', 'M12 10v4', 'M12 17v.1'],
  doubt: ['M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4', 'M12 17.500v.1', 'M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20'],
  rest: ['M20 14A8 8 0 1 1 10 4a6.5 6.5 0 0 0 10 10'],
  apart: ['M9 15l-3 3a3.5 3.5 0 0 1-5-5l3-3', 'M15 9l3-3a3.5 3.5 0 0 1 5 5l-3 3', 'M9 5V2', 'M15 22v-3'],
  way: ['M4 12h16', 'M14 6l6 6-6 6'],
  home: ['M4 11l8-7 8 7', 'M6 10v10h12V10'],
  notice: ['M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20', 'M12 11v6', 'M12 7v.1'],
}

export function shape(name) {
  return SHAPES[name] ?? SHAPES.notice
}

const VERDICTS = {
  up: ['well', 'well', 'Up'],
  lagging: ['warn', 'behind', 'Lagging'],
  stalled: ['warn', 'behind', 'Stalled'],
  optimistic: ['warn', 'doubt', 'Optimistic'],
  el_offline: ['bad', 'apart', 'EL offline'],
  syncing: ['warn', 'waits', 'Syncing'],
  resting: ['warn', 'rest', 'Resting'],
  suspect: ['warn', 'doubt', 'Suspect'],
  wrong_chain: ['bad', 'apart', 'Wrong chain'],
  down: ['bad', 'down', 'Down'],
}

// How a node is: how bad, which icon, in a word, and why it is where it is.
export function about(node, pool, layer) {
  const proving = node.reason.includes('proving')
  const unknown = node.reason.includes('not probed')
  let [level, icon, word] = VERDICTS[node.verdict] ?? ['warn', 'doubt', node.verdict]
  if (proving) [level, icon, word] = ['warn', 'waits', 'Coming back']
  if (unknown) [level, icon, word] = ['off', 'waits', 'Not heard yet']
  if (node.cordoned) [level, icon, word] = ['off', 'held', 'Cordoned']
  return { level, icon, word, why: why(node, pool, layer, proving, unknown) }
}

function why(node, pool, layer, proving, unknown) {
  const isActive = pool.active === node.name
  if (node.cordoned) return `Taken out by the operator. By the rules: ${node.reason}.`
  if (unknown) return 'The first probe is under way.'
  const last = isActive ? ' Calls go here, for no other is better.' : ''
  switch (node.verdict) {
    case 'up':
      if (isActive) return chosen(node, pool)
      if (node.pair?.fault) return `Well by itself; its pair ${node.pair.name}: ${node.pair.fault}.`
      return node.tier === 'primary' ? 'Ready, next in order.' : 'Ready, in case the primaries fail.'
    case 'lagging':
      return `${plural(node.lag ?? 0, unit(layer))} behind the chain.${last}`
    case 'resting':
      return `It refuses calls for quota${node.resting?.seconds ? `, and is left alone for ${node.resting.seconds} s` : ''}.${last}`
    case 'down':
      if (proving) return `It answers again, and needs ${plural(node.good_probes_needed, 'more good probe')}.${last}`
      return `${capital(node.reason.replace(/^down: /, ''))}. It is probed until it answers.`
    case 'wrong_chain':
      return 'It serves another chain, so no call ever goes here.'
    default:
      return `${reason(node.verdict)}.${last}`
  }
}

function chosen(node, pool) {
  const before = pool.nodes.slice(0, pool.nodes.indexOf(node)).map(other => other.name)
  if (!before.length) return 'The first choice: calls go here.'
  const away = pool.nodes.filter(other => before.includes(other.name) && !other.usable).map(other => other.name)
  return away.length ? `Stands in for ${list(away)}: calls go here.` : 'Calls go here until the view may go home.'
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
