// keepCalling(doors): calls through every door, one thing after another and again, until SIGTERM, and says each answer by the name of the thing.
// Each is done in its library's own way. An error is said too, and no check lets that pass.
export async function keepCalling(doors) {
  let enough = false
  process.on('SIGTERM', () => (enough = true))
  await Promise.all(Object.entries(doors).map(async ([door, things]) => {
    while (!enough) {
      for (const [name, thing] of Object.entries(things)) {
        const began = Date.now()
        try {
          console.log(name, door, (await thing()).join(' '), `${Date.now() - began} ms`)
        } catch (error) {
          console.log('error', door, name, error.stack)
        }
      }
    }
    console.log('done', door)
  }))
  process.exit()
}

/** What a library sends, as it tells by itself: whether it has put several calls in one batch since it was asked last. */
export class Sent {
  #most = 0

  note(payload) {
    if (Array.isArray(payload)) this.#most = Math.max(this.#most, payload.length)
  }

  demandBatch() {
    if (this.#most < 2) throw new Error('no batch was sent')
    this.#most = 0
  }
}
