#!/usr/bin/env bash
# A rehearsal of the scenarios tagged @testnet before an enclave, without one: the nodes are those of `steadfast dev`, and a stand-in for
# `kurtosis` stops and starts them. The real run is `kurtosis/run.sh`, then STEADFAST_NETWORK=kurtosis cargo test --test features.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
cargo test --quiet --no-run --test features
limit_to 300

read -r port_front port_admin port_control < <(free_ports 3)
start dev "$steadfast" dev --nodes 4 --block-time 1 --validators 0 \
    --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin" --control "127.0.0.1:$port_control"
within 10 "the pretend network runs" succeeds "http://127.0.0.1:$port_admin/readyz"

export DEV_LOG=$work/dev.log DEV_CONTROL=http://127.0.0.1:$port_control
PATH=$PWD/tests/real/stand-in:$PATH STEADFAST_NETWORK=kurtosis cargo test --quiet --test features
