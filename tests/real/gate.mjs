// `gate.mjs PORT TARGET`: what connects to the one port of 127.0.0.1 is connected to the other. So a node can come back at its old address with
// all of its chain, and not before.
import net from 'node:net'

const [port, target] = process.argv.slice(2).map(Number)
net
  .createServer({ noDelay: true }, (near) => {
    const far = net.connect({ port: target, host: '127.0.0.1', noDelay: true })
    for (const [from, to] of [[near, far], [far, near]]) {
      from.pipe(to)
      from.on('error', () => to.destroy())
      from.on('close', () => to.destroy())
    }
  })
  .listen(port, '127.0.0.1')
