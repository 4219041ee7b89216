"""`described.py DESCRIPTION NODE PROXY`: requests that schemathesis makes up from the description of the beacon API, each to the node itself and through
the proxy. Status, body and the headers that say what the body is are the same."""

import collections
import sys

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

description, node, proxy = sys.argv[1:]
EXAMPLES = 5
# What stands for names that chance seldom finds, in a second request for each.
USUAL = {"state_id": "head", "block_id": "head", "validator_id": "1", "epoch": "1", "peer_id": "1"}
# Streams, which have no end to compare.
STREAMS = "/eth/v1/events"
SAID_OF_BODY = ("content-type", "eth-consensus-version", "eth-execution-payload-blinded", "eth-execution-payload-value", "eth-consensus-block-value")

session = requests.Session()
counts = collections.Counter()
statuses = collections.Counter()
wrong = []


def ask(case, base):
    request = case.as_transport_kwargs(base_url=base)
    request["headers"] = {**request["headers"], "Accept-Encoding": "identity"}
    answer = session.request(**request, timeout=20, allow_redirects=False)
    return answer.status_code, answer.content, {name: answer.headers.get(name) for name in SAID_OF_BODY}


def compare(case):
    # The chain may go on between two requests, and what is told twice may be answered otherwise: the proxy's answer lies between two of the node's.
    before, through, after = (ask(case, base) for base in (node, proxy, node))
    counts["requests"] += 1
    if through in (before, after):
        statuses[through[0]] += 1
    else:
        wrong.append((case, before, through, after))


def try_out(operation):
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def each(case):
        compare(case)
        usual = {name: USUAL[name] for name in case.path_parameters if name in USUAL}
        if usual:
            case.path_parameters = {**case.path_parameters, **usual}
            compare(case)

    each()


def main():
    operations = [found.ok() for found in schemathesis.openapi.from_path(description).get_all_operations()]
    for operation in operations:
        if operation.path != STREAMS:
            try_out(operation)
            counts["operations"] += 1
    for case, *answers in wrong[:20]:
        print(f"FAIL  {case.method} {case.formatted_path} {case.query} {str(case.body)[:200]}")
        for who, (status, body, headers) in zip(("node", "proxy", "node"), answers):
            print(f"      {who}: {status} {body[:300]!r} {headers}")
    told = ", ".join(f"{count} with {status}" for status, count in sorted(statuses.items()))
    print(f"      {counts['operations']} operations, {counts['requests']} requests: {told}; {len(wrong)} differ")
    # A run in which everything is refused compares nothing.
    sys.exit(bool(wrong) or counts["operations"] < 80 or statuses[200] < 120)


main()
