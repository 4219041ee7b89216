#!/usr/bin/env bash
# What calls and subscriptions over WebSocket cost in Steadfast, beside nginx as a plain pipe. See README.md; `--help` lists the options.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=bench/install.sh
. "$here/install.sh"
export PATH="$PATH:/usr/sbin:/sbin"

measure=ws.py
case " $* " in
*" --instructions "*) measure=ws_instructions.py ;;
esac
case " $* " in
*" --help "* | *" -h "*) exec python3 "$here/$measure" --help ;;
esac

install_tools
# A client costs each process one descriptor, and nginx two. Where the limit cannot be raised, ws.py says what that means.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --quiet --release --manifest-path "$root/Cargo.toml" --example bench_ws_origin --example bench_ws_clients
if [ -z "${STEADFAST_BIN:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --bin steadfast
    STEADFAST_BIN=$target/release/steadfast
fi
export STEADFAST_BIN
export ORIGIN_BIN=$target/release/examples/bench_ws_origin
export CLIENTS_BIN=$target/release/examples/bench_ws_clients
exec python3 "$here/$measure" "$@"
