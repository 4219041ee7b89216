"""`autobahn.py URL`: Autobahn's own cases against a WebSocket server that echoes, run by kosoku, each with the outcome that it must have."""

import asyncio
import collections
import os
import sys

from kosoku import FailureError, run_fuzzingclient

# Compression, which the proxy does not offer.
LEFT_OUT = ["12.*", "13.*"]
CASES = 301
# The kinds of cases, and what each is about.
SUBJECTS = {
    1: "messages of any length",
    2: "pings and pongs",
    3: "reserved bits",
    4: "reserved opcodes",
    5: "fragments",
    6: "UTF-8",
    7: "closing",
    9: "large messages, in pieces of any size",
    10: "automatic fragments",
}
# RFC 6455 leaves these open: whether text that is not UTF-8 is refused before its message is whole (the proxy refuses it then), what comes before
# the close frame when one is sent behind a large message, and what is made of close codes that nobody may send.
OPEN = {"6.4.1": "NON-STRICT", "6.4.2": "NON-STRICT", "6.4.3": "NON-STRICT", "6.4.4": "NON-STRICT"} | dict.fromkeys(
    ("7.1.6", "7.13.1", "7.13.2"), "INFORMATIONAL"
)


async def run(cases, concurrency):
    try:
        return await run_fuzzingclient(sys.argv[1], cases, LEFT_OUT, concurrency)
    except FailureError as failure:
        return failure.results


def is_right(case):
    outcome = (case.behavior.value, case.behavior_close.value)
    expected = OPEN.get(case.case_id, "OK")
    return outcome == (expected, "OK") or expected == "INFORMATIONAL" == outcome[0]


async def main():
    results = {case.case_id: case for case in await run(None, 4)}
    # The cases give an answer a second. On a busy machine one may be late beside others; by itself it is not.
    late = [case for case, result in results.items() if not is_right(result)]
    if late:
        print(f"      once more, one after another: {' '.join(late)}")
        results |= {case.case_id: case for case in await run(late, 1)}
    passed = collections.Counter()
    wrong = 0
    for name, case in results.items():
        if is_right(case):
            passed[int(name.split(".")[0])] += 1
            continue
        wrong += 1
        print(f"FAIL  case {name}: {case.behavior.value}, and its closing {case.behavior_close.value}, not {OPEN.get(name, 'OK')}")
        for text in (case.description, case.expectation, case.result, case.result_close, str(case.received)[:300]):
            print("     ", " ".join(text.split()))
    for kind, subject in SUBJECTS.items():
        print(f"ok    {passed[kind]} of Autobahn's cases about {subject}")
    print(f"{len(results) - wrong} passed, {wrong} failed, of {CASES}", flush=True)
    # Not by the interpreter's own end: kosoku's threads may then abort the process.
    os._exit(wrong > 0 or len(results) != CASES)


asyncio.run(main())
