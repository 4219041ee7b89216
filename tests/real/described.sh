#!/usr/bin/env bash
# Requests that schemathesis makes up from the beacon API's own description, to a consensus node of the pretend network and through the proxy before it:
# the answers are the same. The description is not part of the project: where the folder beside it is missing, this says so and passes, unless
# STEADFAST_REQUIRE_SHARED=1 demands it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

shared=../shared/data/beacon-apis
if [[ ! -d $shared ]]; then
    [[ ${STEADFAST_REQUIRE_SHARED:-} != 1 ]] || fail "$shared is missing"
    note "left out: $shared is missing"
    exit
fi

build_steadfast
limit_to 200

# Hypothesis makes up no strings as long as a blob.
cp -r "$shared" "$work/description"
chmod -R u+w "$work/description"
grep -rlE '\{[0-9]{5,}\}' "$work/description" | xargs sed -i -E 's/\{[0-9]{5,}\}/{64}/'

read -r port_front port_admin port_control < <(free_ports 3)
start dev "$steadfast" dev --block-time 60 --validators 0 \
    --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin" --control "127.0.0.1:$port_control"
within 10 "the pretend network runs" succeeds "http://127.0.0.1:$port_admin/readyz"
node=$(curl -sf "http://127.0.0.1:$port_control/nodes/cl-1" | field http)
ok "what is described is answered alike by the node and through the proxy" \
    timeout 150 "$real/venv/bin/python" "$real/described.py" "$work/description/beacon-node-oapi.yaml" "$node" "http://127.0.0.1:$port_front"
summary
