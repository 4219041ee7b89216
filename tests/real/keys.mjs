// `keys.mjs FIRST COUNT`: the private keys of an anvil's accounts, from that one on.
import { HDNodeWallet } from 'ethers'

const [first, count] = process.argv.slice(2).map(Number)
for (let n = first; n < first + count; n++) {
  console.log(HDNodeWallet.fromPhrase(`${'test '.repeat(11)}junk`, undefined, `m/44'/60'/0'/0/${n}`).privateKey)
}
