#!/usr/bin/env bash
# The outbox before two real nodes: the node that took a transaction dies before it mines, and the other one mines the transaction; then the
# proxy dies behind an acknowledgement. The client's subscription tells all states in order, each once.
# With `send_to = "first"` only the node in use has a transaction, so that its death takes the transaction along.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
limit_to 120

read -r port_a port_b port_front port_admin < <(free_ports 4)
a=http://127.0.0.1:$port_a b=http://127.0.0.1:$port_b
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
accounts=(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266 0x70997970c51812dc3a010c7d01b50e0d17dc79c8)

# ---- One chain on two nodes, with a final block two blocks behind the newest

tag_a=0x000000000000000000000000000000000000aaaa
tag_b=0x000000000000000000000000000000000000bbbb
start_anvil a "$port_a" "$tag_a" --slots-in-an-epoch 1
anvil_a=$started
start_anvil b "$port_b" "$tag_b" --slots-in-an-epoch 1
mining="$a $b"
for _ in {1..8}; do
    block_with_transfer
done
is "both nodes have the same last block" "$(hash_of_head "$a")" "$(hash_of_head "$b")"

cat >"$work/steadfast.toml" <<TOML
[outbox]
dir = "$work/outbox"
send_to = "first"
resend_blocks = 1
confirmations = 2

[[el.primary]]
name = "a"
http = "$a"

[[el.backup]]
name = "b"
http = "$b"
TOML

start_proxy() {
    start steadfast "$steadfast" run --config "$work/steadfast.toml" \
        --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
    proxy=$started
    within 10 "steadfast gets ready" succeeds "$admin/readyz"
}

# signed NONCE: a transfer of the second account, signed by a node.
signed() {
    result "$b" eth_signTransaction "$(printf \
        '{"from":"%s","to":"%s","value":"0x2a","nonce":"0x%x","gas":"0x5208","maxFeePerGas":"0x77359400","maxPriorityFeePerGas":"0x3b9aca00"}' \
        "${accounts[1]}" "$tag_a" "$1")"
}

# knows NODE HASH: the node has the transaction, waiting or in a block.
knows() {
    [[ $(result "$1" eth_getTransactionByHash "$2") != null ]]
}

# told NAME STATES: the states that the subscriber NAME was told, in their order.
told() {
    [[ $(awk '{ print $2 }' "$work/$1.log" | paste -sd' ') == "$2" ]]
}

state_is() {
    [[ $(result "$front" steadfast_getTransactionStatus "$1" | field state) == "$2" ]]
}

start_proxy
within 5 "the first node is active" active_is a

# ---- The node that took it dies before it mines

raw=$(signed 0)
hash=$(result "$front" eth_sendRawTransaction "$raw")
matches "a raw transaction is taken, with its hash" "$hash" '^"0x[0-9a-f]{64}"$'
start subscriber node "$real/outbox.mjs" "ws://127.0.0.1:$port_front" "${hash//\"/}"
within 5 "the client is told that a node took it" told subscriber "accepted sent"
ok "the first node has it" knows "$a" "$hash"
is "the second node has it not" "$(result "$b" eth_getTransactionByHash "$hash")" null
kill_hard "$anvil_a"
mining=$b
within 5 "the second node is active" active_is b
contains "what no node knows is shown as pending" "$(result "$front" eth_getTransactionByHash "$hash")" '"blockHash":null'

# Blocks come, as on a chain that goes on. One of them lets the proxy ask for the transaction, and send it.
for _ in {1..10}; do
    block
    if knows "$b" "$hash"; then
        break
    fi
    sleep 1
done
ok "the second node has been sent it" knows "$b" "$hash"
block
receipt=$(result "$front" eth_getTransactionReceipt "$hash")
is "the second node has mined it" "$(field status <<<"$receipt")" 0x1
block
within 10 "the client is told that its block is confirmed" grep -q ' confirmed ' "$work/subscriber.log"
for _ in {1..3}; do
    block
    sleep 1.1
done
within 10 "its block is final" state_is "$hash" final
states=$(awk '{ print $2 }' "$work/subscriber.log" | grep -vx seen | paste -sd' ')
is "the client was told all states in order, each once" "$states" "accepted sent mined confirmed final"
note "$(paste -sd';' "$work/subscriber.log")"

# ---- U60: the proxy dies behind its acknowledgement

hash=$(result "$front" eth_sendRawTransaction "$(signed 1)")
kill_hard "$proxy"
# The node forgets it as well.
result "$b" anvil_dropTransaction "$hash" >/dev/null
start survivor node "$real/outbox.mjs" "ws://127.0.0.1:$port_front" "${hash//\"/}"
start_proxy
for _ in {1..10}; do
    block
    if [[ $(result "$b" eth_getTransactionReceipt "$hash") != null ]]; then
        break
    fi
    sleep 1
done
is "after a kill it is mined" "$(result "$b" eth_getTransactionReceipt "$hash" | field status)" 0x1
is "and mined once" "$(result "$b" eth_getTransactionCount "\"${accounts[1]}\"" '"latest"')" '"0x2"'
for _ in {1..4}; do
    block
    sleep 1.1
done
within 10 "its block is final" state_is "$hash" final
states=$(awk '{ print $2 }' "$work/survivor.log" | grep -vx seen | paste -sd' ')
is "the client was told all states in order over the restart" "$states" "accepted sent mined confirmed final"

# ---- The end

kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
contains "the log counts what stays" "$(cat "$work/steadfast.log")" "the outbox is closed"
summary
