#!/usr/bin/env bash
# Runs the scripts that put real clients before real nodes, and writes docs/COMPATIBILITY.md of what they did: a row for each thing that a script has
# seen done. The first that fails ends the run. In CI a page that is not what the run would write is a failure too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

page=docs/COMPATIBILITY.md
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
export COMPATIBILITY_ROWS=$made/rows

for script in ws filters clients beacon; do
    printf '\n-- tests/real/%s.sh\n' "$script"
    "tests/real/$script.sh"
done

tests/real/venv/bin/python tests/real/compatibility.py <"$COMPATIBILITY_ROWS" >"$made/page"
if [[ -z ${CI:-} ]]; then
    cp "$made/page" "$page"
elif ! diff -u "$page" "$made/page"; then
    printf '%s is not what the clients did: run tests/real/compatibility.sh\n' "$page" >&2
    exit 1
fi
