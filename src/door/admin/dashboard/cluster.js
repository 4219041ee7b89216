// The cluster, as this replica knows it. Names, words and errors come from other replicas and from
// the store: all of them are shown as text, and a word that is not known is shown as it is.

import { find, keep, make, mark, say, showIcon, terms } from './draw.js'
import { ago, capital, count, plural, reason } from './words.js'

// How bad a replica's standing is, and its icon. A map, since a word may be of a newer version.
const STANDINGS = new Map([
  ['active', ['well', 'well']],
  ['joining', ['note', 'waits']],
  ['draining', ['note', 'waits']],
  ['failed', ['bad', 'down']],
  ['left', ['off', 'held']],
])

// Without a cluster the card is not there.
export function showCluster(cluster) {
  find('cluster').hidden = !cluster
  if (!cluster) return
  say(find('cluster-name'), cluster.name)
  terms(find('cluster-facts'), facts(cluster))
  keep(find('cluster-replicas'), replicas(cluster), one => one.replica, newReplica, drawReplica)
  lines('cluster-nodes', cluster.nodes.flatMap(doubts))
  lines('cluster-wishes', wishes(cluster))
}

function facts({ replica, state, role, leading, replaced_by: by, store, leader, view, last_fence: fence }) {
  const part = leading ? 'leads' : role
  const members = view?.members.map(of => `${of.replica} ${of.state}`).join(', ')
  const rows = [
    ['This replica', `${replica}: ${state ?? 'not joined yet'}, ${part}`],
    ['Leader', leader ? `${leader.replica}, term ${leader.term}${leader.lease === 'held' ? '' : `, lease ${leader.lease}`}` : 'none is known'],
    ['View', view ? `${view.number}: ${members}` : 'none is known yet'],
    ['Last word of the store', ago(store.copy_age_ms / 1000), store.fault == null ? null : 'warn'],
  ]
  if (store.fault != null) rows.push(['The store fails', store.fault, 'warn'])
  if (store.set_back_seconds_ago != null) rows.push(['The store was set back', ago(store.set_back_seconds_ago), 'warn'])
  if (by != null) rows.push(['Another process of this name', `epoch ${by}`, 'bad'])
  rows.push(['Last fence here', fence ? `${reason(fence.reason)}, ${ago(fence.seconds_ago)}` : 'none'])
  return rows
}

// The replicas with a heartbeat, and the members of the view that have none in the store any more.
function replicas({ replicas: heard, view, wishes: all }) {
  const known = new Set(heard.map(one => one.replica))
  const silent = (view?.members ?? []).filter(one => !known.has(one.replica))
  return [...heard, ...silent].map(one => {
    const asked = all.filter(wish => !wish.ignored).flatMap(wish => wish.replicas).filter(of => of.replica === one.replica)
    return { ...one, asked: asked.length, met: asked.filter(of => of.met).length }
  })
}

function newReplica({ replica }) {
  return make('article.node', { 'aria-label': `Replica ${replica}` },
    make('div.node-head', {}, make('span.sign'), make('span.node-name', {}, replica), make('span.node-word')),
    make('dl.numbers'),
    make('p.node-error'))
}

function drawReplica(card, one) {
  const [level, sign] = STANDINGS.get(one.state) ?? ['off', 'doubt']
  // The last heartbeat of a replica that is gone says nothing about its part now.
  const isHere = one.state === 'active' || one.state === 'draining'
  mark(card, 'data-level', level)
  mark(card, 'data-active', isHere && one.role === 'leading' ? 'yes' : null)
  const [head, numbers, served] = card.children
  showIcon(head.children[0], sign)
  say(head.children[2], [capital(one.state), isHere ? one.role : null, one.drained ? 'drained' : null].filter(Boolean).join(', '))
  terms(numbers, [
    ['Epoch', one.epoch == null ? '–' : String(one.epoch)],
    ['Heartbeat', one.heard_ms_ago == null ? '–' : ago(one.heard_ms_ago / 1000)],
    ['Build', one.version ?? '–'],
    ['Wishes', one.asked ? `${count(one.met)} of ${count(one.asked)} applied` : 'none', one.met < one.asked ? 'warn' : null],
  ])
  const heads = (one.heads ?? []).map(head => `${head.network} ${head.layer} ${count(head.served)}`)
  say(served, heads.length ? `Clients were shown ${heads.join(', ')}` : 'No height is known')
}

// A line for each verdict but `up` that some replica holds on a node, with the last error.
function doubts({ network, layer, node, verdicts, of, replicas: all }) {
  const words = Object.entries(verdicts).filter(([word]) => word !== 'up')
  const lines = words.map(([word, number]) => {
    const at = all.filter(one => one.verdict === word)
    const errors = at.map(one => (one.last_error == null ? one.replica : `${one.replica}: ${one.last_error}`))
    return `${number} of ${plural(of, 'replica')} see ${network} ${layer} ${node} ${word} (${errors.join('; ')})`
  })
  const cordoned = all.filter(one => one.cordoned).map(one => one.replica)
  if (cordoned.length) lines.push(`${network} ${layer} ${node} is cordoned by the operator of ${cordoned.join(', ')} alone`)
  return lines
}

function wishes({ wishes: all, wishes_left_out: more }) {
  const lines = all.map(({ subject, state, obeyed, by, revision, unreadable, ignored, replicas: of }) => {
    let text = `The wish for ${subject} has ended`
    if (revision != null && unreadable != null) text = `Wish for ${subject}, revision ${revision}, cannot be read (${unreadable}): ${obeyed ?? 'nothing'} counts meanwhile`
    else if (revision != null) text = `Wish of ${by}: ${subject} ${state}, revision ${revision}`
    if (ignored) return `${text}: ignored, since there are too many wishes`
    const late = of.filter(one => !one.met).map(one => `${one.replica}: ${one.last_error?.text ?? 'not applied yet'}`)
    return `${text}: applied by ${of.length - late.length} of ${of.length}${late.length ? ` (${late.join('; ')})` : ''}`
  })
  if (more) lines.push(`${plural(more, 'wish more is', 'wishes more are')} not even kept: there are too many`)
  return lines
}

// A list, whose heading stands only where there is something to list.
function lines(id, texts) {
  const list = find(id)
  list.parentElement.hidden = !texts.length
  keep(list, texts.map((text, place) => ({ text, place })), ({ place }) => String(place), () => make('li'), (row, { text }) => say(row, text))
}
