// What follows from the proxy's snapshots: rates and curves over the last minutes, the blocks that
// nodes told, and the one sentence that says what is wrong.

import { capital, list, plural, side, unit } from './words.js'

// How far the curves go back, and over how long a rate and a percentile are taken, in seconds.
export const SPAN = 300
const RATE = 3
const LATENCY = 10
const METHODS = 60
const BLOCKS = 16

export class Model {
  samples = []
  chains = new Map()
  now = null

  take(snapshot, at = performance.now() / 1000) {
    const before = this.now
    // A proxy that began anew counts anew.
    if (before && snapshot.status.uptime_seconds < before.status.uptime_seconds) this.samples = []
    this.now = snapshot
    this.at = at
    const sample = { at, sides: new Map(), nodes: new Map() }
    for (const calls of snapshot.calls) sample.sides.set(key(calls), calls)
    for (const node of snapshot.attempts) sample.nodes.set(`${key(node)}/${node.node}`, node.answered + node.failed)
    const last = this.samples.at(-1)
    // The newest is replaced until a second has passed since the one before.
    if (this.samples.length > 1 && last.at - this.samples.at(-2).at < 0.8) this.samples.pop()
    this.samples.push(sample)
    while (this.samples[0].at < at - SPAN - LATENCY - 5) this.samples.shift()
    for (const { name, layer, pool } of sides(snapshot)) this.watchChain(`${name}/${layer}`, pool)
  }

  // The newest sample that is at least so many seconds older than the one at `place`, or the oldest.
  earlier(place, seconds) {
    const { at } = this.samples[place]
    let from = place
    while (from > 0 && this.samples[from].at > at - seconds) from -= 1
    return this.samples[from]
  }

  // Of all sides: calls and unanswered calls a second, and percentiles of the time that calls took.
  point(place) {
    const now = this.samples[place]
    const near = this.earlier(place, RATE)
    if (near === now) return { at: now.at }
    const span = now.at - near.at
    const point = { at: now.at, calls: 0, errors: 0 }
    for (const [name, calls] of now.sides) {
      const before = near.sides.get(name)
      point.calls += (total(calls) - total(before)) / span
      point.errors += (unanswered(calls) - unanswered(before)) / span
    }
    const far = this.earlier(place, LATENCY)
    const [bounds, counts] = merged(now.sides, far.sides)
    for (const part of [0.5, 0.9, 0.99]) point[`p${part * 100}`] = quantile(bounds, counts, part)
    return point
  }

  points() {
    return this.samples.map((_, place) => this.point(place))
  }

  // Attempts at a node a second.
  traffic(name, layer, node) {
    if (this.samples.length < 2) return null
    const place = this.samples.length - 1
    const [now, near] = [this.samples[place], this.earlier(place, RATE)]
    const of = sample => sample.nodes.get(`${name}/${layer}/${node}`) ?? 0
    return Math.max(0, (of(now) - of(near)) / (now.at - near.at))
  }

  // The methods that were asked for most in the last minute.
  methods(most) {
    if (this.samples.length < 2) return []
    const place = this.samples.length - 1
    const [now, then] = [this.samples[place], this.earlier(place, METHODS)]
    const rows = []
    for (const [name, calls] of now.sides) {
      const before = new Map((then.sides.get(name)?.methods ?? []).map(row => [row[0], row]))
      for (const [method, all, errors] of calls.methods) {
        const [, was, wasErrors] = before.get(method) ?? [method, 0, 0]
        if (all > was) {
          const span = now.at - then.at
          rows.push({ method, where: calls, perSecond: (all - was) / span, failed: errors - wasErrors })
        }
      }
    }
    return rows.sort((a, b) => b.perSecond - a.perSecond).slice(0, most)
  }

  // Notes the head of the node that serves: the same height again, or a lower one, under another
  // hash is a reorganisation, unless another node tells it that is merely behind.
  watchChain(name, pool) {
    const node = pool.nodes.find(node => node.name === pool.active)
    if (!node?.head_hash) return
    const chain = this.chains.get(name) ?? []
    this.chains.set(name, chain)
    const stands = chain.filter(block => !block.gone)
    const last = stands.at(-1)
    if (last && (last.hash === node.head_hash || stands.some(block => block.hash === node.head_hash))) return
    const replaced = stands.filter(block => block.number >= node.head)
    if (replaced.length && last.node !== node.name && node.head < last.number) return
    for (const block of replaced) block.gone = true
    const earlier = chain.findIndex(block => block.hash === node.head_hash)
    if (earlier >= 0) chain.splice(earlier, 1)
    chain.push({ number: node.head, hash: node.head_hash, node: node.name, reorg: replaced.length })
    if (chain.length > BLOCKS) chain.shift()
  }
}

export const key = ({ network, layer }) => `${network}/${layer}`

export function* sides(snapshot) {
  for (const network of snapshot.status.networks) {
    for (const layer of ['el', 'cl']) {
      if (network[layer]) yield { name: network.name, layer, pool: network[layer], network }
    }
  }
}

function sum(object, names) {
  return names.reduce((all, name) => all + (object?.outcomes[name] ?? 0), 0)
}

const total = calls => (calls ? sum(calls, Object.keys(calls.outcomes)) : 0)
// A call that a node answered with an error was answered.
const unanswered = calls => sum(calls, ['no_node', 'attempts_failed', 'deadline', 'outcome_unknown'])

function merged(now, then) {
  let bounds = []
  const counts = []
  for (const [name, { latency }] of now) {
    bounds = latency.bounds
    const before = then.get(name)?.latency.counts ?? []
    latency.counts.forEach((count, place) => {
      counts[place] = (counts[place] ?? 0) + count - (before[place] ?? 0)
    })
  }
  return [bounds, counts]
}

// `counts[i]` calls took no longer than `bounds[i]`, and longer than the bound before; the last
// count is of those beyond all bounds.
export function quantile(bounds, counts, part) {
  const all = counts.reduce((sum, count) => sum + count, 0)
  if (!all) return null
  let left = all * part
  for (let place = 0; place < counts.length; place += 1) {
    if (left <= counts[place] && counts[place]) {
      const low = place ? bounds[place - 1] : 0
      const high = bounds[place] ?? low
      return low + (high - low) * (left / counts[place])
    }
    left -= counts[place]
  }
  return bounds.at(-1)
}

// ---- What is wrong, and what the proxy does about it

const ORDER = ['well', 'note', 'warn', 'bad']

export function diagnose(snapshot) {
  const { status } = snapshot
  const all = [...sides(snapshot)]
  const many = status.networks.length > 1
  const found = all.map(one => judge(one, snapshot, many)).filter(Boolean)
  if (status.draining) {
    found.push({ level: 'note', word: 'Draining', title: 'The proxy drains: it tells balancers to send no new traffic', lines: ['Calls that come are answered all the same.'] })
  }
  const { outbox, cluster } = status
  if (outbox && outbox.store !== 'writable') {
    found.push({ level: 'bad', word: 'Outbox', title: 'The outbox takes no transactions', lines: [`${outbox.why ?? 'Its disk takes no writes'}. Other calls are answered.`] })
  }
  if (cluster?.replaced_by != null) {
    found.push({ level: 'warn', word: 'Look', title: `Another process has the name of this replica, ${cluster.replica}`, lines: ['This one takes no part in the cluster any more. Calls are answered all the same.'] })
  }
  if (cluster?.store.fault != null) {
    found.push({ level: 'note', word: 'Calls are well', title: 'The store of the cluster fails', lines: [`${capital(cluster.store.fault)}. No call depends on the store.`] })
  }
  found.sort((a, b) => ORDER.indexOf(b.level) - ORDER.indexOf(a.level))
  const [first, ...others] = found
  if (first) return { ...first, lines: [...first.lines, ...others.map(other => `${other.title}.`)] }
  const ways = all.map(({ pool }) => pool.active)
  return { level: 'well', word: 'All is well', title: `Calls go to ${list(ways)}`, lines: [standby(all)] }
}

function standby(all) {
  const ready = all.map(({ pool }) => pool.nodes.filter(node => node.usable && node.name !== pool.active).length)
  const bare = all.filter((_, place) => !ready[place])
  const waiting = ready.reduce((sum, one) => sum + one, 0)
  if (bare.length) return `No other node is ready on: ${bare.map(({ name, layer }) => place(name, layer, all.length > 2)).join(', ')}.`
  return `${plural(waiting, 'more node is', 'more nodes are')} ready to take over.`
}

function place(name, layer, many) {
  const word = side(layer).toLowerCase()
  return many ? `${name} ${word}` : word
}

function judge({ name, layer, pool }, snapshot, many) {
  const where = place(name, layer, many)
  const held = snapshot.calls.find(calls => calls.network === name && calls.layer === layer)?.held ?? 0
  const told = node => `${node.name}: ${node.cordoned ? 'cordoned' : node.reason}`
  const active = pool.nodes.find(node => node.name === pool.active)
  const ill = pool.nodes.filter(node => !node.usable)
  if (!pool.serves) {
    if (pool.nodes.every(node => node.reason.includes('not probed'))) {
      return { level: 'note', word: 'Starting', title: `The first ${where} node is awaited`, lines: [] }
    }
    const waits = held ? `${plural(held, 'call waits', 'calls wait')} for a node to return` : 'Calls that come wait for a node to return'
    return { level: 'bad', word: 'Outage', title: `No ${where} node can serve`, lines: [`${waits}, and are refused when the hold time is over.`, `${pool.nodes.map(told).join(' · ')}.`] }
  }
  if (!active) return { level: 'warn', word: 'Look', title: `No ${where} node is chosen yet`, lines: [] }
  if (pool.degraded) {
    return { level: 'warn', word: 'No good node', title: `${active.name} serves though it is not well: ${active.reason}`, lines: [`No other ${where} node is better. Calls are answered, perhaps with old data.`] }
  }
  const waits = pool.calls_wait ? [`${plural(held, 'call waits', 'calls wait')} for a node that will soon be where clients have seen the chain.`] : []
  if (pool.failover) {
    const primaries = pool.nodes.filter(node => node.tier === 'primary')
    const away = primaries.filter(node => !node.usable)
    const title = away.length ? ills(away) : `${list(primaries.map(node => node.name))} is back, and has yet to take over`
    const lines = [`Calls go to ${active.name}, a backup, and are answered.`, ...waits]
    if (away.length && away.some(node => !node.cordoned)) lines.push('They go back by themselves when a primary has proved itself.')
    return { level: 'warn', word: 'On backup', title, lines }
  }
  if (pool.calls_wait) return { level: 'note', word: 'Calls wait', title: `Calls of ${where} wait for the next ${unit(layer)}`, lines: waits }
  if (ill.length) {
    const title = ills(ill)
    return { level: 'note', word: 'Calls are well', title, lines: [`No call is touched: ${where} calls go to ${active.name}.`] }
  }
  const faulty = pool.nodes.find(node => node.pair?.fault)
  if (faulty && layer === 'el') return { level: 'note', word: 'Look', title: `Pair ${faulty.pair.name}: ${faulty.pair.fault}`, lines: [] }
  return null
}

function ills(nodes) {
  const words = nodes.map(node => `${node.name} is ${saying(node)}`)
  return words.length === 1 ? words[0] : list(words.map(word => word.replace(/: (.*)/, ' ($1)')))
}

// The verdict behind 'is'.
function saying(node) {
  if (node.cordoned) return 'cordoned'
  if (node.reason.includes('proving')) return 'coming back'
  if (node.verdict === 'el_offline') return 'without its execution node'
  return node.reason.replace(/^resting: .*/, 'resting for quota')
}
