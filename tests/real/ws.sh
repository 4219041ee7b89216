#!/usr/bin/env bash
# WebSocket clients before real nodes: what ethers and viem subscribed to goes on, complete and in order, while the first of two anvils dies
# and comes back; and before an ethereumjs, whose own WebSocket knows no subscriptions, they hear of new blocks all the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh
source tests/real/watch.sh

build_steadfast
limit_to 200

read -r port_a port_b port_front port_admin port_js port_js_ws port_js_peers port_js_front port_js_admin < <(free_ports 9)
a=http://127.0.0.1:$port_a b=http://127.0.0.1:$port_b
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
accounts=(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266 0x70997970c51812dc3a010c7d01b50e0d17dc79c8)
js=http://127.0.0.1:$port_js

# It takes ten seconds for a block, so it begins first and is looked at last.
start_ethereumjs "$port_js" "$port_js_ws" "$port_js_peers"
ethereumjs=$started

# ---- One chain on two nodes, with a contract that ticks

tag_a=0x000000000000000000000000000000000000aaaa
tag_b=0x000000000000000000000000000000000000bbbb
start_anvil a "$port_a" "$tag_a"
anvil_a=$started
start_anvil b "$port_b" "$tag_b"
mining="$a $b"
deploy_ticker
block_with_ticks
is "both nodes have the same last block" "$(hash_of_head "$a")" "$(hash_of_head "$b")"
is "a block with ticks has two of them" "$(expected_logs "$b" "$height" "$height" | wc -l)" 2

# ---- Clients subscribe, and the first node serves

start steadfast "$steadfast" run --el "$a,ws://127.0.0.1:$port_a" --el-backup "$b,ws://127.0.0.1:$port_b" \
    --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
proxy=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
start_client ethers watch "ws://127.0.0.1:$port_front" "$ticker"
start_client viem watch "ws://127.0.0.1:$port_front/ws" "$ticker"
within 10 "two clients are told new heads" counts_subscriptions "$admin" newHeads 2
within 5 "and logs" counts_subscriptions "$admin" logs 2
from=$((height + 1))
for _ in 1 2 3; do
    block_with_ticks
    sleep 0.2
    block_with_transfer
done
within 3 "ethers hears of the blocks" heard ethers "$height"
within 3 "viem hears of the blocks" heard viem "$height"
is "the first node serves" "$(status active)" el-1

# ---- The first node dies with a block that only it has told

mining=$a
block_with_ticks
kill_hard "$anvil_a"
killed=$(now)
# Whoever asks for this block now may be told that it is not there: nobody has it until the second node does. It must be told of all the same.
orphan=$height
mining=$b
relive_last_block "$b"
for _ in 1 2 3; do
    block_with_ticks
    block
    sleep 0.3
done
within 5 "ethers hears of the blocks since" heard ethers "$height"
within 5 "viem hears of the blocks since" heard viem "$height"
note "they had all $(($(now) - killed)) ms after the death, the last block $((height - from + 1)) of them"
within 3 "the second node is active" active_is el-backup-1
is "no block was missed, told twice or out of turn by the switch (ethers)" "$(blocks_of ethers)" "$(expected_blocks "$b" "$from" "$height")"

# ---- And comes back, with an old chain at first

start_anvil a "$port_a" "$tag_a"
relive "$a"
well=$(now)
block_with_ticks
mining="$a $b"
relive_last_block "$a"
until_ms $((well + 4000)) "traffic is back on the first node" goes_home
block_with_ticks
block_with_transfer
# From now on the second node says nothing that the first does not: what comes can only have come from there.
mining=$a
for _ in 1 2; do
    block_with_ticks
    sleep 0.2
done

for client in ethers viem; do
    within 3 "$client hears of the last block" heard "$client" "$height"
    within 3 "$client gets its last log" has_logs "$client" "$(expected_logs "$a" "$from" "$height" | wc -l)"
done
blocks=$(expected_blocks "$a" "$from" "$height") logs=$(expected_logs "$a" "$from" "$height")
ok "there was enough to tell" test "$(wc -l <<<"$blocks")" -ge 15 -a "$(wc -l <<<"$logs")" -ge 18
for client in ethers viem; do
    is "$client got every block once, in order, and could fetch it" "$(blocks_of "$client")" "$blocks"
    is "$client got every log once, in order" "$(logs_of "$client")" "$logs"
    is "$client got nothing else, and no connection was closed" "$(rest_of "$client" | sed "/^late $orphan$/d")" ""
done
kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
for client in ethers viem; do
    within 2 "$client was told why" told "$client" 'closed 1012 '
    row "$client" WebSocket "connected to the end of the proxy" "closed with 1012"
done

# ---- A node whose WebSocket has no subscriptions

within 30 "ethereumjs answers" answers "$js"
matches "its WebSocket knows no subscriptions" \
    "$(node "$real/ask.mjs" "ws://127.0.0.1:$port_js_ws" "$(request eth_subscribe '"newHeads"')")" '"code":-32601'
front=http://127.0.0.1:$port_js_front admin=http://127.0.0.1:$port_js_admin
start steadfast "$steadfast" run --el "$js,ws://127.0.0.1:$port_js_ws" --listen "127.0.0.1:$port_js_front" --admin-listen "127.0.0.1:$port_js_admin"
proxy=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
start_client ethers-js watch "ws://127.0.0.1:$port_js_front"
start_client viem-js watch "ws://127.0.0.1:$port_js_front"
within 10 "two clients are told new heads" counts_subscriptions "$admin" newHeads 2
from=$(($(head_of "$js") + 1))
# It mines every ten seconds.
within 25 "there are two new blocks" has_reached "$js" $((from + 1))
to=$(head_of "$js")
for client in ethers-js viem-js; do
    within 2 "$client hears of the last" heard "$client" "$to"
    is "$client got every block once, in order, and could fetch it" "$(blocks_of "$client" "$from")" "$(expected_blocks "$js" "$from" "$to")"
    is "$client got nothing else" "$(rest_of "$client")" ""
    row "${client%-js}" WebSocket "\`newHeads\` subscribed to, before an ethereumjs, whose WebSocket has no subscriptions" "every block once, in order"
done
kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
summary
