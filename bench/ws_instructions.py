"""How many instructions of its own Steadfast runs for a notification, counted by valgrind.

Started by `bench/ws.sh --instructions`. The count is of user code alone, and does not depend on what else the
machine does.
"""

import argparse
import os
import sys
import tempfile

import callgrind
from measure import Failed
from ws import STEADFAST_WAY, Bench, Heads


class Counted(Bench):
    """Runs each build of Steadfast under callgrind, one after the other."""

    def __init__(self, work, options, binary):
        super().__init__(work, options)
        self.binary = binary

    def steadfast(self):
        return [*callgrind.under(self.work, "Steadfast"), self.binary]

    def count(self, load, heads):
        """Instructions for one notification of `load`."""
        try:
            node, port = self.node(self.other_cpus)
            proxy = self.proxy(STEADFAST_WAY, port, load.clients)
            clients = self.clients("heads", proxy.port, load.clients)
            clients.hear("ready", 120)
            self.push(load, proxy, node, clients, load.clients, 3)
            callgrind.begin(proxy.process)
            self.push(load, proxy, node, clients, load.clients, heads)
            return callgrind.count(proxy.process, self.work, "Steadfast") / (load.clients * heads)
        finally:
            self.stop()


def main():
    parser = argparse.ArgumentParser(prog="bench/ws.sh --instructions", description=__doc__)
    parser.add_argument("--instructions", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=500, help="subscribers (default 500)")
    parser.add_argument("--heads", type=int, default=20, help="heads that are counted (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="counts of each build (default 3)")
    parser.add_argument("--against", metavar="BIN", help="count another binary of Steadfast beside this one")
    options = parser.parse_args()
    options.no_pin = False
    builds = {"Steadfast": os.environ["STEADFAST_BIN"]}
    if options.against:
        builds["against"] = options.against
    load = Heads(options.clients, 500)
    print("| instructions a notification | " + " | ".join(builds) + " |\n|--:|" + "--:|" * len(builds))
    try:
        for turn in range(options.rounds):
            counts = []
            for binary in builds.values():
                with tempfile.TemporaryDirectory() as work:
                    counts.append(Counted(work, options, binary).count(load, options.heads))
            print(f"| {turn + 1} | " + " | ".join(f"{count:.0f}" for count in counts) + " |", flush=True)
    except Failed as failed:
        sys.exit(f"{parser.prog}: {failed}")


if __name__ == "__main__":
    main()
