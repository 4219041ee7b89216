# For ws.sh and filters.sh: a contract that logs, clients that subscribe, and what they should have heard.

# It logs `Ticked(uint256)` with the block's number twice, and once something else that nobody asked for.
ticked=0xfb779b607f72003343c20e8a3b2b874a312f065e2d88c2747a5bdce1c9ab1bbf
ticker=0x5fbdb2315678afecb367f032d93f642f64180aa3

deploy_ticker() {
    local tick=7f${ticked#0x}60206000a1
    local code=43600052$tick${tick}600060206000a100
    transaction '"data":"0x60'"$(printf '%02x' $((${#code} / 2)))"'80600b6000396000f3'"$code"'"'
    block
    is "the contract is where its creator's first transaction puts it" "$(result "$b" eth_getCode "\"$ticker\"" '"latest"')" "\"0x$code\""
}

block_with_ticks() {
    transaction '"to":"'"$ticker"'"'
    block
}

# transaction FIELDS: by the first account. What it costs is said outright: a node's own estimate may differ from another's.
transaction() {
    happen eth_sendTransaction "$(printf '{"from":"%s",%s,"nonce":"0x%x","gas":"0x7a120","maxFeePerGas":"0x77359400","maxPriorityFeePerGas":"0x3b9aca00"}' \
        "${accounts[0]}" "$1" "$sent")"
    sent=$((sent + 1))
}

# relive_last_block NODE: a node that has all but the last block, which had ticks, gets it.
relive_last_block() {
    local step
    for step in "${history[@]: -3}"; do
        post "$1" "$step" >/dev/null
    done
    is "the last block is the same there" "$(hash_of_head "$1")" "$(expected_blocks "$1" "$height" "$height" | cut -d' ' -f3)"
}

# ---- Clients

# counts_subscriptions ADMIN KIND COUNT: by the metrics.
counts_subscriptions() {
    curl -sf --max-time 2 "$1/metrics" | grep -qE "^steadfast_subscriptions\{([^}]*,)?kind=\"$2\"[^}]*\} $3\$"
}

heard() {
    told "$1" "block $2 "
}

# told CLIENT START: it said a line that begins so.
told() {
    grep -qE "^$2" "$work/$1.log"
}

has_logs() {
    (($(logs_of "$1" | wc -l) >= $2))
}

# blocks_of CLIENT [FROM]: what it said of blocks.
blocks_of() {
    awk -v from="${2:-0}" '$1 == "block" && $2 >= from' "$work/$1.log"
}

logs_of() {
    grep '^log ' "$work/$1.log" || true
}

rest_of() {
    grep -vE '^(block|log) ' "$work/$1.log" || true
}

# ---- What they should have heard, by a node's own word

# expected_blocks NODE FROM TO
expected_blocks() {
    local number
    for ((number = $2; number <= $3; number++)); do
        printf 'block %d %s\n' "$number" "$(result "$1" eth_getBlockByNumber "$(printf '"0x%x"' "$number")" false | field hash)"
    done
}

# expected_logs NODE FROM TO
expected_logs() {
    result "$1" eth_getLogs "$(printf '{"address":"%s","topics":["%s"],"fromBlock":"0x%x","toBlock":"0x%x"}' "$ticker" "$ticked" "$2" "$3")" | python3 -c '
import json, sys
for log in json.load(sys.stdin):
    print("log", int(log["blockNumber"], 16), int(log["logIndex"], 16), log["blockHash"], int(log["data"], 16))'
}

# ---- ethereumjs

# start_ethereumjs PORT WS_PORT PEERS_PORT: mines by itself every ten seconds, and is to find no peers.
start_ethereumjs() {
    local cli=$real/node_modules/@ethereumjs/client/dist/esm/bin/cli.js
    [[ -f $cli ]] || fail "no ethereumjs here: run tests/install.sh"
    start ethereumjs node --import "./$real/loopback.mjs" "$cli" --dev=poa --dataDir "$work/ethereumjs" \
        --rpc --rpcAddr 127.0.0.1 --rpcPort "$1" --ws --wsAddr 127.0.0.1 --wsPort "$2" \
        --port "$3" --maxPeers 0 --discV4=false --discDns=false
}

answers() {
    kill -0 "$ethereumjs" 2>/dev/null || fail "ethereumjs ended: $(tail -n 5 "$work/ethereumjs.log")"
    post "$1" "$(request eth_blockNumber)" 2>/dev/null | grep -q '"result"'
}

head_of() {
    printf '%d\n' "$(result "$1" eth_blockNumber | tr -d '"')"
}

has_reached() {
    (($(head_of "$1") >= $2))
}
