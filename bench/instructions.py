"""How many instructions of its own a proxy runs for a call, counted by valgrind.

The count is of user code alone, and does not depend on what else the machine does. It needs no counters of the
processor, which many virtual machines do not have.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import callgrind
from measure import HAPROXY, LOADS, STEADFAST, Bench, Failed, Load, Proxy, free_port

BEACON = """
[[cl.primary]]
name = "beacon-node"
http = "http://127.0.0.1:{origin}"
"""

BEACON_LOADS = [
    Load("duties of four validators, 8 connections", '["0","1","2","3"]', 8, 400, "/eth/v1/validator/duties/attester/1"),
    Load("beacon block of 100 kB, 8 connections", "", 8, 100_000, "/eth/v2/beacon/blocks/head", "GET"),
]


class Counted(Bench):
    """Runs each proxy under callgrind, one after the other."""

    @property
    def loads(self):
        return BEACON_LOADS if self.options.beacon else LOADS + BEACON_LOADS

    def begin(self, name, command, template, suffix, origin):
        ports = {"port": free_port(), "admin": free_port(), "origin": origin, "work": self.work}
        config = self.write(name + suffix, template.format(**ports))
        child = self.start(name, [*callgrind.under(self.work, name), *command, config], self.proxy_cpus)
        proxy = Proxy(name, ports["port"], child)
        self.wait_for(proxy, child)
        return proxy

    def count(self, proxy, load):
        """Instructions for one call of `load`."""
        self.load(proxy, load, 2)  # warm
        callgrind.begin(proxy.process)
        calls, *_ = self.load(proxy, load, self.options.seconds)
        return callgrind.count(proxy.process, self.work, proxy.name) / calls

    def run(self):
        origin = free_port()
        node = self.start("node", [os.environ["ORIGIN_BIN"], str(origin)], self.other_cpus)
        self.wait_for(Proxy("node", origin), node)
        steadfast = ["run", "--config"]
        settings = STEADFAST + BEACON
        kinds = [("Steadfast", [os.environ["STEADFAST_BIN"], *steadfast], settings, ".toml")]
        if self.options.against:
            kinds.append(("against", [self.options.against, *steadfast], settings, ".toml"))
        else:
            kinds.append(("haproxy", ["haproxy", "-db", "-f"], HAPROXY, ".cfg"))
        counts = {}
        for kind in kinds:
            proxy = self.begin(*kind, origin)
            for load in self.loads:
                counts[load, proxy.name] = self.count(proxy, load)
            proxy.process.terminate()
            proxy.process.wait(20)
        first, second = (name for name, *_ in kinds)
        print(f"| thousands of user instructions a call | {first} | {second} | ratio |\n|---|--:|--:|--:|")
        for load in self.loads:
            one, other = counts[load, first], counts[load, second]
            print(f"| {load.title} | {one / 1000:.1f} | {other / 1000:.1f} | {one / other:.2f} |")


def main():
    parser = argparse.ArgumentParser(prog="bench/run.sh --instructions", description=__doc__)
    parser.add_argument("--instructions", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=6, help="seconds for each load (default 6)")
    parser.add_argument("--against", metavar="BIN", help="compare with this binary of Steadfast, not with haproxy")
    parser.add_argument("--beacon", action="store_true", help="only the requests to the beacon API")
    options = parser.parse_args()
    options.no_pin = False

    def give_up(signum, _frame):
        raise Failed("out of time" if signum == signal.SIGALRM else "interrupted")

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(each, give_up)
    signal.alarm(120 + options.seconds * (len(LOADS) + len(BEACON_LOADS)) * 4)
    with tempfile.TemporaryDirectory() as work:
        counted = Counted(work, options)
        counted.work = Path(work)
        try:
            counted.run()
        except Failed as failed:
            sys.exit(f"{parser.prog}: {failed}")
        finally:
            counted.stop()


if __name__ == "__main__":
    main()
