// `forms-lodestar.mjs URL`: whether a pretend node's state, blocks and blobs are what the consensus specifications describe, by Lodestar's types of
// the minimal preset (LODESTAR_PRESET=minimal): a member that is missing, or of another length, is an error. Says how many bytes of SSZ they make.
import { ssz } from '@lodestar/types'

async function ask(path) {
  const answer = await fetch(process.argv[2] + path)
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`)
  return (await answer.json()).data
}

function bytes(type, json) {
  return type.serialize(type.fromJson(json)).length
}

console.log('state', bytes(ssz.electra.BeaconState, await ask('/eth/v2/debug/beacon/states/head')))
// Blocks of even slots have blobs.
for (const slot of [2, 3]) {
  console.log('block', slot, bytes(ssz.electra.SignedBeaconBlock, await ask(`/eth/v2/beacon/blocks/${slot}`)))
  console.log('blobs', slot, bytes(ssz.deneb.BlobSidecars, await ask(`/eth/v1/beacon/blob_sidecars/${slot}`)))
}
