# Nodes, calls and checks for the scripts of this folder. STEADFAST_BIN names the binary under test, and ALLOY_BIN the client of alloy; without it a
# debug build is made.

real=tests/real
work=$(mktemp -d)
pids=()
passed=0
callers=()
# What every node has to live through, the height that this leads to, and how many transfers were sent.
history=()
height=0
sent=0

# Sets `steadfast` to the binary under test.
build_steadfast() {
    steadfast=${STEADFAST_BIN:-}
    if [[ -z $steadfast ]]; then
        cargo build --quiet --bin steadfast
        steadfast=target/debug/steadfast
    fi
}

# Sets `alloy` to the client of alloy, which is a program of its own.
build_alloy() {
    alloy=${ALLOY_BIN:-}
    if [[ -z $alloy ]]; then
        cargo build --quiet --locked --manifest-path "$real/alloy/Cargo.toml" --target-dir target/alloy
        alloy=target/alloy/debug/alloy-client
    fi
}

# ---- Checks: each counts, and the first that fails ends the run

pass() {
    passed=$((passed + 1))
    printf 'ok    %s\n' "$1"
}

note() {
    printf '      %s\n' "$1"
}

fail() {
    printf 'FAIL  %s\n' "$1" >&2
    [[ -z ${missing:-} ]] || printf '%s\n' "$missing" >&2
    if [[ -s $work/steadfast.log ]]; then
        printf '%s\n' '--- the last of what steadfast said:' >&2
        tail -n 25 "$work/steadfast.log" >&2
    fi
    # What went wrong with clients, by their own word.
    grep -E -m 3 -A 3 '^(error|closed)|Error: ' "$work"/*.log /dev/null 2>/dev/null | sed "s|^$work/||" | head -n 40 >&2 || true
    exit 1
}

# row CLIENT DOOR DONE OUTCOME: one for docs/COMPATIBILITY.md, when compatibility.sh asks for them.
row() {
    local IFS=$'\t'
    [[ -z ${COMPATIBILITY_ROWS:-} ]] || printf '%s\n' "$*" >>"$COMPATIBILITY_ROWS"
}

summary() {
    printf '%d passed, 0 failed\n' "$passed"
}

is() {
    [[ $2 == "$3" ]] || fail "$1
      expected: ${3:0:2000}
      was:      ${2:0:2000}"
    pass "$1"
}

contains() {
    [[ $2 == *"$3"* ]] || fail "$1: no $3 in ${2:0:2000}"
    pass "$1"
}

matches() {
    [[ $2 =~ $3 ]] || fail "$1: ${2:0:2000} is not like $3"
    pass "$1"
}

ok() {
    local name=$1
    shift
    "$@" || fail "$name"
    pass "$name"
}

# within SECONDS NAME COMMAND…: the command succeeds in time.
within() {
    local until=$(($(now) + $1 * 1000))
    shift
    until_ms "$until" "$@"
}

# until_ms TIME NAME COMMAND…: likewise, up to a time that now() tells. A success that comes later is none.
until_ms() {
    local until=$1 name=$2
    shift 2
    # What a check lacks, by its own word.
    missing=
    until "$@"; do
        (($(now) < until)) || fail "$name: not in time"
        sleep 0.05
    done
    (($(now) <= until)) || fail "$name: late by $(($(now) - until)) ms"
    pass "$name"
}

now() {
    date +%s%3N
}

# ---- Processes

# start NAME COMMAND…: in the background; its process id is in $started, what it says in a log.
start() {
    local name=$1
    shift
    : >"$work/$name.log"
    "$@" >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
}

# start_client NAME KIND ARGUMENT…: the program KIND-LIBRARY; NAME begins with the library's. What it says is in its log.
start_client() {
    local program=$real/$2-${1%%-*}
    if [[ ${1%%-*} == alloy ]]; then
        start "$1" "$alloy" "${@:2}"
    elif [[ -f $program.py ]]; then
        start "$1" "$real/venv/bin/python" "$program.py" "${@:3}"
    else
        command -v node >/dev/null || fail "node is not installed: run tests/install.sh"
        start "$1" node "$program.mjs" "${@:3}"
    fi
}

# kill_hard PID: as a machine dies, without a word.
kill_hard() {
    kill -9 "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

clean_up() {
    local status=$? pid
    for pid in "${pids[@]}"; do
        kill_hard "$pid"
    done
    rm -rf "$work"
    if ((status)); then
        printf '%d passed, 1 failed\n' "$passed"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'fail "interrupted, or out of time"' INT TERM

# limit_to SECONDS: the whole run.
limit_to() {
    (
        trap - EXIT INT TERM
        # By itself: a sleep of its own would outlive it.
        read -rt "$1" <> <(:) || true
        kill -TERM $$
    ) >/dev/null 2>&1 &
    pids+=("$!")
}

# free_ports COUNT: below the ports that the system gives to outgoing connections, so that none takes
# one before its server listens, or while its server is dead.
free_ports() {
    python3 -c '
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    try:
        held.append(socket.create_server(("127.0.0.1", random.randrange(20000, 32000))))
    except OSError:
        continue
print(*(s.getsockname()[1] for s in held))' "$1"
}

# ---- Calls

# post URL BODY: the body of the answer.
post() {
    curl -sS --max-time 10 -H 'content-type: application/json' --data-binary "$2" "$1"
}

# result URL METHOD [PARAM…]: the result as the node wrote it; a call without one ends the run.
result() {
    local answer
    answer=$(post "$1" "$(request "${@:2}")")
    [[ $answer == '{"jsonrpc":"2.0","id":1,"result":'*'}' ]] || fail "$2 at $1: ${answer:0:2000}"
    answer=${answer#'{"jsonrpc":"2.0","id":1,"result":'}
    printf '%s' "${answer%\}}"
}

request() {
    local IFS=,
    printf '{"jsonrpc":"2.0","id":1,"method":"%s","params":[%s]}' "$1" "${*:2}"
}

listens() {
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

succeeds() {
    curl -sf --max-time 2 -o /dev/null "$1"
}

# field NAME: of the JSON object that comes in.
field() {
    python3 -c 'import json, sys; print((json.load(sys.stdin) or {}).get(sys.argv[1]))' "$1"
}

# outline: the ids and results (or error codes) of the answer or batch that comes in, in order, numbers as they are written.
outline() {
    python3 -c '
import json, sys
class Raw(float):
    def __new__(cls, text):
        raw = float.__new__(cls, text)
        raw.text = text
        return raw
    __repr__ = lambda self: self.text
answers = json.load(sys.stdin, parse_float=Raw)
show = lambda value: repr(value) if isinstance(value, Raw) else json.dumps(value)
line = lambda a: show(a["id"]) + " " + (show(a["error"]["code"]) if "error" in a else show(a["result"]))
print("; ".join(map(line, answers if isinstance(answers, list) else [answers])))'
}

# ---- Nodes

# start_anvil NAME PORT TAG [OPTION…]: a node with nothing but its first block. It lists its tag among its accounts, which is how a call tells
# the nodes apart: of the chain they hold exactly the same.
start_anvil() {
    local binary=("$real"/node_modules/@foundry-rs/anvil-*/bin/anvil)
    [[ -x ${binary[0]} ]] || fail "no anvil here: run tests/install.sh"
    start "anvil-$1" "${binary[0]}" --host 127.0.0.1 --port "$2" --no-mining --timestamp 1700000000 --chain-id 1337 "${@:4}"
    local until=$(($(now) + 10000))
    until post "http://127.0.0.1:$2" "$(request eth_chainId)" >/dev/null 2>&1; do
        (($(now) < until)) || fail "anvil $1 does not start: $(tail -n 5 "$work/anvil-$1.log")"
        sleep 0.05
    done
    result "http://127.0.0.1:$2" anvil_impersonateAccount "\"$3\"" >/dev/null
}

# remember METHOD [PARAM…]: part of the chain's history, for a node that has to live it again.
remember() {
    history+=("$(request "$@")")
}

# happen METHOD [PARAM…]: on every node that mines, and remembered.
happen() {
    local node
    for node in $mining; do
        result "$node" "$@" >/dev/null
    done
    remember "$@"
}

block() {
    height=$((height + 1))
    happen evm_setNextBlockTimestamp $((1700000000 + 12 * height))
    happen evm_mine
}

# What a transaction costs is said outright: a node's own estimate may differ from another's.
block_with_transfer() {
    happen eth_sendTransaction "$(printf \
        '{"from":"%s","to":"%s","value":"0x1","nonce":"0x%x","gas":"0x5208","maxFeePerGas":"0x77359400","maxPriorityFeePerGas":"0x3b9aca00"}' \
        "${accounts[0]}" "${accounts[1]}" "$sent")"
    sent=$((sent + 1))
    block
}

# relive NODE: all that happened so far.
relive() {
    local step answer
    for step in "${history[@]}"; do
        answer=$(post "$1" "$step")
        [[ $answer == *'"result":'* ]] || fail "$1 cannot relive $step: $answer"
    done
}

hash_of_head() {
    result "$1" eth_getBlockByNumber '"latest"' false | field hash
}

# ---- What Steadfast shows

# status FIELD: of the execution side.
status() {
    curl -sf --max-time 2 "$admin/status" | python3 -c '
import json, sys
network, = json.load(sys.stdin)["networks"]
assert network["name"] == "default", network["name"]
value = network["el"][sys.argv[1]]
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

status_is() {
    [[ $(status "$1" 2>/dev/null) == "$2" ]]
}

active_is() {
    status_is active "$1"
}

# tag: of the node that a call through Steadfast reaches.
tag() {
    result "$front" eth_accounts | python3 -c 'import json, sys; print(json.load(sys.stdin)[-1])'
}

goes_home() {
    active_is el-1 && [[ $(tag) == "$tag_a" ]]
}

shows_head() {
    [[ $(result "$front" eth_blockNumber) == "\"$1\"" ]]
}

# ---- Clients that never stop calling

start_calling() {
    local client
    for client in 1 2 3; do
        call_on "$client" &
        pids+=("$!")
        callers+=("$!")
    done
}

# Each answer is a line of its own: how curl fared, the HTTP status, the answer.
call_on() {
    local client=$1 n=0 id answer status
    trap - EXIT INT TERM
    while [[ ! -e $work/enough ]]; do
        n=$((n + 1))
        id='"client '$client', call '$n'"'
        status=0
        answer=$(curl -s --max-time 15 -w ' %{http_code}' -H 'content-type: application/json' \
            --data-binary '{"jsonrpc":"2.0","id":'"$id"',"method":"eth_blockNumber","params":[]}' "$front") || status=$?
        if [[ $status == 0 && $answer =~ ^'{"jsonrpc":"2.0","id":'"$id"',"result":"0x'([0-9a-f]+)'"} 200'$ ]]; then
            printf 'good %d\n' "$((16#${BASH_REMATCH[1]}))"
        else
            printf 'bad curl=%d %s\n' "$status" "$answer"
        fi
    done >"$work/calls-$client"
}

stop_calling() {
    touch "$work/enough"
    wait "${callers[@]}"
}

calls_made() {
    cat "$work"/calls-* | wc -l
}

calls_failed() {
    # What failed, to the reader; how many, to the check.
    grep -h -m 3 '^bad' "$work"/calls-* >&2 || true
    cat "$work"/calls-* | grep -c '^bad' || true
}

steps_back() {
    awk 'FNR == 1 { last = 0 } $1 == "good" { if ($2 < last) back++; last = $2 } END { print back + 0 }' "$work"/calls-*
}

# ends_well PID: it ends by itself, in time, with exit code 0.
ends_well() {
    local status=0
    wait "$1" || status=$?
    [[ $status == 0 ]] || note "exit code $status"
    return "$status"
}
