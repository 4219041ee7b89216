"""`judge.py NODE SINK DOOR`: whether a client of calls.mjs, whose words come in, was served through that door: every call was answered, heights never
fell, and each payment of its account is in the node's chain once, in the block that it was told."""

import json
import sys
import urllib.request

node, sink, door = sys.argv[1:]


def ask(method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(node, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["result"]


text = sys.stdin.read()
lines = [line.split() for line in text.splitlines()]
strange = [line for line in lines if line[0] not in ("call", "batch", "paid", "done")]
assert not strange, f"it said {text[-6000:]}"
lines = [line for line in lines if line[1] == door]
assert ["done", door] in lines, "it did not end"

heights, slowest = [], 0
payments = {}
for what, _, *answer in lines[:-1]:
    *answer, took, _ = answer
    slowest = max(slowest, int(took))
    if what == "call":
        heights.append(int(answer[0]))
    elif what == "batch":
        chain, height, code = answer
        assert (chain, code) == ("1337", "0x"), f"a batch was answered {answer}"
        heights.append(int(height))
    else:
        paid, block, status = answer
        assert status == "1", f"a payment failed: {answer}"
        assert paid not in payments, f"{paid} was told twice"
        payments[paid] = int(block)
assert heights == sorted(heights), f"heights fell: {heights}"

senders, nonces = set(), []
for paid, block in payments.items():
    transaction = ask("eth_getTransactionByHash", paid)
    assert transaction, f"{paid} is in no block"
    assert int(transaction["blockNumber"], 16) == block, f"{paid} is in another block than {block}"
    assert (transaction["to"], transaction["value"]) == (sink, "0x1"), f"{paid} is another payment"
    senders.add(transaction["from"])
    nonces.append(int(transaction["nonce"], 16))
sender, = senders
assert nonces == list(range(len(nonces))), f"payments were made out of turn: {nonces}"
made = int(ask("eth_getTransactionCount", sender, "latest"), 16)
assert made == len(payments), f"{made} payments are in the chain, {len(payments)} were told"
print(f"      {len(heights)} answers, {len(payments)} payments, the slowest after {slowest} ms")
