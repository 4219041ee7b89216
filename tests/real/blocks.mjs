// blocks(fetch): a listener for block numbers that fetches each block at once, since what is announced can be fetched, and says them in the
// order in which they were announced. One that is not there is asked for again, and said to be late: its only node may have died.
import { setTimeout as pause } from 'node:timers/promises'

export function blocks(fetch) {
  let said = Promise.resolve()
  const found = async (number) => {
    for (const began = Date.now(); ; await pause(50)) {
      const block = await fetch(number).catch(notFound)
      if (block) return block.hash
      if (Date.now() - began > 3000) return 'is not there'
      if (!late.has(number)) console.log(`late ${number}`)
      late.add(number)
    }
  }
  const late = new Set()
  return (number) => {
    const fetched = found(number).catch((error) => error.message)
    said = said.then(async () => console.log(`block ${number} ${await fetched}`))
  }
}

function notFound(error) {
  if (error.name === 'BlockNotFoundError') return null
  throw error
}
