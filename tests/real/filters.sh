#!/usr/bin/env bash
# Clients that poll filters over HTTP before two real nodes: what ethers 6, viem, web3.js and web3.py made filters for, and what ethers 5 polls for
# without them, goes on, complete and in order, while the first of two anvils dies, comes back and stands still, while both are gone, and while the
# chain is reorganised. There are two proxies before the same nodes: one knows them by HTTP alone, the other has their WebSockets and spreads calls.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/real/lib.sh
source tests/real/watch.sh

build_steadfast
limit_to 240

read -r port_a port_b port_new_a port_new_b port_front port_admin port_spread port_spread_admin < <(free_ports 8)
a=http://127.0.0.1:$port_a b=http://127.0.0.1:$port_b
front=http://127.0.0.1:$port_front admin=http://127.0.0.1:$port_admin
accounts=(0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266 0x70997970c51812dc3a010c7d01b50e0d17dc79c8)
clients=(ethers-first ethers5-first viem-first web3-first web3js-first ethers-spread viem-spread web3-spread)
declare -A polled=(
    [ethers]="blocks polled for; filters of logs"
    [ethers5]="blocks and logs polled for"
    [viem]="blocks polled for; filters of blocks and of logs"
    [web3js]="filters of blocks and of logs"
    [web3]="filters of blocks, of logs and of a contract's events"
)

# emit COUNT: so many blocks with ticks, and as many without.
emit() {
    local n
    for ((n = 0; n < $1; n++)); do
        block_with_ticks
        sleep 0.2
        block_with_transfer
        sleep 0.2
    done
}

# relive_since STEP NODE: what happened from that step of the history on, without a pause.
relive_since() {
    printf '%s\n' "${history[@]:$1}" | python3 -c '
import http.client, json, sys
node = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1].rsplit(":", 1)[1]), timeout=10)
for step in sys.stdin:
    node.request("POST", "/", step, {"content-type": "application/json"})
    answer = json.load(node.getresponse())
    assert "result" in answer, f"{step}: {answer}"' "$2"
}

# follow CLIENT: its name is that of its script and of the proxy that it calls.
follow() {
    local url=$front
    [[ $1 != *-spread ]] || url=http://127.0.0.1:$port_spread
    start_client "$1" filters "$url" "$ticker"
}

# caught_up HEIGHT: every client has said a log of that block.
caught_up() {
    local client
    for client in "${clients[@]}"; do
        told "$client" "log $1 " || return 1
    done
}

# has_height HEIGHT: both nodes have.
has_height() {
    local node
    for node in "$a" "$b"; do
        [[ $(post "$node" "$(request eth_blockNumber)" 2>/dev/null) == *"$(printf '"0x%x"' "$1")"* ]] || return 1
    done
}

pending_of() {
    grep -c '^pending ' "$work/$1.log" || true
}

has_more_pending() {
    (($(pending_of "$1") > $2))
}

hashes() {
    cut -d' ' -f3 <<<"$1"
}

# hashes_of CLIENT FIRST: what it said of hashes, from that one on.
hashes_of() {
    sed -n 's/^hash //p' "$work/$1.log" | sed -n "/$2/,\$p"
}

# since FROM WORD CLIENT: what it said that begins with the word, of blocks from that height on. What a reorganisation takes out together has no
# order that clients rely on, so it is sorted.
since() {
    awk -v word="$2" -v from="$1" '$1 == word && $2 >= from' "$work/$3.log" | python3 -c '
import itertools, sys
for gone, lines in itertools.groupby(sys.stdin, lambda line: line.endswith("removed\n")):
    sys.stdout.writelines(sorted(lines) if gone else lines)'
}

# same NAME LINES EXPECTED: what differs is shown.
same() {
    [[ $2 == "$3" ]] || fail "$1: $(diff <(printf '%s\n' "$3") <(printf '%s\n' "$2") | head -n 20)"
    pass "$1"
}

# ---- One chain on two nodes, with a contract that ticks

tag_a=0x000000000000000000000000000000000000aaaa
tag_b=0x000000000000000000000000000000000000bbbb
start_anvil a "$port_a" "$tag_a"
anvil_a=$started
start_anvil b "$port_b" "$tag_b"
anvil_b=$started
mining="$a $b"
deploy_ticker
block_with_ticks
is "both nodes have the same last block" "$(hash_of_head "$a")" "$(hash_of_head "$b")"

# ---- Clients make filters

cat >"$work/spread.toml" <<END
listen = "127.0.0.1:$port_spread"
admin.listen = "127.0.0.1:$port_spread_admin"
calls.policy = "spread"
[[el.primary]]
name = "el-1"
http = "$a"
ws = "ws://127.0.0.1:$port_a"
[[el.primary]]
name = "el-2"
http = "$b"
ws = "ws://127.0.0.1:$port_b"
END
start spread "$steadfast" run --config "$work/spread.toml"
spread=$started
start steadfast "$steadfast" run --el "$a" --el-backup "$b" --listen "127.0.0.1:$port_front" --admin-listen "127.0.0.1:$port_admin"
first=$started
within 10 "steadfast gets ready" succeeds "$admin/readyz"
within 10 "so does the one that spreads calls" succeeds "http://127.0.0.1:$port_spread_admin/readyz"
for client in "${clients[@]}"; do
    follow "$client"
done
# A filter tells what comes after it was made, and nobody says when that was: so there are blocks until every client has heard of one.
until_all_listen=$(($(now) + 20000))
until caught_up "$height"; do
    (($(now) < until_all_listen)) || break
    block_with_ticks
    sleep 0.5
done
within 1 "every client hears of logs" caught_up "$height"
from=$((height + 1))
emit 3

# ---- The first node dies, and comes back

kill_hard "$anvil_a"
mining=$b
emit 4
within 3 "the second node is active" active_is el-backup-1
start_anvil a "$port_a" "$tag_a"
anvil_a=$started
relive_since 0 "$a"
mining="$a $b"
emit 2
within 5 "calls go to the first node again" goes_home
emit 2

# ---- It stands still for ten seconds

kill -STOP "$anvil_a"
stopped=$(now)
missed=${#history[@]}
mining=$b
while (($(now) < stopped + 10000)); do
    emit 1
done
kill -CONT "$anvil_a"
relive_since "$missed" "$a"
mining="$a $b"
emit 2
within 8 "calls go to the first node again" goes_home

# ---- Both are gone for four seconds

kill_hard "$anvil_a"
kill_hard "$anvil_b"
gone=$(now)
# They come back with all of their chain, as nodes do that kept it on their disks.
start_anvil a "$port_new_a" "$tag_a"
start_anvil b "$port_new_b" "$tag_b"
relive_since 0 "http://127.0.0.1:$port_new_a"
relive_since 0 "http://127.0.0.1:$port_new_b"
while (($(now) < gone + 4000)); do
    sleep 0.05
done
start gate-a node "$real/gate.mjs" "$port_a" "$port_new_a"
gates=$started
start gate-b node "$real/gate.mjs" "$port_b" "$port_new_b"
gates="$gates $started"
within 5 "both nodes are there again" has_height "$height"
note "there was no node for $(($(now) - gone)) ms"
emit 2

# ---- The chain is reorganised: three blocks go, and four come

fork=${#history[@]} fork_height=$height fork_sent=$sent
snapshot_a=$(result "$a" evm_snapshot) snapshot_b=$(result "$b" evm_snapshot)
for _ in 1 2 3; do
    block_with_ticks
    sleep 0.2
done
left=$height
within 8 "every client hears of what will go" caught_up "$left"
sleep 0.5
left_logs=$(expected_logs "$a" $((fork_height + 1)) "$left")
left_blocks=$(expected_blocks "$a" $((fork_height + 1)) "$left")
history=("${history[@]:0:fork}") height=$fork_height sent=$fork_sent
mining=
for _ in 1 2 3 4; do
    transaction '"to":"'"${accounts[1]}"'"'
    block_with_ticks
done
# An anvil goes back before it goes on, which real nodes do not, so nobody may look meanwhile.
kill -STOP $gates
result "http://127.0.0.1:$port_new_a" evm_revert "$snapshot_a" >/dev/null
result "http://127.0.0.1:$port_new_b" evm_revert "$snapshot_b" >/dev/null
relive_since "$fork" "http://127.0.0.1:$port_new_a"
relive_since "$fork" "http://127.0.0.1:$port_new_b"
kill -CONT $gates
mining="$a $b"
is "both nodes have the other chain" "$(hash_of_head "$a")" "$(hash_of_head "$b")"
sleep 1

declare -A pending
for client in ethers-first ethers5-first ethers-spread; do
    pending[$client]=$(pending_of "$client")
done
emit 3
block_with_ticks

# ---- What they heard

within 8 "every client hears of the last block" caught_up "$height"
for client in "${!pending[@]}"; do
    within 5 "$client still hears of pending transactions" has_more_pending "$client" "${pending[$client]}"
done
sleep 0.5
logs=$(expected_logs "$b" "$from" "$fork_height") new_logs=$(expected_logs "$b" $((fork_height + 1)) "$height")
told_logs=$logs$'\n'$left_logs$'\n'$(sort <<<"$left_logs" | sed 's/$/ removed/')$'\n'$new_logs
blocks=$(expected_blocks "$b" "$from" "$fork_height")$'\n'$left_blocks
for client in "${clients[@]}"; do
    note "$client heard of $(logs_of "$client" | awk -v from="$from" '$2 >= from' | sort -u | wc -l) logs, $(wc -l <<<"$told_logs") are told to filters; errors: $(rest_of "$client" | grep -c -E '^(error|@TODO) ' || true)"
done
ok "there was enough to tell" test "$(wc -l <<<"$told_logs")" -ge 60
told_blocks=$blocks$'\n'$(expected_blocks "$b" $((left + 1)) "$height")
told_hashes=$(hashes "$blocks"$'\n'"$(expected_blocks "$b" $((fork_height + 1)) "$height")")
for client in viem-first web3-first web3js-first viem-spread web3-spread; do
    same "$client got every log once, in order, and was told which went" "$(since "$from" log "$client")" "$told_logs"
done
for client in ethers-first ethers-spread; do
    # It is told too, but tells no listener.
    same "$client got every log once, in order" "$(since "$from" log "$client")" "$(grep -v ' removed$' <<<"$told_logs")"
done
same "ethers5-first got every log of a height once, in order" "$(since "$from" log ethers5-first)" \
    "$logs"$'\n'"$left_logs"$'\n'"$(expected_logs "$b" $((left + 1)) "$height")"
for client in web3-first web3-spread; do
    # They do not say which events went.
    same "$client got every event of a contract's filter once, and once more when it went" \
        "$(since "$from" event "$client" | sort)" "$(sed 's/ removed$//; s/^log/event/' <<<"$told_logs" | sort)"
done
for client in viem-first web3-first web3js-first viem-spread web3-spread; do
    same "$client got every block's hash once, in order" "$(hashes_of "$client" "${told_hashes%%$'\n'*}")" "$told_hashes"
done
for client in ethers-first ethers5-first viem-first ethers-spread viem-spread; do
    same "$client got a block for every height, in order, and could fetch it" "$(blocks_of "$client" "$from")" "$told_blocks"
done
for client in "${clients[@]}"; do
    same "$client got nothing else" "$(rest_of "$client" | grep -vE '^(hash|event|pending) ' || true)" ""
done
for library in ethers ethers5; do
    row "$library" HTTP "filters of pending transactions" "hear of new ones after kill, return and hang, both nodes gone, and a reorganisation"
done
for library in ethers ethers5 viem web3js web3; do
    row "$library" HTTP "${polled[$library]}" "complete and in order over kill, return and hang, both nodes gone, and a reorganisation"
done
kill -TERM "$first" "$spread"
ok "steadfast ends with exit code 0 when told to" ends_well "$first"
ok "so does the one that spreads calls" ends_well "$spread"
summary
