#!/usr/bin/env bash
# Autobahn's cases for WebSocket servers (kosoku runs its own files of cases) against the WebSocket door. They expect their messages back, so each
# message is made the id of a call on its way to the proxy, frame by frame (echo.py), and a real node answers the call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
limit_to 200

read -r port_node port_front port_admin port_echo < <(free_ports 4)
admin=http://127.0.0.1:$port_admin
# The largest messages of the cases have 16 MiB, and twice as many digits.
cat >"$work/steadfast.toml" <<END_OF_SETTINGS
listen = "127.0.0.1:$port_front"
admin.listen = "127.0.0.1:$port_admin"
ws.max_message = "48MiB"
ws.max_outbound = "48MiB"
[[el.primary]]
name = "el-1"
http = "http://127.0.0.1:$port_node"
END_OF_SETTINGS
start_anvil node "$port_node" 0x000000000000000000000000000000000000aaaa
start steadfast "$steadfast" run --config "$work/steadfast.toml"
proxy=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
start echo "$real/venv/bin/python" "$real/echo.py" "$port_echo" "$port_front"
within 5 "so does what makes calls of messages" listens "$port_echo"
timeout 150 "$real/venv/bin/python" "$real/autobahn.py" "ws://127.0.0.1:$port_echo" || fail "one of Autobahn's cases"
is "nothing went wrong on the way, and only the message of case 6.7.1 was not given back by steadfast" \
    "$(sort -u "$work/echo.log")" "given back here: b'\x00'"
kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
summary
