#!/usr/bin/env bash
# Checks all of this folder that can be checked without a container engine (README.md says what that
# is). Needs Python 3.11 and a Debian, or Prometheus and promtool on the path; the rest it installs
# below kurtosis/check. STEADFAST_BIN names the binary; without it a debug build is made. Arguments
# go to unittest: kurtosis/check.sh test_plan
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'kurtosis/check.sh: %s\n' "$1" >&2
    exit 1
}

python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "Python 3.11 with venv must be installed"

check=kurtosis/check
if ! cmp -s "$check/requirements.txt" "$check/venv/installed.txt"; then
    rm -rf "$check/venv"
    python3 -m venv "$check/venv"
    "$check/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$check/requirements.txt"
    cp "$check/requirements.txt" "$check/venv/installed.txt"
fi

# Unpacked and not installed: Debian's package would start a Prometheus of its own.
unpack_prometheus() {
    rm -rf "$check/prometheus"
    mkdir "$check/prometheus"
    (cd "$check/prometheus" && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb)
}

programs=$PWD/$check/prometheus/usr/bin
if [[ ! -x $programs/promtool ]]; then
    if command -v prometheus >/dev/null && promtool=$(command -v promtool); then
        programs=$(dirname "$promtool")
    else
        command -v apt-get >/dev/null || fail "prometheus and promtool must be installed, and this is not a Debian to get them from"
        # Debian's lists may be missing, or too old.
        unpack_prometheus || { apt-get update -q && unpack_prometheus; } || fail "prometheus could not be downloaded"
    fi
fi
export PROMTOOL=$programs/promtool PROMETHEUS=$programs/prometheus
"$PROMTOOL" --version | head -n 1

if [[ -z ${STEADFAST_BIN:-} ]]; then
    cargo build --quiet --bin steadfast
    STEADFAST_BIN=target/debug/steadfast
fi
STEADFAST_BIN=$(realpath "$STEADFAST_BIN")
[[ -x $STEADFAST_BIN ]] || fail "$STEADFAST_BIN is not a program"
export STEADFAST_BIN PYTHONDONTWRITEBYTECODE=1

cd "$check"
exec venv/bin/python -W error -m unittest "$@"
