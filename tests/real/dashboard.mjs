// dashboard.mjs BROWSER FOLDER ADMIN CONTROL PROXY [IMAGES]: opens the dashboard, makes nodes of the pretend network fail and return, and looks at
// what the page shows; at last it ends the proxy, by its process id. A line `ok …` for each thing that is as it should be; the first that is
// not ends all.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const [executablePath, folder, admin, control, proxy, images] = process.argv.slice(2)
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const quick = 2000
const ok = text => console.log(`ok ${text}`)

const context = await chromium.launchPersistentContext(folder, {
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
})
const page = await context.newPage()
const complaints = []
const foreign = []
page.on('console', message => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()))
page.on('pageerror', error => complaints.push(error.stack))
page.on('request', request => new URL(request.url()).origin !== admin && !request.url().startsWith('data:') && foreign.push(request.url()))

const fault = async path => {
  const answer = await fetch(`${control}/nodes/${path}`, { method: 'POST' })
  assert.equal(answer.status, 200, await answer.text())
}
const text = selector => page.locator(selector).innerText()
const level = () => page.locator('#verdict').getAttribute('data-level')

// From now until the page shows all of `words` in the verdict, in milliseconds.
const told = async (words, patience) => {
  const start = Date.now()
  await page.waitForFunction(
    words => words.every(word => document.getElementById('verdict').innerText.toLowerCase().includes(word)),
    words.map(word => word.toLowerCase()), { timeout: patience, polling: 20 },
  ).catch(async () => assert.fail(`the page does not say ${words.join(' … ')} but: ${await text('#verdict')}`))
  return Date.now() - start
}
const within = async (name, words, act) => {
  const start = Date.now()
  await act()
  await told(words, quick + 3000)
  const took = Date.now() - start
  assert.ok(took <= quick, `${name}: after ${took} ms`)
  ok(`${name}, within ${quick} ms`)
  console.log(`after ${took} ms`)
}

const looks = [1440, 390].flatMap(width => ['light', 'dark'].map(colorScheme => ({ width, colorScheme })))
const view = async ({ width, colorScheme }) => {
  await page.setViewportSize({ width, height: width > 1000 ? 920 : 844 })
  await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
}

// The page as it is now, wide and narrow, light and dark.
const inspect = async state => {
  for (const look of looks) {
    await view(look)
    const name = `${state}, ${look.width} wide, ${look.colorScheme}`
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
    assert.equal(over, 0, `${name}: wider than the screen`)
    // By the debugger, which the page's policy does not bind.
    await page.evaluate(axe)
    const { violations, passes } = await page.evaluate(() => window.axe.run())
    const faults = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target).join(', ')}`)
    assert.deepEqual(faults, [], name)
    assert.ok(passes.some(({ id }) => id === 'color-contrast'), `${name}: contrast was not checked`)
    const moving = await page.evaluate(() => document.getAnimations().length)
    assert.equal(moving, 0, `${name}: moves though less motion is wanted`)
    ok(`${name}: fits, and axe-core finds no fault`)
  }
  await view(looks[0])
}

const image = async (name, look) => {
  if (!images) return
  await view(look)
  await page.evaluate(() => scrollTo(0, 0))
  await page.screenshot({ path: `${images}/${name}.png` })
  await view(looks[0])
}

try {
  await view(looks[0])
  const answer = await page.goto(`${admin}/`)
  assert.match(answer.headers()['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/)
  ok('comes with a strict policy')
  await told(['All is well', 'el-1', 'cl-1'], 5000)
  assert.equal(await level(), 'well')
  ok('says that all is well, and where calls go')
  await page.waitForFunction(() => parseFloat([...document.querySelectorAll('.figure')].find(one => one.innerText.includes('Calls')).querySelector('.value').innerText) > 0)
  await page.waitForFunction(() => document.querySelector('#methods tr')?.innerText.includes('eth_blockNumber'))
  ok('counts the calls, and their methods')
  await inspect('quiet')

  // The curves of the docs' images are to show something.
  if (images) await page.waitForTimeout(90_000)
  const el1 = page.getByLabel('Break or mend el-1')
  await within('tells the death of the primary, which it brought about', ['On backup', 'el-1 is down', 'Calls go to el-2'], () => el1.selectOption('down'))
  assert.equal(await level(), 'warn')
  assert.match(await text('#events li:first-child'), /el-1 → el-2/)
  assert.match(await text('article[aria-label="el-1"]'), /Down/)
  assert.match(await text('article[aria-label="el-2"]'), /active/)
  assert.match(await page.title(), /On backup/)
  ok('shows the switch, its reason and both nodes, in words')
  await page.waitForTimeout(3000)
  await inspect('on backup')
  await image('dashboard', looks[0])
  await image('dashboard-phone', looks[3])

  await within('tells a total outage', ['Outage', 'No execution node can serve'], () => fault('el-2/down'))
  assert.equal(await level(), 'bad')
  await page.waitForFunction(() => parseInt([...document.querySelectorAll('.figure')].find(one => one.innerText.includes('Held')).querySelector('.value').innerText, 10) > 0, null, { timeout: quick })
  ok('counts the calls that wait')
  await el1.selectOption('up')
  await fault('el-2/up')
  await told(['All is well', 'el-1'], 12000)
  assert.equal(await level(), 'well')
  const news = await text('#events')
  assert.match(news, /A node serves again/)
  ok('tells that the nodes are back')
  await page.waitForFunction(() => [...document.querySelectorAll('#events li')].some(row => /→ el-1/.test(row.innerText)), null, { timeout: 3000 })
  await within('tells the death of the consensus node', ['On backup', 'cl-1 is down', 'Calls go to cl-2'], () => fault('cl-1/down'))
  await fault('cl-1/up')
  await told(['cl-1 is back, and has yet to take over'], 8000)
  ok('tells that validators stay with their node until the epoch ends')

  // By keyboard alone.
  const press = page.keyboard
  await page.locator('#drain').focus()
  let name = ''
  for (let steps = 0; steps < 40 && name !== 'Cordon el-2'; steps += 1) {
    await press.press('Tab')
    name = await page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? '')
  }
  assert.equal(name, 'Cordon el-2', 'the Tab key does not lead there')
  await press.press('Enter')
  await page.waitForSelector('#ask[open]')
  await press.press('Escape')
  assert.equal(await page.locator('#ask[open]').count(), 0)
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Cordon el-2')
  for (const [word, state] of [['Cordon', /Cordoned/], ['Uncordon', /Up/]]) {
    await press.press('Enter')
    await page.waitForSelector('#ask[open]')
    assert.match(await text('#ask'), new RegExp(`${word} el-2`))
    await press.press('Tab')
    await press.press('Enter')
    await page.waitForFunction(([source]) => new RegExp(source).test(document.querySelector('article[aria-label="el-2"] .node-word').innerText), [state.source], { timeout: quick })
  }
  ok('takes a node out and lets it back by keyboard')

  // A replica of a cluster, whose names and errors are markup. The pretend network is alone, so the snapshot of the proxy gets a cluster here.
  assert.ok(await page.locator('#cluster').isHidden())
  ok('shows no cluster where there is none')
  const markup = '<img/src=x/onerror=alert(1)>'
  const replica = (name, more) => ({
    replica: name, state: 'active', role: 'watching', epoch: 5, term: null, wants_lead: false, drained: false, view: 7, heard_ms_ago: 40, version: '0.1.0',
    heads: [{ network: 'default', layer: 'el', served: 7712345 }], serving: [], ...more,
  })
  const cluster = {
    name: 'eu', replica: 'r1', state: 'active', role: 'watching', epoch: 5, leading: false, term: null, replaced_by: null,
    store: { copy_age_ms: 34000, fault: `no NATS server was reached: ${markup}`, set_back_seconds_ago: null },
    leader: { replica: markup, epoch: 6, term: 9, lease: 'held', revision: 12 },
    view: { number: 7, members: [{ replica: 'r1', epoch: 5, state: 'active' }, { replica: markup, epoch: 6, state: 'active' }, { replica: 'r3', epoch: 1, state: 'failed' }] },
    last_fence: { seconds_ago: 200, reason: 'lease_expired' }, changes: [], wishes_left_out: 0,
    nodes: [{ network: 'default', layer: 'el', node: 'geth-2', verdicts: { down: 1, up: 2 }, of: 3, replicas: [{ replica: markup, verdict: 'down', last_error: `${markup} <b>refused</b>`, cordoned: false }] }],
    wishes: [{
      subject: 'default el geth-2', state: 'drained', obeyed: 'drained', by: 'r1', revision: 4, created_unix: 1, unreadable: null, ignored: false,
      replicas: [{ replica: 'r1', applied: 4, met: true, last_error: null }, { replica: markup, applied: null, met: false, last_error: { reason: 'no_node', text: markup } }],
    }],
    // The word of a newer version, which any object has as a property.
    replicas: [replica('r1', { drained: true }), replica(markup, { role: 'leading', epoch: 6 }), replica('b'.repeat(200), { state: 'constructor', epoch: null, heads: [] })],
  }
  await page.route('**/events', async route => {
    const answer = await fetch(route.request().url(), { headers: { accept: 'text/event-stream' } })
    let text = ''
    for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
      text += piece
      if (text.includes('\n\n')) break
    }
    const snapshot = JSON.parse(text.slice(text.indexOf('data: ') + 6, text.indexOf('\n\n')))
    snapshot.status.cluster = cluster
    // The page may have gone on meanwhile.
    await route.fulfill({ contentType: 'text/event-stream', body: `retry: 500\ndata: ${JSON.stringify(snapshot)}\n\n` }).catch(() => {})
  })
  await page.reload()
  await page.waitForSelector('#cluster:not([hidden]) article')
  const shown = await text('#cluster')
  for (const part of [
    'eu', 'r1: active, watching', `${markup}, term 9`, `7: r1 active, ${markup} active, r3 failed`, '34 s ago', `no NATS server was reached: ${markup}`,
    'lease expired, 3 min ago', 'Active, watching, drained', '7,712,345', 'Failed', 'Constructor', '0 of 1 applied', `1 of 3 replicas see default el geth-2 down (${markup}: ${markup} <b>refused</b>)`,
    `Wish of r1: default el geth-2 drained, revision 4: applied by 1 of 2 (${markup}: ${markup})`,
  ]) assert.ok(shown.includes(part), `the cluster's section does not say ${part} but: ${shown}`)
  assert.match(await text('#verdict'), /The store of the cluster fails/i)
  assert.equal(await page.locator('main img, main b:not(.legend b)').count(), 0)
  ok('shows the cluster, with hostile names and errors as text')
  await inspect('in a cluster')
  await page.unroute('**/events')
  await page.reload()
  await page.waitForFunction(() => document.getElementById('version').innerText && document.getElementById('cluster').hidden, null, { timeout: 5000 })

  assert.deepEqual(foreign, [])
  ok('asks nobody but the proxy')
  assert.deepEqual(complaints, [])
  ok('has no error on the console')

  process.kill(Number(proxy), 'SIGTERM')
  await told(['The proxy does not answer this page', 'The figures below are of before'], 8000)
  assert.match(await text('#line'), /no word for \d+ s/)
  ok('tells that the proxy is gone')
  console.log('end')
} catch (error) {
  console.log(String(error.stack ?? error), complaints)
  process.exitCode = 1
} finally {
  await context.close()
}
