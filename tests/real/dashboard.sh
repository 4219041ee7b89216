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

read -r port_front port_admin port_control < <(free_ports 3)
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin control=http://127.0.0.1:$port_control

# waits_for PID: it ends; how, does not matter.
waits_for() {
    wait "$1" || true
}

start steadfast "$steadfast" dev --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin" --control "127.0.0.1:$port_control"
proxy=$started
within 10 "the pretend network and the proxy get ready" succeeds "$admin/readyz"
within 10 "the first node serves" active_is el-1
start_calling

images=
[[ ${1-} != --images ]] || images=docs/images
mkdir -p "$work/browser" ${images:+"$images"}
status=0
node "$real/dashboard.mjs" "$browser" "$work/browser" "$admin" "$control" "$images" >"$work/page.log" 2>&1 || status=$?
while IFS= read -r line; do
    case $line in
    "ok "*) pass "the page: ${line#ok }" ;;
    *) note "$line" ;;
    esac
done <"$work/page.log"
((status == 0)) || fail "the page"
is "the browser's part came to its end" "$(tail -n 1 "$work/page.log")" "end"

stop_calling
ok "enough calls were made meanwhile" test "$(calls_made)" -ge 100
is "none of them failed" "$(calls_failed)" 0
curl -sN "$admin/events" >"$work/events" &
stream=$!
pids+=("$stream")
within 3 "a page that is open is told" grep -q '^data: ' "$work/events"
kill -TERM "$proxy"
ok "the proxy ends well though a page is open" ends_well "$proxy"
ok "and the page's stream ends with the proxy" waits_for "$stream"
summary
