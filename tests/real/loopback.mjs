// For `node --import`: whatever the program means to listen on, it listens on 127.0.0.1. ethereumjs cannot be told so for all its ports.
import dgram from 'node:dgram'
import net from 'node:net'

const home = '127.0.0.1'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  if (typeof port !== 'number') throw new Error(`listen(${JSON.stringify(port)}) is not understood here`)
  return listen.call(this, { port, host: home }, ...rest.filter((argument) => typeof argument === 'function'))
}

const bind = dgram.Socket.prototype.bind
dgram.Socket.prototype.bind = function (port, ...rest) {
  return bind.call(this, { port: typeof port === 'number' ? port : 0, address: home }, ...rest.filter((argument) => typeof argument === 'function'))
}
