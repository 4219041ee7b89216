#!/usr/bin/env bash
# The scenarios tagged @testnet before real anvil processes: killed, stopped, and started again. docs/TESTNET.md says what runs where.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Seconds for the scenarios; what has to be installed and built comes before.
limit=290

tests/install.sh
cargo test --quiet --no-run --test features

# In a process group of its own, so that no anvil outlives the run, however it ends.
set -m
timeout --kill-after 5 "$limit" env STEADFAST_NETWORK=anvil cargo test --quiet --test features &
run=$!
set +m
trap 'kill -KILL -- "-$run" 2>/dev/null || true' EXIT
status=0
wait "$run" || status=$?
if ((status == 124)); then
    printf 'tests/real/testnet.sh: not done after %d s\n' "$limit" >&2
fi
exit "$status"
