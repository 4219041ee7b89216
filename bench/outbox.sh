#!/usr/bin/env bash
# How long clients wait for the hash of a transaction with an outbox, beside a proxy without one. See README.md.
# bench/outbox.sh [SECONDS [ROUNDS [SENDERS]]]
set -euo pipefail

root=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")
exec cargo run --quiet --release --manifest-path "$root/Cargo.toml" --example bench_outbox -- "$@"
