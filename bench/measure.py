#!/usr/bin/env python3
"""What a call costs in Steadfast, beside haproxy and nginx with one thread each. Started by run.sh; prints Markdown."""

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

TICK = 1e6 / os.sysconf("SC_CLK_TCK")  # microseconds

CALL = '{"jsonrpc":"2.0","id":%s,"method":"%s","params":[%s]}'
SMALL = CALL % (1, "eth_blockNumber", "")
LARGE = CALL % (1, "eth_getLogs", '{"fromBlock":"0x1312d00"}')
CHUNKED = CALL % (1, "eth_getBlockReceipts", '"0x1312d00"')


@dataclass(frozen=True)
class Load:
    """One kind of traffic."""

    title: str
    body: str
    connections: int
    size: int  # least bytes of an answer
    path: str = "/"
    method: str = "POST"


LOADS = [
    Load("small call, 32 connections", SMALL, 32, 40),
    Load("small call, 1 connection", SMALL, 1, 40),
    Load("100 kB answer, 8 connections", LARGE, 8, 100_000),
    Load("100 kB answer in 4 kB chunks, 8 connections", CHUNKED, 8, 100_000),
]

HAPROXY = """
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend calls
  bind 127.0.0.1:{port}
  default_backend nodes
backend nodes
  server node 127.0.0.1:{origin}
"""

# Buffers for a whole large answer: with the defaults it goes by way of a file.
NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{ worker_connections 2000; }}
http {{
  access_log off;
  client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
  fastcgi_temp_path {work}/fastcgi; uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;
  keepalive_requests 1000000000;
  upstream node {{ server 127.0.0.1:{origin}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://node;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffers 8 32k;
      proxy_buffer_size 16k;
    }}
  }}
}}
"""

STEADFAST = """
listen = "127.0.0.1:{port}"
workers = 1

[admin]
listen = "127.0.0.1:{admin}"

[[el.primary]]
name = "node"
http = "http://127.0.0.1:{origin}"
"""


class Failed(Exception):
    """The measurement cannot go on, or would not be one."""


@dataclass
class Proxy:
    """A process that is measured; `process` is None for the way without a proxy."""

    name: str
    port: int
    process: subprocess.Popen | None = None
    samples: dict = field(default_factory=dict)


@dataclass
class Sample:
    """One round of one load through one proxy."""

    user: float  # microseconds a call
    system: float
    rate: float  # calls a second
    p50: float  # microseconds
    p99: float
    peak: int  # kB

    @property
    def cpu(self):
        return self.user + self.system


class Bench:
    def __init__(self, work, options):
        self.work = Path(work)
        self.options = options
        self.children = []
        cpus = sorted(os.sched_getaffinity(0))
        # The proxy has a core to itself, if there are two.
        self.pin = not options.no_pin and len(cpus) > 1
        self.proxy_cpus = cpus[:1] if self.pin else cpus
        self.other_cpus = cpus[1:] if self.pin else cpus

    # Processes

    def start(self, name, command, cpus):
        def prepare():
            os.sched_setaffinity(0, cpus)
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: never outlive this script

        with open(self.work / f"{name}.log", "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=prepare)
        self.children.append(child)
        return child

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def write(self, name, text):
        path = self.work / name
        path.write_text(text)
        return str(path)

    def set_up(self):
        """Starts the node and the proxies, and does not return before each has answered correctly."""
        origin = free_port()
        direct = Proxy("no proxy", origin)
        node = self.start(direct.name, [os.environ["ORIGIN_BIN"], str(origin)], self.other_cpus)
        self.wait_for(direct, node)
        self.expected = {body: post(origin, body) for body in (LARGE, CHUNKED)}

        def proxy(name, command, template, suffix):
            ports = {"port": free_port(), "admin": free_port(), "origin": origin, "work": self.work}
            config = self.write(name + suffix, template.format(**ports))
            child = self.start(name, [*command, config], self.proxy_cpus)
            return Proxy(name, ports["port"], child)

        binary = os.environ["STEADFAST_BIN"]
        proxies = [
            proxy("Steadfast", [binary, "run", "--config"], STEADFAST, ".toml"),
            proxy("haproxy", ["haproxy", "-db", "-f"], HAPROXY, ".cfg"),
            proxy("nginx", ["nginx", "-p", str(self.work), "-c"], NGINX, ".conf"),
        ]
        for each in proxies:
            self.wait_for(each, each.process)
            self.check(each)
        return [*proxies, direct]

    def wait_for(self, proxy, process):
        until = time.monotonic() + 20
        why = "no answer"
        while time.monotonic() < until:
            if process.poll() is not None:
                why = f"it ended with status {process.returncode}"
                break
            try:
                if "result" in json.loads(post(proxy.port, SMALL)):
                    return
                why = "an error for an answer"
            except (OSError, ValueError, http.client.HTTPException) as error:
                why = repr(error)
            time.sleep(0.1)
        log = self.work / f"{proxy.name}.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise Failed(f"{proxy.name} does not serve: {why}\n{tail}")

    def check(self, proxy):
        """The answers are the node's, byte for byte; an id comes back as it went."""
        for body, expected in self.expected.items():
            if post(proxy.port, body) != expected:
                raise Failed(f"{proxy.name} changed an answer of {len(expected)} bytes")
        number = "123456789012345678901234567890"
        answer = post(proxy.port, CALL % (number, "eth_chainId", ""))
        if answer != b'{"jsonrpc":"2.0","id":%s,"result":"0x539"}' % number.encode():
            raise Failed(f"{proxy.name} answered eth_chainId with {answer!r}")

    # Measuring

    def load(self, proxy, load, seconds):
        """Runs wrk; gives calls, calls a second, p50 and p99."""
        script = self.write(
            "load.lua",
            f'wrk.method = "{load.method}"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [==[{load.body}]==]\n',
        )
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--latency", "-s", script]
        try:
            run = subprocess.run(
                [*command, f"http://127.0.0.1:{proxy.port}{load.path}"],
                capture_output=True,
                text=True,
                timeout=seconds + 20,
                preexec_fn=lambda: os.sched_setaffinity(0, self.other_cpus),
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{load.title}, {proxy.name}: wrk did not come to an end") from None
        text = run.stdout
        done = re.search(r"(\d+) requests in [\d.]+\w+, ([\d.]+)([KMGT]?)B read", text)
        if not done or "Non-2xx" in text or "Socket errors" in text:
            raise Failed(f"{load.title}, {proxy.name}:\n{text}{run.stderr}")
        calls = int(done[1])
        read = float(done[2]) * 1024 ** " KMGT".index(done[3] or " ")
        # An error would be an answer too, but a short one. wrk rounds what it has read.
        if calls == 0 or read / calls < load.size * 0.98:
            raise Failed(f"{load.title}, {proxy.name}: {calls} calls brought only {read:.0f} bytes")
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
        return calls, rate, *(latency(text, p) for p in ("50", "99"))

    def sample(self, proxy, load, seconds):
        if proxy.process is None:
            _, rate, p50, p99 = self.load(proxy, load, seconds)
            return Sample(0, 0, rate, p50, p99, 0)
        pid = proxy.process.pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin VmHWM anew
        before = cpu(pid)
        calls, rate, p50, p99 = self.load(proxy, load, seconds)
        user, system = (now - then for now, then in zip(cpu(pid), before))
        return Sample(user / calls, system / calls, rate, p50, p99, status(pid, "VmHWM"))

    def compare(self, proxies):
        rounds, seconds = self.options.rounds, self.options.seconds
        for proxy in proxies:
            self.load(proxy, LOADS[0], 1)  # warm
        for turn in range(rounds):
            for load in LOADS:
                # There and back, so that what comes after what does not matter.
                for proxy in proxies if turn % 2 == 0 else proxies[::-1]:
                    proxy.samples.setdefault(load, []).append(self.sample(proxy, load, seconds))
                    progress(f"round {turn + 1} of {rounds}: {load.title}: {proxy.name}")
        progress("")
        for proxy in proxies:
            if proxy.process is not None:
                self.check(proxy)
        self.report(proxies)

    def report(self, proxies):
        options = self.options
        where = "on a core of its own" if self.pin else "on any core"
        print(f"Medians of {options.rounds} rounds of {options.seconds} s, in turns; each proxy with one thread, {where}.")
        print("CPU is user + system time of the proxy for one call; the ratio is to haproxy in the same round.")
        yardstick = next(p for p in proxies if p.name == "haproxy")
        for load in LOADS:
            print(f"\n### {load.title[0].upper()}{load.title[1:]}\n")
            print("| | CPU µs/call | min..max | user + system | to haproxy | min..max | calls/s | p50 µs | p99 µs | peak MB |")
            print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
            for proxy in proxies:
                runs = proxy.samples[load]

                def mid(name, runs=runs):
                    return median(getattr(s, name) for s in runs)

                cells = [proxy.name]
                if proxy.process is None:
                    cells += [""] * 5
                else:
                    ratios = [s.cpu / y.cpu for s, y in zip(runs, yardstick.samples[load])]
                    cells += [f"{mid('cpu'):.1f}", spread([s.cpu for s in runs], 1)]
                    cells += [f"{mid('user'):.1f} + {mid('system'):.1f}"]
                    cells += [f"{median(ratios):.2f}", spread(ratios, 2)]
                cells += [f"{mid('rate'):.0f}", f"{mid('p50'):.0f}", f"{mid('p99'):.0f}"]
                cells += [f"{mid('peak') / 1024:.1f}" if proxy.process else ""]
                print(f"| {' | '.join(cells)} |")

    def soak(self, proxy, calls):
        """A great many calls, new connections every second; memory and descriptors all the while."""
        pid = proxy.process.pid
        print(f"{calls} calls through {proxy.name}: two slices of small ones, then one of 100 kB, and again.\n")
        print("| calls | RSS MB, min..max | peak MB | open files |")
        print("|--:|--:|--:|--:|")
        done = turn = 0
        slices = []
        while done < calls:
            load = LOADS[2] if turn % 3 == 2 else LOADS[0]
            turn += 1
            with Watch(pid) as watch:
                done += self.load(proxy, load, 1)[0]
            slices.append((done, median(watch.rss)))
            files = len(os.listdir(f"/proc/{pid}/fd"))
            print(f"| {done} | {spread(watch.rss, 1)} | {status(pid, 'VmHWM') / 1024:.1f} | {files} |", flush=True)
        self.check(proxy)
        # The first tenth fills pools and caches.
        settled = [mb for at, mb in slices if at > done / 10]
        half = len(settled) // 2
        if half:
            first, second = median(settled[:half]), median(settled[half:])
            print(f"\nRSS after the first tenth: {first:.1f} MB, later {second:.1f} MB ({second / first - 1:+.1%}).")


class Watch(threading.Thread):
    """Samples a process's resident memory, in MB, ten times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid = pid
        self.rss = []
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            self.rss.append(status(self.pid, "VmRSS") / 1024)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def free_port():
    """Below the ports that the system gives to outgoing connections: none takes it in between."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def post(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}: {answer[:200]!r}")
        return answer
    finally:
        connection.close()


def cpu(pid):
    """User and system time of all threads, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) * TICK, int(fields[12]) * TICK


def status(pid, key):
    return int(re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def latency(text, percent):
    value, unit = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)$", text, re.M).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def spread(values, digits):
    return f"{min(values):.{digits}f}..{max(values):.{digits}f}"


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="seconds for each load of a round (default 2)")
    parser.add_argument("--no-pin", action="store_true", help="let the kernel place the proxy, instead of a core of its own")
    parser.add_argument("--soak", type=int, metavar="N", help="instead: N calls through Steadfast, watching its memory")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.soak or 1) < 1:
        parser.error("numbers must be at least 1")

    def give_up(signum, _frame):
        raise Failed("out of time" if signum == signal.SIGALRM else "interrupted")

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(each, give_up)
    measured = options.rounds * options.seconds * len(LOADS) * 4
    # A soak that is slower than 1000 calls a second is a finding, too.
    signal.alarm(60 + options.soak // 1000 if options.soak else 45 + measured * 5 // 4)

    with tempfile.TemporaryDirectory(prefix="steadfast-bench-") as work:
        bench = Bench(work, options)
        try:
            proxies = bench.set_up()
            if options.soak:
                bench.soak(proxies[0], options.soak)
            else:
                bench.compare(proxies)
        except Failed as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        finally:
            for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
                signal.signal(each, signal.SIG_IGN)
            bench.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
