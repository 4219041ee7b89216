#!/usr/bin/env python3
"""Filters that clients poll: what a poll costs beside a plain call, and what idle filters take of memory.

Started by `run.sh --filters`; prints Markdown. The pretend node has no filters: none of what is asked of them reaches it.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from statistics import median

from measure import CALL, SMALL, STEADFAST, Bench, Failed, Load, Proxy, free_port, post, spread, status

FILTERS = 10_000
BATCH = 500
LIMITS = f"""
[filters]
max = {2 * FILTERS}
max_per_client = {2 * FILTERS}
"""


class Filters(Bench):
    def set_up_one(self):
        origin = free_port()
        node = self.start("node", [os.environ["ORIGIN_BIN"], str(origin)], self.other_cpus)
        self.wait_for(Proxy("node", origin), node)
        ports = {"port": free_port(), "admin": free_port(), "origin": origin}
        config = self.write("steadfast.toml", STEADFAST.format(**ports) + LIMITS)
        child = self.start("Steadfast", [os.environ["STEADFAST_BIN"], "run", "--config", config], self.proxy_cpus)
        proxy = Proxy("Steadfast", ports["port"], child)
        self.wait_for(proxy, child)
        return proxy

    def make(self, proxy, count):
        """So many filters: every second one of logs, each of these with a wish of its own."""
        ids = []
        for start in range(0, count, BATCH):
            calls = []
            for place in range(start, min(start + BATCH, count)):
                wish = '{"address":"0x%040x"}' % (len(ids) + place)
                calls.append(CALL % (place, "eth_newFilter", wish) if place % 2 else CALL % (place, "eth_newBlockFilter", ""))
            answers = json.loads(post(proxy.port, f"[{','.join(calls)}]"))
            ids += [answer["result"] for answer in answers]
        return ids

    def run(self):
        proxy = self.set_up_one()
        pid = proxy.process.pid
        for one in self.make(proxy, BATCH):
            post(proxy.port, CALL % (1, "eth_uninstallFilter", json.dumps(one)))
        before = status(pid, "VmRSS")
        ids = self.make(proxy, FILTERS)
        each = (status(pid, "VmRSS") - before) * 1024 / FILTERS
        print(f"{FILTERS} idle filters, half of blocks and half of logs: {each:.0f} bytes of resident memory each.\n")
        polls = [CALL % (1, "eth_getFilterChanges", json.dumps(ids[kind])) for kind in (0, 1)]
        loads = [
            Load("plain call (`eth_blockNumber`)", SMALL, 32, 30),
            Load("answered by the proxy (`eth_chainId`)", CALL % (1, "eth_chainId", ""), 32, 30),
            Load("poll of a block filter", polls[0], 32, 30),
            Load("poll of a log filter", polls[1], 32, 30),
        ]
        samples = {load: [] for load in loads}
        self.load(proxy, loads[0], 1)  # warm
        for turn in range(self.options.rounds):
            for load in loads if turn % 2 == 0 else loads[::-1]:
                samples[load].append(self.sample(proxy, load, self.options.seconds))
        print(f"Medians of {self.options.rounds} rounds of {self.options.seconds} s, 32 connections.\n")
        print("| | CPU µs/call | min..max | to a plain call | min..max | calls/s |")
        print("|---|--:|--:|--:|--:|--:|")
        for load, runs in samples.items():
            ratios = [run.cpu / plain.cpu for run, plain in zip(runs, samples[loads[0]])]
            print(
                f"| {load.title} | {median(run.cpu for run in runs):.1f} | {spread([run.cpu for run in runs], 1)}"
                f" | {median(ratios):.2f} | {spread(ratios, 2)} | {median(run.rate for run in runs):.0f} |"
            )


def main():
    parser = argparse.ArgumentParser(prog="bench/run.sh --filters", description=__doc__)
    parser.add_argument("--filters", action="store_true", help="this measurement")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds for each load of a round (default 2)")
    parser.add_argument("--no-pin", action="store_true", help="let the kernel place the proxy, instead of a core of its own")
    options = parser.parse_args()

    def give_up(signum, _frame):
        raise Failed("out of time" if signum == signal.SIGALRM else "interrupted")

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(each, give_up)
    signal.alarm(60 + options.rounds * options.seconds * 6)
    with tempfile.TemporaryDirectory(prefix="steadfast-bench-") as work:
        bench = Filters(work, options)
        try:
            bench.run()
        except Failed as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            bench.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
