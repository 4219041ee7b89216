// A web3.js client: `watch-web3js.mjs URL ADDRESS` says the same as watch-ethers.mjs. It does not connect anew when it loses its connection.
import { Web3, WebSocketProvider } from 'web3'
import { blocks } from './blocks.mjs'

const [url, address] = process.argv.slice(2)
const provider = new WebSocketProvider(url, {}, { autoReconnect: false })
provider.on('disconnect', ({ code, message }) => console.log(`closed ${code} ${message}`))
provider.on('error', (error) => console.log(`error ${error.message}`))
const web3 = new Web3(provider)

const heads = await web3.eth.subscribe('newBlockHeaders')
const announced = blocks((number) => web3.eth.getBlock(number))
heads.on('data', ({ number }) => announced(number))
heads.on('error', (error) => console.log(`error ${error.message}`))
const logs = await web3.eth.subscribe('logs', { address, topics: [web3.utils.keccak256('Ticked(uint256)')] })
logs.on('data', (log) =>
  console.log(`log ${log.blockNumber} ${log.logIndex} ${log.blockHash} ${BigInt(log.data)}${log.removed ? ' removed' : ''}`))
logs.on('error', (error) => console.log(`error ${error.message}`))
