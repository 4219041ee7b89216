// The page: takes snapshots as they come and shows them. It changes nothing by itself; buttons ask
// the admin side as `steadfast cordon`, `uncordon`, `drain` and `undrain` do.

import { showCluster } from './cluster.js'
import { find, icon, keep, make, mark, Plot, say, showIcon, svg, terms } from './draw.js'
import { Model, SPAN, diagnose, key, sides } from './model.js'
import { about, ago, bytes, capital, count, plural, rate, reason, side, time, unit } from './words.js'

// Without a word for so many seconds, what is shown is of before.
const SILENT = 3
const METHODS = 8

const model = new Model()
const BADGES = { well: ['✓', 'All is well'], note: ['•', 'Look'], warn: ['!', 'On backup'], bad: ['✕', 'Outage'] }
const ICONS = { well: 'well', note: 'notice', warn: 'alarm', bad: 'down', wait: 'waits' }

const plots = [
  new Plot('calls-title', 'Calls', [{ name: 'all', of: 'calls', line: 's1' }, { name: 'unanswered', of: 'errors', line: 'bad-stroke' }], value => `${rate(value)}/s`, true),
  new Plot('times-title', 'Time to answer', [{ name: '50 %', of: 'p50', line: 's1' }, { name: '90 %', of: 'p90', line: 's2' }, { name: '99 %', of: 'p99', line: 's3' }], time, false),
]
find('curves').append(...plots.map(plot => plot.element))

// ---- The line to the proxy

let heard = performance.now()
let tried = heard
let stream = null
let isRefused = false

function connect() {
  stream?.close()
  tried = performance.now()
  stream = new EventSource('events')
  stream.onmessage = event => {
    heard = performance.now()
    model.take(JSON.parse(event.data))
    show()
  }
  // The browser tries again by itself, unless it was refused.
  stream.onerror = () => tellLine()
}

function tellLine() {
  const seconds = (performance.now() - heard) / 1000
  const isClosed = stream?.readyState === EventSource.CLOSED
  isRefused = isClosed || (isRefused && stream?.readyState !== EventSource.OPEN)
  const isOpen = stream?.readyState === EventSource.OPEN && seconds < SILENT
  const line = find('line')
  mark(line, 'data-level', isOpen ? 'well' : model.now || seconds > SILENT ? 'bad' : 'wait')
  say(find('line-text'), isOpen ? 'live' : model.now ? `no word for ${Math.round(seconds)} s` : 'connecting')
  const isStale = !isOpen && seconds >= SILENT
  mark(document.body, 'data-stale', isStale ? 'yes' : null)
  if (isStale) {
    const lines = ['This page goes on asking.']
    if (model.now) lines.unshift('The figures below are of before.')
    if (isRefused) lines.push('If the proxy runs, eight other pages may be open, which is as many as may be.')
    verdict({ level: 'bad', word: 'No word', title: 'The proxy does not answer this page', lines })
  }
  if (isClosed && performance.now() - tried > SILENT * 1000) connect()
}

setInterval(tellLine, 1000)

// ---- What is shown

function show() {
  const snapshot = model.now
  const points = model.points()
  tellLine()
  say(find('version'), snapshot.status.version)
  const drain = find('drain')
  drain.disabled = false
  say(drain, snapshot.status.draining ? 'End the drain' : 'Drain')
  verdict(diagnose(snapshot))
  figures(snapshot, points.at(-1))
  networks(snapshot)
  events(snapshot)
  clients(snapshot)
  outbox(snapshot)
  showCluster(snapshot.status.cluster)
  plots[0].draw(points, SPAN, 1)
  plots[1].draw(points, SPAN, 0.001)
  methods()
}

function verdict({ level, word, title, lines }) {
  mark(find('verdict'), 'data-level', level)
  showIcon(find('verdict-icon'), ICONS[level])
  say(find('verdict-word'), word)
  say(find('verdict-title'), title)
  keep(find('verdict-lines'), lines.map((text, place) => ({ text, place })), ({ place }) => String(place), () => make('li'), (row, { text }) => say(row, text))
  const [sign] = BADGES[level]
  const text = `${sign} ${word} – Steadfast`
  if (document.title !== text) {
    document.title = text
    find('icon').href = badge(level)
  }
}

function badge(level) {
  const [sign] = BADGES[level]
  const colour = { well: '#17703f', note: '#1d5bb5', warn: '#855300', bad: '#b0221b' }[level]
  const text = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="${colour}"/><text x="16" y="24" font-size="22" font-family="sans-serif" font-weight="bold" fill="white" text-anchor="middle">${sign}</text></svg>`
  return `data:image/svg+xml,${encodeURIComponent(text)}`
}

function figures({ calls, clients, status }, point) {
  const held = calls.reduce((sum, one) => sum + one.held, 0)
  const nodes = [...sides({ status })].flatMap(({ pool }) => pool.nodes)
  const usable = nodes.filter(node => node.usable).length
  const share = point.calls ? (100 * point.errors) / point.calls : 0
  const subscriptions = Object.values(clients.subscriptions).reduce((sum, one) => sum + one, 0)
  const rows = [
    ['Nodes up', `${usable}`, `of ${nodes.length}`, usable < nodes.length ? 'warn' : null, usable < nodes.length ? 'alarm' : null],
    ['Calls', rate(point.calls), 'a second'],
    ['Unanswered', rate(point.errors), share ? `a second, ${share < 0.1 ? '<0.1' : share.toFixed(1)} %` : 'a second', point.errors ? 'bad' : null, point.errors ? 'down' : null],
    ['Time to answer', time(point.p50), point.p99 == null ? 'half of the calls' : `99 % within ${time(point.p99)}`],
    ['Held calls', count(held), 'wait for a node', held ? 'warn' : null, held ? 'waits' : null],
    ['WebSockets', count(clients.websockets), plural(subscriptions, 'subscription')],
  ]
  keep(find('figures'), rows, row => row[0],
    ([name]) => make('div.figure', {}, make('h3', {}, make('span'), name), make('p.value'), make('p.more')),
    (tile, [, value, more, level, sign]) => {
      mark(tile, 'data-level', level)
      const [head, number, below] = tile.children
      if (sign) showIcon(head.firstElementChild, sign)
      else head.firstElementChild.replaceChildren()
      say(number, value)
      say(below, more)
    })
}

function networks(snapshot) {
  const all = snapshot.status.networks
  keep(find('networks'), all, network => network.name,
    network => make('section.card.network', { 'aria-label': `Network ${network.name}` }, make('h2', {}, `Network ${network.name}`), make('div')),
    (card, network) => {
      card.firstElementChild.hidden = all.length === 1 && network.name === 'default'
      const own = [...sides({ status: { networks: [network] } })]
      keep(card.lastElementChild, own, one => one.layer, newSide, (element, one) => drawSide(element, one, snapshot))
    })
}

function newSide({ layer }) {
  return make('section.side', { 'aria-label': side(layer) },
    make('div.side-head', {}, make('h3', {}, `${side(layer)} nodes`), make('p.flow'), make('p.side-facts')),
    make('div.tiers'),
    make('div.blocks', {}, make('h4', {}, layer === 'el' ? 'Blocks' : 'Slots'), make('ol')))
}

function drawSide(element, { name, layer, pool, network }, snapshot) {
  const [head, tiers, blocks] = element.children
  const [, flow, facts] = head.children
  const calls = snapshot.calls.find(one => one.network === name && one.layer === layer)
  mark(flow, 'data-level', pool.active ? (pool.failover || pool.degraded ? 'warn' : 'note') : 'bad')
  const traffic = pool.active && model.traffic(name, layer, pool.active)
  const text = pool.active ? `Calls go to ${pool.active}${traffic ? `, ${rate(traffic)} a second` : ''}` : 'Calls go nowhere'
  if (flow.dataset.text !== text) {
    flow.dataset.text = text
    flow.replaceChildren(icon(pool.active ? 'way' : 'down'), text)
  }
  const parts = [`head ${count(pool.head)}`]
  if (pool.served_head && pool.served_head !== pool.head) parts.push(`clients were shown ${count(pool.served_head)}`)
  if (calls?.held) parts.push(plural(calls.held, 'call held', 'calls held'))
  if (pool.chain_id) parts.push(`chain ${pool.chain_id}`)
  if (layer === 'cl' && network.events_from) parts.push(`events come from ${network.events_from}`)
  say(facts, capital(parts.join(' · ')))
  const byTier = ['primary', 'backup'].map(tier => ({ tier, nodes: pool.nodes.filter(node => node.tier === tier) }))
  mark(tiers, 'data-single', byTier.every(({ nodes }) => nodes.length === 1) ? 'yes' : null)
  keep(tiers, byTier.filter(({ nodes }) => nodes.length), ({ tier }) => tier,
    ({ tier }) => make('div.tier', {}, make('h4', {}, capital(tier)), make('div.nodes')),
    (row, { nodes }) => keep(row.lastElementChild, nodes, node => node.name, node => newNode(node, name, layer), (card, node) => drawNode(card, node, pool, name, layer)))
  drawBlocks(blocks, model.chains.get(`${name}/${layer}`) ?? [], layer)
}

function newNode(node, network, layer) {
  const button = make('button', { type: 'button' }, 'Cordon')
  button.addEventListener('click', () => askCordon(network, layer, node.name))
  return make('article.node', { 'aria-label': node.name },
    make('div.node-head', {}, make('span.sign'), make('span.node-name', {}, node.name), make('span.node-word'), make('span.badge', {}, icon('way'), 'active')),
    make('p.node-why'),
    make('dl.numbers'),
    make('p.node-error'),
    make('div.node-foot', {}, make('p.node-url'), faults(node.name), button))
}

// The credits that are left of a node's budget.
function credits(budget) {
  const left = []
  if (budget.burst != null) left.push(`${count(budget.burst_left)} of ${count(budget.burst)}`)
  if (budget.per_day != null) left.push(`${count(budget.day_left)} of ${count(budget.per_day)} today`)
  return `credits left: ${left.join(', ')}`
}

// The faults of a pretend node. The choice is an order, not a state: what follows shows above.
function faults(name) {
  const choices = [['', 'Break …'], ['down', 'Kill it'], ['hang', 'Let it hang'], ['lag', 'Let it lag'], ['syncing', 'Let it sync'], ['up', 'Mend it']]
  const select = make('select', { 'aria-label': `Break or mend ${name}` }, ...choices.map(([value, text]) => make('option', { value }, text)))
  select.addEventListener('change', () => {
    fetch(`pretend/${encodeURIComponent(name)}/${select.value}`, { method: 'POST' }).catch(() => {})
    select.value = ''
  })
  return select
}

function drawNode(card, node, pool, network, layer) {
  const { level, icon: sign, word, why } = about(node, pool, layer)
  const isActive = pool.active === node.name
  mark(card, 'data-level', level)
  mark(card, 'data-active', isActive ? 'yes' : null)
  const [head, reasons, numbers, error, foot] = card.children
  showIcon(head.children[0], sign)
  say(head.children[2], word)
  head.children[3].hidden = !isActive
  say(reasons, why)
  const traffic = model.traffic(network, layer, node.name)
  terms(numbers, [
    ['Head', count(node.head)],
    ['Behind', node.lag == null ? '–' : count(node.lag), node.lag > 0 ? level : null],
    ['Probe', node.latency_ms == null ? '–' : time(node.latency_ms / 1000)],
    ['In flight', count(node.in_flight)],
    ['Calls/s', rate(traffic)],
  ])
  const notes = []
  if (node.last_error && (!node.usable || node.last_error.seconds_ago < 120)) notes.push(`${capital(node.last_error.message)}, ${ago(node.last_error.seconds_ago)}`)
  if (node.link && !node.link.up) notes.push('its WebSocket is not open')
  if (node.connections.waiting) notes.push(`${plural(node.connections.waiting, 'request')} wait for a connection`)
  if (node.idle) notes.push('idle: looked at every 30 s')
  if (node.budget) notes.push(credits(node.budget))
  if (node.resting?.methods.length) notes.push(`rests from ${node.resting.methods.join(', ')}`)
  if (node.pair?.fault) notes.push(`pair ${node.pair.name}: ${node.pair.fault}`)
  say(error, capital(notes.join('; ')))
  error.hidden = !notes.length
  say(foot.firstElementChild, node.url)
  const [, select, button] = foot.children
  select.hidden = !model.now.pretend
  say(button, node.cordoned ? 'Uncordon' : 'Cordon')
  mark(button, 'aria-label', `${node.cordoned ? 'Uncordon' : 'Cordon'} ${node.name}`)
}

function drawBlocks(row, chain, layer) {
  row.hidden = !chain.length
  keep(row.lastElementChild, [...chain].reverse(), block => block.hash,
    block => make('li.block', { title: block.hash }, ''),
    (element, block) => {
      element.classList.toggle('gone', Boolean(block.gone))
      element.classList.toggle('reorg', !block.gone && block.reorg > 0)
      const number = count(block.number)
      say(element, block.gone ? `${number} removed` : block.reorg ? `${number} ↺ reorganised ${block.reorg}` : number)
    })
}

function events({ switches, status, uptime_ms: uptime }) {
  const many = status.networks.length > 1
  const all = [...switches].sort((a, b) => b.at_ms - a.at_ms)
  keep(find('events'), all, one => `${key(one)}/${one.at_ms}/${one.from}/${one.to}`,
    () => make('li.event', {}, make('span.dot'), make('div', {}, make('p.what'), make('p'), make('p.when'))),
    (row, one) => {
      const isBack = one.reason === 'failback' || one.reason === 'recovered' || one.reason === 'start'
      mark(row, 'data-level', one.to ? (isBack ? 'well' : 'warn') : 'bad')
      showIcon(row.firstElementChild, one.to ? (isBack ? 'home' : 'way') : 'down')
      const [what, why, when] = row.lastElementChild.children
      say(what, one.to ? (one.from ? `${one.from} → ${one.to}` : `→ ${one.to}`) : `${one.from} → nowhere: no node serves`)
      say(why, one.from && !isBack ? reason(one.reason).replace(/^It/, one.from) : reason(one.reason))
      const where = many ? `${one.network}, ${side(one.layer).toLowerCase()}` : side(one.layer)
      const clock = new Date(Date.now() - uptime + one.at_ms).toLocaleTimeString('en-GB')
      say(when, `${where} · ${clock} · ${ago((uptime - one.at_ms) / 1000)}`)
    })
}

function clients({ clients: all, status }) {
  const kinds = Object.entries(all.subscriptions).filter(([, open]) => open)
  const filters = status.networks.reduce((sum, { filters }) => sum + (filters ? filters.blocks + filters.logs + filters.transactions : 0), 0)
  terms(find('clients'), [
    ['HTTP connections', count(all.http)],
    ['WebSockets', count(all.websockets)],
    ...kinds.map(([kind, open]) => [kind === 'other' ? 'Other subscriptions' : `${kind} subscriptions`, count(open)]),
    ['Filters that are polled', count(filters)],
    ['Event streams', count(all.event_streams)],
    ['Reorganisations told', count(all.reorganisations)],
    ['Slow clients cut off', count(all.slow_closed), all.slow_closed ? 'warn' : null],
    ['Memory for clients', `${bytes(all.memory_bytes)} of ${bytes(all.memory_limit_bytes)}`],
  ])
}

// What the outbox holds; without one the card is not there.
function outbox({ status: { outbox: all } }) {
  find('outbox').hidden = !all
  if (!all) return
  const sum = name => (all.networks ?? []).reduce((sum, network) => sum + network[name], 0)
  const oldest = Math.max(0, ...(all.networks ?? []).map(network => network.oldest_seconds ?? 0))
  const facts = [['Disk', all.why ?? 'takes transactions', all.store === 'writable' ? null : 'bad']]
  if (all.networks) {
    facts.push(
      ['Not final yet', count(sum('pending'))],
      ['Oldest of these', sum('pending') ? ago(oldest) : '–'],
      ['On their way to nodes', count(sum('in_flight'))],
      ['Over, and kept', count(sum('kept'))],
      ...all.webhooks.map(of => [`Webhook ${of.name}`, webhook(of), of.failing ? 'warn' : null]),
      ['Quarantined deliveries', count(all.quarantined), all.quarantined ? 'warn' : null],
    )
  }
  terms(find('outbox-facts'), facts)
}

function webhook({ waiting, under_way, delivered, failing, last_error }) {
  const words = [`${count(delivered)} delivered`]
  if (waiting + under_way) words.push(`${count(waiting + under_way)} waiting`)
  if (failing) words.push(last_error ?? 'fails')
  return words.join(', ')
}

function methods() {
  const rows = model.methods(METHODS)
  const most = rows[0]?.perSecond ?? 1
  find('methods-empty').hidden = rows.length > 0
  find('methods').closest('table').hidden = !rows.length
  keep(find('methods'), rows, ({ method, where }) => `${key(where)}/${method}`,
    ({ method }) => make('tr', {},
      make('td.name', {}, method, svg('svg', { viewBox: '0 0 100 3', preserveAspectRatio: 'none', class: 'bar', 'aria-hidden': 'true' }, svg('rect', { height: 3, width: 0 }))),
      make('td.num'), make('td.num')),
    (row, { perSecond, failed }) => {
      say(row.children[1], rate(perSecond))
      mark(row.querySelector('rect'), 'width', ((100 * perSecond) / most).toFixed(1))
      say(row.children[2], count(failed))
      row.children[2].classList.toggle('some', failed > 0)
    })
}

// ---- What the operator does

let wish = null

function ask(title, text, yes, paths) {
  wish = paths
  say(find('ask-title'), title)
  say(find('ask-text'), text)
  say(find('ask-error'), '')
  say(find('ask-yes'), yes)
  find('ask').showModal()
  find('ask-no').focus()
}

function askCordon(network, layer, name) {
  const one = [...sides(model.now)].find(one => one.name === network && one.layer === layer)
  const node = one?.pool.nodes.find(node => node.name === name)
  if (!node) return
  const path = `nodes/${[network, layer, name].map(encodeURIComponent).join('/')}/`
  if (node.cordoned) {
    ask(`Let ${name} be used again?`, `By the rules the node is: ${node.reason}.`, `Uncordon ${name}`, `${path}uncordon`)
    return
  }
  const others = one.pool.nodes.filter(other => other !== node && other.usable)
  const text = others.length
    ? `New calls go elsewhere; those that the node has go on. It stays cordoned until you let it back, or the proxy restarts.`
    : `No other ${side(layer).toLowerCase()} node is well. Without ${name}, calls may wait and then fail.`
  ask(`Take ${name} out of use?`, text, `Cordon ${name}`, `${path}cordon`)
}

find('drain').addEventListener('click', () => {
  if (model.now.status.draining) ask('End the drain?', 'The proxy tells balancers that new traffic is welcome.', 'End the drain', 'undrain')
  else ask('Drain the proxy?', 'It tells balancers to send no new traffic. Calls that come are answered all the same.', 'Drain', 'drain')
})

find('ask-no').addEventListener('click', () => find('ask').close())

find('ask-yes').addEventListener('click', async () => {
  try {
    const answer = await fetch(wish, { method: 'POST' })
    if (answer.ok) find('ask').close()
    else say(find('ask-error'), capital((await answer.json()).error))
  } catch {
    say(find('ask-error'), 'The proxy does not answer.')
  }
})

connect()
