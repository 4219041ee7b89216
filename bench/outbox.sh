#!/usr/bin/env bash
# How long clients wait for the hash of a transaction with an outbox, beside a proxy without one. See README.md.
# bench/outbox.sh [--anvil] [SECONDS [ROUNDS [SENDERS]]]
set -euo pipefail

root=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")
node=()
if [[ ${1:-} == --anvil ]]; then
    shift
    "$root/tests/install.sh" >&2
    anvil=("$root"/tests/real/node_modules/@foundry-rs/anvil-*/bin/anvil)
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # The gas limit lets a block hold all that was sent since the block before.
    "${anvil[0]}" --silent --chain-id 1337 --block-time 1 --gas-limit 1000000000 --port "$port" &
    trap 'kill "$!"' EXIT
    node=(--anvil "http://127.0.0.1:$port")
fi
cargo run --quiet --release --manifest-path "$root/Cargo.toml" --example bench_outbox -- "${node[@]}" "$@"
