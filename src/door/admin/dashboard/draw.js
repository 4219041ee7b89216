// Makes and changes elements. All text comes in as text, never as markup.

import { shape } from './words.js'

const SVG = 'http://www.w3.org/2000/svg'

export const find = id => document.getElementById(id)

// make('div.node', {attribute: value}, child, …): an element; nothing is drawn of null.
export function make(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split('.')
  const element = document.createElement(tag)
  if (classes.length) element.className = classes.join(' ')
  for (const [name, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(name, value)
  }
  element.append(...children.filter(child => child != null))
  return element
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

export function icon(name) {
  const paths = shape(name).map(d => svg('path', { d }))
  return svg('svg', { viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true', 'data-name': name }, ...paths)
}

// Sets only what has changed, so that screen readers hear only news, and focus stays.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

export function mark(element, name, value) {
  if (value == null) element.removeAttribute(name)
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value)
}

export function showIcon(element, name) {
  if (element.firstElementChild?.dataset.name !== name) element.replaceChildren(icon(name))
}

// Keeps one child of `parent` for each of `items`, in their order: made once, updated ever after.
export function keep(parent, items, key, create, update) {
  const old = new Map([...parent.children].map(child => [child.dataset.key, child]))
  let place = parent.firstElementChild
  for (const item of items) {
    const name = key(item)
    let child = old.get(name)
    old.delete(name)
    if (!child) {
      child = create(item)
      child.dataset.key = name
    }
    if (child === place) place = place.nextElementSibling
    else parent.insertBefore(child, place)
    update(child, item)
  }
  // Whatever was not asked for is behind the last item now.
  while (place) {
    const next = place.nextElementSibling
    place.remove()
    place = next
  }
}

// `facts` of [name, text, level?] as the rows of a list of terms.
export function terms(parent, facts) {
  keep(parent, facts, fact => fact[0], fact => make('div', {}, make('dt', {}, fact[0]), make('dd')), (row, [, text, level]) => {
    say(row.lastElementChild, text)
    mark(row, 'data-level', level)
  })
}

// A plot with one line for each series ({name, of, line}); the first may have its area filled.
export class Plot {
  constructor(id, title, series, unit, isFilled) {
    Object.assign(this, { series, unit, isFilled })
    this.paths = series.map(({ line }) => svg('path', { class: `stroke ${line}` }))
    this.area = svg('path', { class: 'fill' })
    const grid = [0, 50].map(y => svg('line', { class: 'grid', x1: 0, x2: 300, y1: y, y2: y }))
    this.image = svg('svg', { viewBox: '0 0 300 100', preserveAspectRatio: 'none', role: 'img' }, ...grid, this.area, ...this.paths)
    this.most = make('span.most')
    const legend = make('div.legend')
    this.values = series.map(({ name, line }) => {
      const value = make('b')
      legend.append(make('span', {}, svg('svg', { viewBox: '0 0 22 8', 'aria-hidden': 'true' }, svg('path', { d: 'M0 4H22', class: `stroke ${line}` })), name, value))
      return value
    })
    this.element = make('section.card', { 'aria-labelledby': id },
      make('div.curve-head', {}, make('h2', { id }, title), legend),
      make('div.plot', {}, this.image, this.most),
      make('div.times', { 'aria-hidden': 'true' }, make('span', {}, '5 min ago'), make('span', {}, 'now')))
  }

  draw(points, span, least) {
    const end = points.at(-1)?.at ?? 0
    let top = least
    for (const { of } of this.series) for (const point of points) top = Math.max(top, point[of] ?? 0)
    top = nice(top)
    const x = at => (300 * (at - end + span)) / span
    const y = value => 100 - (100 * value) / top
    this.series.forEach(({ of }, place) => {
      // A line of zeros would only look like one of errors.
      mark(this.paths[place], 'd', points.some(point => point[of]) ? line(points, of, x, y) : 'M0 0')
      say(this.values[place], this.unit(points.at(-1)?.[of]))
    })
    mark(this.area, 'd', this.isFilled ? area(points, this.series[0].of, x, y) : 'M0 0')
    say(this.most, this.unit(top))
    const now = this.series.map(({ name, of }) => `${name} ${this.unit(points.at(-1)?.[of])}`)
    mark(this.image, 'aria-label', `Now: ${now.join(', ')}. The scale ends at ${this.unit(top)}.`)
  }
}

// A line that breaks where nothing is known.
function line(points, of, x, y) {
  let path = ''
  let isOpen = false
  for (const point of points) {
    const value = point[of]
    const at = x(point.at)
    if (value == null || at < 0) isOpen = false
    else {
      path += `${isOpen ? 'L' : 'M'}${at.toFixed(1)} ${y(value).toFixed(1)}`
      isOpen = true
    }
  }
  return path || 'M0 0'
}

function area(points, of, x, y) {
  const known = points.filter(point => point[of] != null && x(point.at) >= 0)
  if (known.length < 2) return 'M0 0'
  const [from, to] = [known[0], known.at(-1)].map(point => x(point.at).toFixed(1))
  return `${line(known, of, x, y)}L${to} 100L${from} 100Z`
}

// The next of 1, 2, 5, 10, …
function nice(value) {
  const ten = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map(step => step * ten).find(step => step >= value * 0.999)
}
