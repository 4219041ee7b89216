#!/usr/bin/env bash
# The dashboard in a real browser: the primary of a pretend network dies and comes back, and the page tells both in time. The page has no
# errors, no fault that axe-core finds, fits a phone, and is worked by keyboard. `dashboard.sh --images` also writes the images of the docs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
limit_to 240

browser=$(command -v chromium) || fail "no chromium here: run tests/install.sh"
[[ -f $real/node_modules/playwright-core/package.json ]] || fail "no playwright-core here: run tests/install.sh"

# said PATTERN: the first match in what the proxy printed when it began.
said() {
    grep -oE -m 1 "$1" "$work/steadfast.log"
}

begins() {
    said 'Ctrl-C ends it' >/dev/null
}

# failed_before_the_end: calls that failed though a later one of the same client was answered.
failed_before_the_end() {
    awk 'FNR == 1 { bad = 0 } /^bad/ { bad++ } /^good/ { lost += bad; bad = 0 } END { print lost + 0 }' "$work"/calls-*
}

# waits_for PID: it ends; how, does not matter.
waits_for() {
    wait "$1" || true
}

# The pretend nodes take ports that are free, so the others are chosen in the same way.
start steadfast "$steadfast" dev --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --control 127.0.0.1:0
proxy=$started
within 10 "the pretend network begins" begins
front=$(said 'http://[0-9.:]+ +ws:' | grep -oE 'http://[0-9.:]+')
admin=$(said 'http://[0-9.:]+/ in a browser' | grep -oE 'http://[0-9.:]+')
control=$(said 'http://[0-9.:]+/nodes/el-1/down' | grep -oE 'http://[0-9.:]+')
within 10 "the pretend network and the proxy get ready" succeeds "$admin/readyz"
within 10 "the first node serves" active_is el-1

# Three clients call all the while, until the browser's part ends the proxy.
start_calling
curl -sN "$admin/events" >"$work/events" &
stream=$!
pids+=("$stream")
within 3 "a page that is open is told" grep -q '^data: ' "$work/events"

images=
[[ ${1-} != --images ]] || images=docs/images
mkdir -p "$work/browser" ${images:+"$images"}
status=0
node "$real/dashboard.mjs" "$browser" "$work/browser" "$admin" "$control" "$proxy" "$images" >"$work/page.log" 2>&1 || status=$?
while IFS= read -r line; do
    case $line in
    "ok "*) pass "the page: ${line#ok }" ;;
    *) note "$line" ;;
    esac
done <"$work/page.log"
((status == 0)) || fail "the page"
is "the browser's part came to its end" "$(tail -n 1 "$work/page.log")" "end"

ok "the proxy ended well though pages were open" ends_well "$proxy"
ok "and a page's stream ended with the proxy" waits_for "$stream"
stop_calling
ok "enough calls were made" test "$(calls_made)" -ge 100
# Once the proxy is gone none is answered, so only those before count.
is "none of them failed" "$(failed_before_the_end)" 0
summary
