#!/usr/bin/env bash
# Client libraries before two real nodes: what they call, call in batches, pay and subscribe to, over HTTP and over WebSocket, goes on while the
# first of two anvils is killed, comes back, hangs and wakes. No call fails, no payment is lost or made twice, and no block or log is missed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh
source tests/real/watch.sh

build_steadfast
build_alloy
limit_to 180

read -r port_a port_b port_gate_a port_gate_b port_chain port_front port_admin < <(free_ports 7)
a=http://127.0.0.1:$port_a b=http://127.0.0.1:$port_b
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
accounts=(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266 0x70997970c51812dc3a010c7d01b50e0d17dc79c8)
sink=0x0000000000000000000000000000000000005a1e
libraries=(ethers ethers5 viem web3js web3 alloy)
several="calls; several at once; transactions sent and awaited"
batches="calls; batches; transactions sent and awaited"
declare -A does=([ethers ws]=$several [ethers5 ws]=$several [viem ws]=$several [alloy ws]=$several)

# An account for each library and door, beside the first, which ticks.
payers=$((2 * ${#libraries[@]}))
mapfile -t keys < <(node "$real/keys.mjs" 1 "$payers")

# node_a, node_b: started anew, with nothing but the first block, behind a gate.
node_a() {
    start_anvil a "$port_a" "$tag_a" --accounts $((1 + payers))
    anvil_a=$started
    start gate-a node "$real/gate.mjs" "$port_gate_a" "$port_a"
    gate_a=$started
}

node_b() {
    start_anvil b "$port_b" "$tag_b" --accounts $((1 + payers))
    anvil_b=$started
    start gate-b node "$real/gate.mjs" "$port_gate_b" "$port_b"
    gate_b=$started
}

# goes_on_with NODE…: blocks are mined on these, once they all have the chain. Without any, no block is mined and nobody gets through.
goes_on_with() {
    local node gate list=
    for node in "$@"; do
        gate=gate_$node
        list+=${list:+,}'{"url":"'${!node}'","gate":'${!gate}'}'
    done
    is "the chain goes on with: $*" "$(post "http://127.0.0.1:$port_chain" "[$list]")" '{"result":true}'
}

declare -A names=([http]=HTTP [ws]=WebSocket)

# said LIBRARY WHAT DOOR: how often.
said() {
    grep -c "^$2 $3 " "$work/$1-calls.log" || true
}

# each_said COUNT: every library has said each thing as often, through both doors, since the last mark.
each_said() {
    local library door what
    for library in "${libraries[@]}"; do
        for door in http ws; do
            for what in call batch paid; do
                (($(said "$library" "$what" "$door") >= ${mark[$library $what $door]:-0} + $1)) || {
                    missing="$library has not said '$what $door' $1 times; its last words: $(tail -n 3 "$work/$library-calls.log")"
                    return 1
                }
            done
        done
    done
    (($(said ethereumjs run http) >= ${mark[ethereumjs run http]:-0} + $1))
}

declare -A mark
set_mark() {
    local library door what
    for library in "${libraries[@]}"; do
        for door in http ws; do
            for what in call batch paid; do
                mark[$library $what $door]=$(said "$library" "$what" "$door")
            done
        done
    done
    mark[ethereumjs run http]=$(said ethereumjs run http)
}

# all_heard HEIGHT LOGS: every library has heard of that block, and of so many logs.
all_heard() {
    local library
    for library in "${libraries[@]}"; do
        heard "$library" "$1" && has_logs "$library" "$2" || return 1
    done
}

# ---- One chain on two nodes

tag_a=0x000000000000000000000000000000000000aaaa
tag_b=0x000000000000000000000000000000000000bbbb
node_a
node_b
mining="$a $b"
deploy_ticker
start chain node "$real/chain.mjs" "$port_chain" "${accounts[0]}" "$ticker"
within 5 "somebody mines" listens "$port_chain"
goes_on_with a b
start steadfast "$steadfast" run --el "http://127.0.0.1:$port_gate_a,ws://127.0.0.1:$port_gate_a" \
    --el-backup "http://127.0.0.1:$port_gate_b,ws://127.0.0.1:$port_gate_b" \
    --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
proxy=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"

# ---- Clients call, pay and listen

ws=ws://127.0.0.1:$port_front
for library in "${libraries[@]}"; do
    start_client "$library" watch "$ws" "$ticker"
    start_client "$library-calls" calls "$front" "$ws" "$sink" "${keys[@]:0:2}"
    callers+=("$started")
    keys=("${keys[@]:2}")
done
start_client ethereumjs-calls calls "$front" "$ticker"
callers+=("$started")
# alloy awaits its payments by heads, too: a subscription more.
within 60 "every library is told new heads" counts_subscriptions "$admin" newHeads $((${#libraries[@]} + 1))
within 60 "every library calls and pays through both doors" each_said 1
from=$(($(head_of "$front") + 1))
within 10 "and hears of blocks" all_heard "$from" 2
is "the first node serves" "$(status active)" el-1

# ---- The first node is killed, and comes back

goes_on_with
kill_hard "$anvil_a"
kill_hard "$gate_a"
goes_on_with b
within 5 "the second node is active" active_is el-backup-1
set_mark
within 30 "every library calls and pays without the first node" each_said 2
node_a
goes_on_with b a
within 8 "calls go to the first node again" goes_home
set_mark
within 30 "every library calls and pays at the first node again" each_said 1

# ---- It hangs, and wakes

goes_on_with
# Its gate stays closed: what the node may still have answered to a transaction that the other does not have reaches no client.
kill -STOP "$anvil_a"
goes_on_with b
within 8 "the second node is active" active_is el-backup-1
set_mark
within 30 "every library calls and pays while the first node hangs" each_said 2
kill -CONT "$anvil_a"
goes_on_with b a
within 10 "calls go to the first node again" goes_home
set_mark
within 30 "every library calls and pays at the first node again" each_said 1

# ---- What they got

kill -TERM "${callers[@]}"
for caller in "${callers[@]}"; do
    ok "a client ends" ends_well "$caller"
done
goes_on_with
kill -CONT "$gate_a" "$gate_b"
height=$(head_of "$a")
is "both nodes have the same last block" "$(hash_of_head "$a")" "$(hash_of_head "$b")"
blocks=$(expected_blocks "$a" "$from" "$height") logs=$(expected_logs "$a" "$from" "$height")
within 5 "every library hears of the last block" all_heard "$height" "$(wc -l <<<"$logs")"
ok "there was enough to tell" test "$(wc -l <<<"$blocks")" -ge 25

for library in "${libraries[@]}"; do
    is "$library got every block once, in order, and could fetch it" "$(blocks_of "$library" "$from")" "$blocks"
    is "$library got every log once, in order" "$(logs_of "$library" | awk -v from="$from" '$2 >= from')" "$logs"
    is "$library got nothing else, and no connection was closed" "$(rest_of "$library")" ""
    row "$library" WebSocket "\`newHeads\` and \`logs\` subscribed to" "every block and log once, in order; each block could be fetched when told of"
    for door in http ws; do
        "$real/venv/bin/python" "$real/judge.py" "$a" "$sink" "$door" <"$work/$library-calls.log" || fail "what $library got through $door"
        pass "$library was answered through $door, and each of its payments is in the chain once"
        row "$library" "${names[$door]}" "${does[$library $door]:-$batches}" "every call answered, heights never fell, every transaction in the chain once"
    done
done
blocks=$(sed -nE 's/^block http ([0-9]+ 0x[0-9a-f]+) .*/block \1/p' "$work/ethereumjs-calls.log" | uniq)
is "ethereumjs fetched blocks whose hashes it found right" "$blocks" "$(while read -r _ number _; do expected_blocks "$a" "$number" "$number"; done <<<"$blocks")"
is "and ran the contract, which logged what it should" \
    "$(sed -nE 's/^run http [0-9]+ (.*) [0-9]+ ms$/\1/p' "$work/ethereumjs-calls.log" | sort -u)" "$ticker:$ticked $ticker:$ticked $ticker:0x$(printf '%064d' 0)"
is "and had no error" "$(grep -vE '^(block|run|done) ' "$work/ethereumjs-calls.log" || true)" ""
row ethereumjs HTTP "the last block fetched, and a contract run in its own EVM on that block's state" "every call answered; every block has the hash that it works out"
kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
summary
