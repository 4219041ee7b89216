// `chain.mjs PORT SENDER CONTRACT`: one chain on several anvils, which know no peers. It mines a block on one of them every 300 ms, in which the
// sender calls the contract, and has the others live through the same block; before that, every transaction that one of them has is given to all.
//
// A POST of `[{"url": …, "gate": PID}, …]` names the anvils from now on, and the gates that clients come through. It is answered when all have the
// whole chain. A POST of `[]` is answered when no block is under way and all have the same transactions, and leaves the gates closed, so that a
// node may be killed then without taking along what only it was told: where nodes have peers, these would have it.
import http from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'

const [port, sender, contract] = process.argv.slice(2)
const genesis = 1700000000
let nodes = []
let turn = Promise.resolve()

http
  .createServer(async (request, answer) => {
    let body = ''
    for await (const chunk of request) body += chunk
    const wanted = JSON.parse(body)
    turn = turn.then(async () => {
      if (wanted.length) {
        nodes = wanted
        await catchUp()
        open()
      } else {
        await close()
        nodes = []
      }
      answer.end('{"result":true}')
    })
  })
  .listen(Number(port), '127.0.0.1')

for (;; await pause(300)) {
  turn = turn.then(block)
  await turn
}

async function block() {
  if (!nodes.length) return
  await catchUp()
  await close()
  const [leader] = await byHeight()
  const nonce = await call(leader, 'eth_getTransactionCount', sender, 'latest')
  // It pays more than any client, so it comes first. What it costs is said outright: a node's own estimate may differ from another's.
  const costs = { gas: '0x7a120', maxFeePerGas: '0x174876e800', maxPriorityFeePerGas: '0x2540be400' }
  await call(leader, 'eth_sendTransaction', { from: sender, to: contract, nonce, ...costs })
  await call(leader, 'evm_setNextBlockTimestamp', genesis + 12 * (leader.height + 1))
  await call(leader, 'evm_mine')
  await catchUp()
  open()
}

/** Every transaction that one has and that is in no block, to all. Returns how many were new to a node. */
async function gossip() {
  let news = 0
  const known = await Promise.all(nodes.map(async (node) => new Set(await waiting(node))))
  for (const [at, node] of nodes.entries()) {
    for (const hash of known[at]) {
      const raw = await call(node, 'eth_getRawTransactionByHash', hash)
      for (const [other, peer] of nodes.entries()) {
        if (known[other].has(hash)) continue
        await give(peer, raw)
        known[other].add(hash)
        news += 1
      }
    }
  }
  return news
}

/**
 * Those with fewer blocks live through those of the one with the most, behind closed gates: a transaction that a client brings meanwhile would
 * get into a block that has none of it.
 */
async function catchUp() {
  const [leader, ...others] = await byHeight()
  for (const node of others) {
    if (node.height < leader.height) process.kill(node.gate, 'SIGSTOP')
    while (node.height < leader.height) await relive(node, leader, ++node.height)
    const [own, wanted] = await Promise.all([node, leader].map((one) => call(one, 'eth_getBlockByNumber', 'latest', false)))
    if (own.hash !== wanted.hash) throw new Error(`block ${wanted.number} of ${node.url} is ${own.hash}, of ${leader.url} ${wanted.hash}`)
  }
}

async function relive(node, leader, height) {
  const { timestamp, transactions } = await call(leader, 'eth_getBlockByNumber', `0x${height.toString(16)}`, false)
  // On a busy machine a client's transaction may come in after all had those that were known: it waits for the next block.
  const late = (await waiting(node)).filter((hash) => !transactions.includes(hash))
  const raws = await Promise.all(late.map((hash) => call(node, 'eth_getRawTransactionByHash', hash)))
  await call(node, 'anvil_dropAllTransactions')
  for (const hash of transactions) await give(node, await call(leader, 'eth_getRawTransactionByHash', hash))
  await call(node, 'evm_setNextBlockTimestamp', Number(timestamp))
  await call(node, 'evm_mine')
  for (const raw of raws) await give(node, raw).catch((error) => console.log(error.message))
}

/** Hashes of the transactions that a node has, and that are in no block. */
async function waiting(node) {
  const { pending, queued } = await call(node, 'txpool_content')
  return [pending, queued].flatMap(Object.values).flatMap(Object.values).map(({ hash }) => hash)
}

/** A transaction that the node has by now is given. */
async function give(node, raw) {
  await call(node, 'eth_sendRawTransaction', raw).catch((error) => {
    if (!/already imported/.test(error.message)) throw error
  })
}

async function byHeight() {
  for (const node of nodes) node.height = Number(await call(node, 'eth_blockNumber'))
  return nodes.toSorted((one, other) => other.height - one.height)
}

/**
 * Nobody comes through the gates, and what came through is done and known to all. A node that the machine leaves waiting takes a transaction
 * some time after it came through the gate, so the gates count as closed when two looks in a row find nothing new.
 */
async function close() {
  for (const { gate } of nodes) process.kill(gate, 'SIGSTOP')
  for (let quiet = 0; quiet < 2; quiet += 1) {
    await pause(10)
    if (await gossip()) quiet = -1
  }
}

function open() {
  for (const { gate } of nodes) process.kill(gate, 'SIGCONT')
}

async function call(node, method, ...params) {
  const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })
  const answer = await fetch(node.url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
  const { result, error } = await answer.json()
  if (error) throw new Error(`${method} at ${node.url}: ${error.message}`)
  return result
}
