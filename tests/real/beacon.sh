#!/usr/bin/env bash
# Clients of Lodestar's API package before two consensus nodes of Lodestar's own server of the beacon API, and before the pretend network, which has
# duties for validators: what they ask, post and listen to goes on while the first node is killed, comes back, hangs and wakes. No request fails, and
# no event is missed or told twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
limit_to 180

read -r port_a port_b port_front port_admin port_dev port_dev_admin port_control < <(free_ports 7)
a=http://127.0.0.1:$port_a
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
control=http://127.0.0.1:$port_control/nodes/cl-1
# What each client does.
declare -A things=([lodestar]="call ssz json validators prepare" [lodestar-dev]="call block validators proposers attesters data prepare")
# Eight slots to an epoch: while validators are there, requests go home at an epoch's end.
export LODESTAR_PRESET=minimal
genesis=$(($(date +%s) - 100))

# start_lodestar NAME PORT
start_lodestar() {
    start "lodestar-$1" node "$real/lodestar-node.mjs" "$2" "$genesis" "$1"
    node=$started
    within 60 "consensus node $1 answers" succeeds "http://127.0.0.1:$2/eth/v1/node/syncing"
}

# serves NAME: requests reach that one of Lodestar's nodes, and that of the pretend network which stands for it.
serves() {
    local -A pretend=([a]=cl-1 [b]=cl-2)
    curl -sf --max-time 2 "$front/eth/v1/node/version" | grep -qF "Lodestar/$1" &&
        curl -sf --max-time 2 "http://127.0.0.1:$port_dev/eth/v1/node/version" | grep -qF "/${pretend[$1]}"
}

# pretend FAULT: the first node of the pretend network has that fault from now on, or none when it is up.
pretend() {
    ok "the first pretend node is told: $1" curl -sf --max-time 2 -o /dev/null -X POST "$control/$1"
}

usable() {
    curl -sf --max-time 2 "http://127.0.0.1:$1/status" | python3 -c '
import json, sys
network, = json.load(sys.stdin)["networks"]
sys.exit(not next(node["usable"] for node in network["cl"]["nodes"] if node["name"] == "cl-1"))'
}

# said CLIENT THING: how often.
said() {
    grep -c "^$2 rest " "$work/$1.log" || true
}

# each_said COUNT: everything has been done as often since the last mark.
each_said() {
    local client thing
    for client in "${!things[@]}"; do
        for thing in ${things[$client]}; do
            (($(said "$client" "$thing") >= ${mark[$client $thing]:-0} + $1)) || return 1
        done
    done
}

declare -A mark
set_mark() {
    local client thing
    for client in "${!things[@]}"; do
        for thing in ${things[$client]}; do
            mark[$client $thing]=$(said "$client" "$thing")
        done
    done
}

# events CLIENT KIND: the slots and roots that came.
events() {
    sed -n "s/^event $2 //p" "$work/$1.log"
}

# expected NODE FROM TO: the slots and roots of that node's chain.
expected() {
    python3 -c '
import json, sys, urllib.request
node, first, last = sys.argv[1:]
for slot in range(int(first), int(last) + 1):
    with urllib.request.urlopen(f"{node}/eth/v1/beacon/blocks/{slot}/root", timeout=5) as answer:
        print(slot, json.load(answer)["data"]["root"])' "$@"
}

start_lodestar a "$port_a"
node_a=$node
start_lodestar b "$port_b"
start steadfast "$steadfast" run --cl "$a" --cl-backup "http://127.0.0.1:$port_b" --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
proxy=$started
start dev "$steadfast" dev --block-time 1 --validators 0 \
    --listen "127.0.0.1:$port_dev" --admin-listen "127.0.0.1:$port_dev_admin" --control "127.0.0.1:$port_control"
dev=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
within 10 "the pretend network runs" succeeds "http://127.0.0.1:$port_dev_admin/readyz"
pretend_node=$(curl -sf "$control" | field http)
start_client lodestar calls "$front"
clients=("$started")
start_client lodestar-dev duties "http://127.0.0.1:$port_dev"
clients+=("$started")
within 60 "everything is answered" each_said 2
ok "by the first nodes" serves a

# ---- The first nodes are killed, and come back

kill_hard "$node_a"
pretend down
within 5 "the second nodes serve" serves b
set_mark
within 20 "everything is answered without the first nodes" each_said 2
start_lodestar a "$port_a"
node_a=$node
pretend up
within 30 "requests go to the first nodes again" serves a
set_mark
within 20 "everything is answered" each_said 2

# ---- They hang, and wake

kill -STOP "$node_a"
pretend hang
within 8 "the second nodes serve" serves b
set_mark
within 20 "everything is answered while the first nodes hang" each_said 2
kill -CONT "$node_a"
pretend up
for port in "$port_admin" "$port_dev_admin"; do
    within 10 "the first node is well again" usable "$port"
done
set_mark
within 20 "everything is answered" each_said 2

# ---- What they got

kill -TERM "${clients[@]}"
for client in "${clients[@]}"; do
    ok "a client ends" ends_well "$client"
done
declare -A nodes=([lodestar]=$a [lodestar-dev]=$pretend_node)
for client in "${!things[@]}"; do
    is "nothing failed ($client)" "$(grep -vE "^(${things[$client]// /|}|event|done) " "$work/$client.log" || true)" ""
    heads=$(sed -nE 's/^(call|ssz|json|data|block) rest ([0-9]+) .*/\2/p' "$work/$client.log")
    is "the head never fell ($client)" "$heads" "$(sort -n <<<"$heads")"
    for kind in block head; do
        told=$(events "$client" "$kind")
        ok "there were enough $kind events ($client)" test "$(wc -l <<<"$told")" -ge 10
        first=$(head -n 1 <<<"$told") last=$(tail -n 1 <<<"$told")
        is "every $kind event came once, in order ($client)" "$told" "$(expected "${nodes[$client]}" "${first%% *}" "${last%% *}")"
    done
    note "$(grep -cvE '^(event|done) ' "$work/$client.log") answers, the slowest after $(sed -nE 's/.* ([0-9]+) ms$/\1/p' "$work/$client.log" | sort -n | tail -n 1) ms"
done
# answers CLIENT THING: the different ones.
answers() {
    sed -nE "s/^$2 rest (.*) [0-9]+ ms\$/\1/p" "$work/$1.log" | sort -u
}
is "validators are those that were asked for" "$(answers lodestar validators)" "7 3"
is "pretend validators are those that were asked for" "$(answers lodestar-dev validators)" "1 2 3"
is "every slot of an epoch has its proposer" "$(answers lodestar-dev proposers)" "0 1 2 3 4 5 6 7"
is "duties are those of the validators that were asked for" "$(answers lodestar-dev attesters)" "1 2 3"
row lodestar "beacon API" "state asked for, blocks as SSZ and as JSON, validators and preparations posted" "every request answered; every block has the root that it was asked by"
# A blob's sidecar has 131,928 bytes.
forms=$(LODESTAR_PRESET=minimal node "$real/forms-lodestar.mjs" "http://127.0.0.1:$port_dev" 2>&1) || fail "a pretend answer has not the form of the specifications: $forms"
contains "a pretend block of an even slot has three blobs, as long as blobs" "$forms" "blobs 2 $((3 * 131928))"
contains "and one of an odd slot has none" "$forms" "blobs 3 0"
matches "a pretend state has the form of the specifications" "$forms" '^state [0-9]{7}'
row lodestar "beacon API" "blocks as JSON, validators, duties and attestation data asked for, preparations posted, before the pretend network" "every request answered; validators and duties are those asked for"
row lodestar "beacon API" "\`block\` and \`head\` events" "every event once, in order"
for process in "$proxy" "$dev"; do
    kill -TERM "$process"
    ok "steadfast ends with exit code 0 when told to" ends_well "$process"
done
summary
