// A client of ethereumjs' libraries: `calls-ethereumjs.mjs URL CONTRACT` fetches the last block, whose hash it works out by itself, and runs the
// contract in its own EVM on that block's state, which it fetches as it is needed. It says what it got, until SIGTERM.
import { createBlockFromJSONRPCProvider } from '@ethereumjs/block'
import { createCustomCommon, Hardfork, Mainnet } from '@ethereumjs/common'
import { createEVM } from '@ethereumjs/evm'
import { RPCStateManager } from '@ethereumjs/statemanager'
import { bytesToHex, createAddressFromString } from '@ethereumjs/util'
import { keepCalling } from './calls.mjs'

const [provider, contract] = process.argv.slice(2)
const common = createCustomCommon({ chainId: 1337 }, Mainnet, { hardfork: Hardfork.Prague })
const to = createAddressFromString(contract)
let block

await keepCalling({
  http: {
    block: async () => {
      block = await createBlockFromJSONRPCProvider(provider, 'latest', { common })
      return [block.header.number, bytesToHex(block.hash())]
    },
    run: async () => {
      const { number: blockTag } = block.header
      const evm = await createEVM({ common, stateManager: new RPCStateManager({ provider, blockTag, common }) })
      const { execResult: { exceptionError, logs = [] } } = await evm.runCall({ to, block, gasLimit: 500_000n })
      if (exceptionError) throw new Error(exceptionError.error)
      return [blockTag, ...logs.map(([address, topics]) => `${bytesToHex(address)}:${topics.map(bytesToHex)}`)]
    },
  },
})
