#!/usr/bin/env python3
"""Calls and newHeads over WebSocket through Steadfast, beside nginx as a plain pipe. Started by ws.sh; prints Markdown."""

import argparse
import ctypes
import math
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import Failed, free_port, progress, spread, status

SPARE = 200  # descriptors of a process beside those for its clients
SETTLE = 2  # seconds from the last client's subscription until memory is read
QUIET = 0.3  # seconds after the last receipt until CPU time is read

NGINX = """
worker_processes {workers};
worker_rlimit_nofile {files};
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections {files}; }}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  server {{
    listen 127.0.0.1:{port}{reuseport};
    location / {{
      proxy_pass http://127.0.0.1:{origin};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }}
  }}
}}
"""

STEADFAST = """
listen = "127.0.0.1:{port}"
workers = 1
max_connections = 30000

[admin]
listen = "127.0.0.1:{admin}"

[ws]
max_connections = 30000

[[el.primary]]
name = "node"
{urls}
"""
HTTP = 'http = "http://127.0.0.1:{origin}"'
WS = 'ws = "ws://127.0.0.1:{origin}"'

# The ways from the clients to the node.
STEADFAST_WAY, LINK_WAY, NGINX_WAY, NO_PROXY = "Steadfast", "Steadfast, node without `http`", "nginx", "no proxy: the node itself"


@dataclass(frozen=True)
class Calls:
    """Calls over WebSocket."""

    connections: int
    in_flight: int  # on each connection
    ways = (STEADFAST_WAY, LINK_WAY, NGINX_WAY, NO_PROXY)

    @property
    def title(self):
        return f"Calls: {several(self.connections, 'connection')}, {self.in_flight} in flight on each"


@dataclass(frozen=True)
class Heads:
    """One newHeads subscription of each of so many clients."""

    clients: int
    pause: int  # milliseconds from head to head
    ways = (STEADFAST_WAY, NGINX_WAY, NO_PROXY)

    @property
    def title(self):
        return f"newHeads to {self.clients} clients, a head each {self.pause} ms"


@dataclass
class Sample:
    """One round of one load on one way; `cpu` is microseconds a call or a notification."""

    cpu: float
    user: float  # share of `cpu`
    both: float = 0  # microseconds a notification of the proxy and the node together
    rate: float = 0  # calls a second
    p50: float = 0  # microseconds: of a call, or until the middle client had a head
    p99: float = 0  # of a call
    last: float = 0  # microseconds until the last client had a head: median over the heads
    worst: float = 0  # and the most
    idle: float = 0  # kB a client, subscribed, before any head
    after: float = 0  # and after the heads
    upstream: str = ""  # connections and subscriptions at the node


class Tool:
    """The node or the clients: orders in, lines out."""

    def __init__(self, bench, name, command, cpus):
        self.name = name
        self.log = bench.work / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = bench.spawn(command, cpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.split())
        self.lines.put(None)

    def say(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def hear(self, word, seconds):
        """What follows `word` on the next line, which must begin with it."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise Failed(f"{self.name}: no '{word}' within {seconds} s") from None
        if not line or line[0] != word:
            raise Failed(f"{self.name}: {line} for '{word}'\n{self.log.read_text()[-2000:]}")
        return line[1:]

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)


class Proxy:
    """All processes of a proxy, or of what is measured in its place."""

    def __init__(self, port, process):
        self.port = port
        self.process = process

    def pids(self):
        pid = self.process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def cpu(self):
        """User and system time in microseconds, as the scheduler knows it, and the user part of it in its coarser ticks."""
        total = user = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1000
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) * 1e6 / os.sysconf("SC_CLK_TCK")
        return total, user

    def memory(self):
        return sum(status(pid, "VmRSS") for pid in self.pids())

    def files(self):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())


class Bench:
    def __init__(self, work, options):
        self.work = Path(work)
        self.options = options
        self.children = []
        cpus = sorted(os.sched_getaffinity(0))
        self.pin = not options.no_pin and len(cpus) > 1
        self.proxy_cpus = cpus[:1] if self.pin else cpus
        self.other_cpus = cpus[1:] if self.pin else cpus
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    # Processes

    def spawn(self, command, cpus, **pipes):
        def prepare():
            os.sched_setaffinity(0, cpus)
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: never outlive this script

        child = subprocess.Popen(command, preexec_fn=prepare, **pipes)
        self.children.append(child)
        return child

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.children = []

    def node(self, cpus):
        port = free_port()
        origin = Tool(self, "node", [os.environ["ORIGIN_BIN"], str(port)], cpus)
        wait_until(lambda: post(port), "the node", origin.process)
        return origin, port

    def proxy(self, way, origin, clients):
        """A new process for each sample, so that none inherits another's memory."""
        port, admin = free_port(), free_port()
        if way == NGINX_WAY:
            workers = self.nginx_workers(clients)
            text = NGINX.format(
                port=port, origin=origin, work=self.work, files=self.limit, workers=workers, reuseport=" reuseport" if workers > 1 else ""
            )
            command = ["nginx", "-p", str(self.work), "-c"]
        else:
            urls = WS if way == LINK_WAY else f"{HTTP}\n{WS}"
            text = STEADFAST.format(port=port, admin=admin, urls=urls.format(origin=origin))
            command = [*self.steadfast(), "run", "--config"]
        config = self.work / "proxy.conf"
        config.write_text(text)
        with open(self.work / "proxy.log", "wb") as log:
            child = self.spawn([*command, str(config)], self.proxy_cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: post(port), way, child, self.work / "proxy.log")
        return Proxy(port, child)

    def steadfast(self):
        """The words that start Steadfast."""
        return [os.environ["STEADFAST_BIN"]]

    def nginx_workers(self, clients):
        """One, unless the limit on open files is too low for that; they share one core all the same."""
        return math.ceil((2.2 * clients + SPARE) / self.limit)

    def clients(self, *args):
        return Tool(self, "clients", [os.environ["CLIENTS_BIN"], *map(str, args)], self.other_cpus)

    # Measuring

    def sample(self, load, way):
        try:
            # Without a proxy the node's own work is measured, in the proxy's place.
            node, port = self.node(self.proxy_cpus if way == NO_PROXY else self.other_cpus)
            if way == NO_PROXY:
                proxy = Proxy(port, node.process)
            else:
                proxy = self.proxy(way, port, load.clients if isinstance(load, Heads) else 64)
            return self.calls(load, proxy) if isinstance(load, Calls) else self.heads(load, proxy, node)
        finally:
            self.stop()

    def calls(self, load, proxy):
        warm = self.clients("calls", proxy.port, load.connections, load.in_flight, 1)
        warm.hear("calls", 20)
        before = proxy.cpu()
        seconds = self.options.seconds
        clients = self.clients("calls", proxy.port, load.connections, load.in_flight, seconds)
        count, rate, p50, p99 = map(float, clients.hear("calls", seconds + 20))
        total, user = (now - then for now, then in zip(proxy.cpu(), before))
        return Sample(total / count, user / max(total, 1), rate=rate, p50=p50, p99=p99)

    def heads(self, load, proxy, node):
        # What the first client costs once is not the clients' share.
        few = self.clients("heads", proxy.port, 10)
        few.hear("ready", 20)
        self.push(load, proxy, node, few, 10, 3)
        few.end()
        wait_until(lambda: self.upstream(node)[1] <= 1, "clients that left are gone")
        bare = proxy.memory()
        clients = self.clients("heads", proxy.port, load.clients)
        clients.hear("ready", 60)
        time.sleep(SETTLE)
        idle = (proxy.memory() - bare) / load.clients
        source = Proxy(None, node.process)
        before, source_before = proxy.cpu(), source.cpu()
        told = self.push(load, proxy, node, clients, load.clients, self.options.heads)
        time.sleep(QUIET)
        total, user = (now - then for now, then in zip(proxy.cpu(), before))
        at_source = 0 if proxy.process is node.process else source.cpu()[0] - source_before[0]
        count = load.clients * self.options.heads
        after = (proxy.memory() - bare) / load.clients
        connections, subscriptions = self.upstream(node)
        if proxy.process.args[0] == os.environ["STEADFAST_BIN"] and subscriptions != 1:
            raise Failed(f"Steadfast holds {subscriptions} subscriptions at the node")
        return Sample(
            total / count,
            user / max(total, 1),
            both=(total + at_source) / count,
            p50=median(each[1] for each in told),
            last=median(each[2] for each in told),
            worst=max(each[2] for each in told),
            idle=idle,
            after=after,
            upstream=f"{connections} / {subscriptions}",
        )

    def push(self, load, proxy, node, clients, count, heads):
        """Has the node tell so many heads; gives the first, middle and last receipt of each."""
        node.say(f"push {heads} {load.pause}")
        told = [list(map(int, clients.hear("head", load.pause / 1000 + 20))) for _ in range(heads)]
        (last,) = node.hear("pushed", 5)
        numbers = [each[0] for each in told]
        if numbers != list(range(int(last) - heads + 1, int(last) + 1)):
            raise Failed(f"heads {numbers} came to {count} clients, and the last was {last}")
        return [each[1:] for each in told]

    def upstream(self, node):
        node.say("count")
        _, connections, _, subscriptions = ["connections", *node.hear("connections", 5)]
        return int(connections), int(subscriptions)

    # What is done with it

    def loads(self):
        loads = [Calls(32, 1), Calls(32, 16), Calls(1, 1)] if not self.options.only_heads else []
        for clients in self.options.clients if not self.options.only_calls else []:
            if clients + SPARE > self.limit:
                print(f"**{clients} clients are left out**: the limit on open files is {self.limit}, and cannot be raised here.\n")
            else:
                loads.append(Heads(clients, 250 if clients <= 2000 else 1000))
        return loads

    def ways(self, load):
        return [way for way in load.ways if not self.options.without_steadfast or "Steadfast" not in way]

    def compare(self):
        rounds = self.options.rounds
        loads = self.loads()
        samples = {}
        for turn in range(rounds):
            for load in loads:
                ways = self.ways(load)
                for way in ways if turn % 2 == 0 else ways[::-1]:
                    progress(f"round {turn + 1} of {rounds}: {load.title}: {way}")
                    samples.setdefault((load, way), []).append(self.sample(load, way))
        progress("")
        where = "on a core of its own" if self.pin else "on any core"
        print(f"Medians of {rounds} rounds, in turns, {where}; CPU is all of the proxy's processes; ratios are within the round.")
        for load in loads:
            self.report(load, samples)

    def report(self, load, samples):
        print(f"\n### {load.title}\n")
        yardstick = samples[load, NGINX_WAY]
        what = "call" if isinstance(load, Calls) else "notification"
        columns = [f"CPU µs/{what}", "min..max", "user %", "to nginx", "min..max"]
        if isinstance(load, Calls):
            columns += ["calls/s", "p50 µs", "p99 µs"]
        else:
            columns += ["with the node's", "to nginx with its node's", "middle client ms", "last client ms", "worst ms", "kB/idle client", "kB/client later", "connections / subscriptions at the node"]
        print(f"| | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
        for way in self.ways(load):
            runs = samples[load, way]
            mid = lambda name: median(getattr(s, name) for s in runs)
            cells = [way]
            ratios = [s.cpu / y.cpu for s, y in zip(runs, yardstick)]
            cells += [f"{mid('cpu'):.2f}", spread([s.cpu for s in runs], 2), f"{mid('user') * 100:.0f}"]
            cells += [f"{median(ratios):.2f}", spread(ratios, 2)]
            if isinstance(load, Calls):
                cells += [f"{mid('rate'):.0f}", f"{mid('p50'):.0f}", f"{mid('p99'):.0f}"]
            else:
                ratios = [s.both / y.both for s, y in zip(runs, yardstick)]
                cells += [f"{mid('both'):.2f}", f"{median(ratios):.2f} ({spread(ratios, 2)})"]
                cells += [f"{mid('p50') / 1000:.1f}", f"{mid('last') / 1000:.1f}", f"{max(s.worst for s in runs) / 1000:.1f}"]
                cells += ["", ""] if way == NO_PROXY else [f"{mid('idle'):.1f}", f"{mid('after'):.1f}"]
                cells += [runs[-1].upstream]
            print(f"| {' | '.join(cells)} |")
        workers = self.nginx_workers(load.clients) if isinstance(load, Heads) else 1
        if workers > 1:
            print(f"\nnginx needs {workers} workers on its core here: the limit on open files is {self.limit}, and a client takes two.")

    def vanish(self, clients):
        """Clients that subscribe and are reset, again and again: does anything of them stay?"""
        try:
            node, port = self.node(self.other_cpus)
            proxy = self.proxy(STEADFAST_WAY, port, clients)
            print(f"{clients} clients connect, subscribe and are reset, again and again.\n")
            print("| round | RSS MB with them | RSS MB without | open files with them | without | subscriptions at the node |")
            print("|--:|--:|--:|--:|--:|--:|")
            print(f"| before | | {proxy.memory() / 1024:.1f} | | {proxy.files()} | |", flush=True)
            for turn in range(self.options.rounds):
                tool = self.clients("vanish", proxy.port, clients)
                tool.hear("ready", 60)
                there = proxy.memory() / 1024, proxy.files()
                tool.end()
                time.sleep(SETTLE)
                left = self.upstream(node)[1]
                print(f"| {turn + 1} | {there[0]:.1f} | {proxy.memory() / 1024:.1f} | {there[1]} | {proxy.files()} | {left} |", flush=True)
        finally:
            self.stop()


def several(count, word):
    return f"{count} {word}{'s' if count != 1 else ''}"


def post(port):
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return b'"result"' in answer.read()


def wait_until(true, what, process=None, log=None):
    until = time.monotonic() + 20
    while time.monotonic() < until and (process is None or process.poll() is None):
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.05)
    said = log.read_text(errors="replace")[-2000:] if log else ""
    raise Failed(f"{what}: not in time\n{said}")


def main():
    parser = argparse.ArgumentParser(prog="bench/ws.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds for each load of calls (default 2)")
    parser.add_argument("--heads", type=int, default=10, help="heads that each client is told in a sample (default 10)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1000, 10000], help="subscribers (default 1000 10000)")
    parser.add_argument("--only-calls", action="store_true", help="no subscriptions")
    parser.add_argument("--only-heads", action="store_true", help="no calls")
    parser.add_argument("--without-steadfast", action="store_true", help="to try the measurement itself")
    parser.add_argument("--no-pin", action="store_true", help="let the kernel place the proxy, instead of a core of its own")
    parser.add_argument("--vanish", type=int, metavar="N", help="instead: N subscribers of Steadfast that are reset, in each round")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.heads, *options.clients, options.vanish or 1) < 1:
        parser.error("numbers must be at least 1")

    def give_up(_signum, _frame):
        raise Failed("interrupted")

    stops = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for each in stops:
        signal.signal(each, give_up)
    with tempfile.TemporaryDirectory(prefix="steadfast-bench-") as work:
        bench = Bench(work, options)
        try:
            bench.vanish(options.vanish) if options.vanish else bench.compare()
        except Failed as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            for each in stops:
                signal.signal(each, signal.SIG_IGN)
            bench.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
