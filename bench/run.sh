#!/usr/bin/env bash
# What a call costs in Steadfast, beside haproxy and nginx. See README.md; `--help` lists the options.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
# shellcheck source=bench/install.sh
. "$here/install.sh"
export PATH="$PATH:/usr/sbin:/sbin"

measure=measure.py
case " $* " in
*" --state "*) measure=state.py ;;
*" --instructions "*) measure=instructions.py ;;
*" --filters "*) measure=filters.py ;;
esac
case " $* " in
*" --help "* | *" -h "*) exec python3 "$here/$measure" --help ;;
esac

install_tools
target=${CARGO_TARGET_DIR:-$root/target}
cargo build --quiet --release --manifest-path "$root/Cargo.toml" --example bench_origin
if [ -z "${STEADFAST_BIN:-}" ]; then
    cargo build --quiet --release --manifest-path "$root/Cargo.toml" --bin steadfast
    STEADFAST_BIN=$target/release/steadfast
fi
export STEADFAST_BIN
export ORIGIN_BIN=$target/release/examples/bench_origin
exec python3 "$here/$measure" "$@"
