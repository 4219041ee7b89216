#!/usr/bin/env bash
# Steadfast before two real nodes: calls come through unchanged, the death of the first costs no call, and traffic goes home.
# The two anvils hold one chain, because they are given the same transactions and timestamps, block by block.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh

build_steadfast
limit_to 120

read -r port_a port_b port_front port_admin < <(free_ports 4)
a=http://127.0.0.1:$port_a b=http://127.0.0.1:$port_b
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
accounts=(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266 0x70997970c51812dc3a010c7d01b50e0d17dc79c8)

# ---- One chain on two nodes

tag_a=0x000000000000000000000000000000000000aaaa
tag_b=0x000000000000000000000000000000000000bbbb
start_anvil a "$port_a" "$tag_a"
anvil_a=$started
start_anvil b "$port_b" "$tag_b"
mining="$a $b"
for _ in {1..8}; do
    block_with_transfer
done
is "both nodes have the same last block" "$(hash_of_head "$a")" "$(hash_of_head "$b")"
is "the chain has its eight blocks" "$(result "$a" eth_blockNumber)" '"0x8"'

# ---- All is well: the first node serves

start steadfast "$steadfast" run --el "$a" --el-backup "$b" \
    --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
proxy=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
within 5 "the first node is active" active_is el-1
is "it is no failover" "$(status failover)" false
is "the status shows the chain's head" "$(status head)" 8
is "calls go to the first node" "$(tag)" "$tag_a"

for id in '"a string"' '"with \"quotes\" and \u00e9"' 7 -3 0 null; do
    is "the id $id comes back byte for byte" \
        "$(post "$front" '{"jsonrpc":"2.0","id":'"$id"',"method":"eth_chainId","params":[]}')" \
        '{"jsonrpc":"2.0","id":'"$id"',"result":"0x539"}'
done
# A node would refuse some of these, or write them in its own way: it never sees them.
for id in 1.50 2e3 -0 123456789012345678901234567890; do
    is "the id $id comes back byte for byte" \
        "$(post "$front" '{"jsonrpc":"2.0","id":'"$id"',"method":"eth_gasPrice","params":[]}' | head -c $((22 + ${#id})))" \
        '{"jsonrpc":"2.0","id":'"$id"
done

for call in '"eth_getBlockByNumber","params":["0x8",true]' '"eth_getLogs","params":[{}]' '"eth_nonsense","params":[]' \
    '"eth_getBalance","params":["'"${accounts[0]}"'","latest"]' '"eth_getBalance","params":["no address"]'; do
    body='{"jsonrpc":"2.0","id":1,"method":'$call'}'
    is "the answer to $call is the node's own" "$(post "$front" "$body")" "$(post "$a" "$body")"
done

is "a batch is answered in its order" \
    "$(post "$front" '[{"jsonrpc":"2.0","id":"z","method":"eth_chainId"},
        {"jsonrpc":"2.0","id":3,"method":"personal_sign","params":["0x61","'"${accounts[0]}"'"]},
        {"jsonrpc":"2.0","method":"eth_chainId"},
        17,
        {"jsonrpc":"2.0","id":-1,"method":"eth_blockNumber"},
        {"jsonrpc":"2.0","id":3,"method":"net_version"}]' | outline)" \
    '"z" "0x539"; 3 -32601; null -32600; -1 "0x8"; 3 "1337"'

sign='{"jsonrpc":"2.0","id":5,"method":"personal_sign","params":["0x61","'${accounts[0]}'"]}'
contains "the node would sign for anyone" "$(post "$a" "$sign")" '"result":"0x'
is "through steadfast it does not" "$(post "$front" "$sign" | outline)" '5 -32601'

# ---- A raw transaction

raw=$(result "$a" eth_signTransaction '{"from":"'"${accounts[1]}"'","to":"'"$tag_a"'","value":"0x2a","nonce":"0x0","gas":"0x5208","maxFeePerGas":"0x77359400","maxPriorityFeePerGas":"0x3b9aca00"}')
hash=$(result "$front" eth_sendRawTransaction "$raw")
matches "a raw transaction is taken, with its hash" "$hash" '^"0x[0-9a-f]{64}"$'
is "the first node has it" "$(result "$a" eth_getTransactionByHash "$hash" | field hash)" "${hash//\"/}"
# The second must have it too to mine the same block; real nodes would gossip.
[[ $(result "$b" eth_getTransactionByHash "$hash") != null ]] || result "$b" eth_sendRawTransaction "$raw" >/dev/null
remember eth_sendRawTransaction "$raw"
block
receipt=$(result "$front" eth_getTransactionReceipt "$hash")
is "its receipt says that it succeeded" "$(field status <<<"$receipt")" 0x1
is "the first node has that receipt" "$(result "$a" eth_getTransactionReceipt "$hash")" "$receipt"
is "so has the second" "$(result "$b" eth_getTransactionReceipt "$hash")" "$receipt"
within 3 "the status follows the chain" status_is head 9

# ---- The first node dies in the middle of it

start_calling
sleep 1
kill_hard "$anvil_a"
killed=$(now)
mining=$b
within 3 "the second node is active" active_is el-backup-1
note "it took over within $(($(now) - killed)) ms"
is "it is a failover" "$(status failover)" true
is "calls go to the second node" "$(tag)" "$tag_b"
# Enough blocks that a node which lacks the raw transaction counts as behind: a node that is well again is sent what it missed.
for _ in {1..6}; do
    block_with_transfer
    sleep 0.3
done
within 3 "clients see the chain grow" shows_head 0xf
is "a receipt from before is still there" "$(result "$front" eth_getTransactionReceipt "$hash")" "$receipt"
within 5 "steadfast stays ready" succeeds "$admin/readyz"

# ---- And comes back, empty at first

start_anvil a "$port_a" "$tag_a"
sleep 1.5
is "a node that lacks the chain gets no traffic" "$(tag) $(status active)" "$tag_b el-backup-1"
relive "$a"
well=$(now)
is "the first node has the whole chain again" "$(hash_of_head "$a")" "$(hash_of_head "$b")"
until_ms $((well + 3000)) "traffic is back on the first node within 3 s" goes_home
note "it was back after $(($(now) - well)) ms"
is "it is no failover any more" "$(status failover)" false
mining="$a $b"
block_with_transfer
within 3 "clients see the next block" shows_head 0x10
stop_calling
made=$(calls_made) failed=$(calls_failed)
note "$made calls were made meanwhile"
is "of all calls since before the death, none failed" "$failed" 0
ok "they were enough to tell" test "$made" -ge 100
is "no client saw the chain go backwards" "$(steps_back)" 0

# ---- The end

kill -TERM "$proxy"
ok "steadfast ends with exit code 0 when told to" ends_well "$proxy"
summary
