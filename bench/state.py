#!/usr/bin/env python3
"""A long beacon state through Steadfast, beside haproxy with one thread. Started by `run.sh --state`; prints Markdown."""

import argparse
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import HAPROXY, Bench, Failed, cpu, free_port, spread, status

STATE = "/eth/v2/debug/beacon/states/head"
PIECE = bytes(range(256)) * 256  # 64 KiB
SLOT = 12

STEADFAST = """
listen = "127.0.0.1:{port}"
workers = 1

[admin]
listen = "127.0.0.1:{admin}"

[[cl.primary]]
name = "node"
http = "http://127.0.0.1:{origin}"
"""


@dataclass
class Run:
    """One state through one proxy."""

    rate: float  # MB/s
    late: float  # ms from the node's first byte to the client's
    grown: float  # MB above what was resident before
    cpu: float  # ms a GiB


class Node:
    """A consensus node in a process of its own: probes are answered, and the state is `size` bytes."""

    def __init__(self, size, cpus):
        self.port = free_port()
        self.began = multiprocessing.Value("d", 0.0)
        self.process = multiprocessing.Process(target=self.serve, args=(size, cpus), daemon=True)
        self.process.start()

    def serve(self, size, cpus):
        os.sched_setaffinity(0, cpus)
        with socket.create_server(("127.0.0.1", self.port), backlog=64) as listener:
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self.connection, args=(connection, size), daemon=True).start()

    def connection(self, connection, size):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read = b""
        try:
            while True:
                while b"\r\n\r\n" not in read:
                    more = connection.recv(65536)
                    if not more:
                        return
                    read += more
                head, _, read = read.partition(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                if path.startswith(STATE):
                    self.state(connection, size, in_chunks=path.endswith("chunked"))
                    if b"onnection: close" in head:
                        return connection.close()
                else:
                    body = json.dumps({"data": probe(path)}).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except OSError:
            return

    def state(self, connection, size, in_chunks):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nEth-Consensus-Version: electra\r\n"
        framing = b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: %d" % size
        piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if in_chunks else PIECE
        several = piece * 16
        self.began.value = time.monotonic()
        connection.sendall(head + framing + b"\r\n\r\n")
        for _ in range(size // len(PIECE) // 16):
            connection.sendall(several)
        if in_chunks:
            connection.sendall(b"0\r\n\r\n")


def probe(path):
    genesis = 1606824023
    slot = (int(time.time()) - genesis) // SLOT
    root = lambda n: f"0x{n:064x}"
    if "/headers/" in path:
        message = {"slot": str(slot), "proposer_index": "1", "parent_root": root(slot - 1), "state_root": root(0), "body_root": root(0)}
        return {"root": root(slot), "canonical": True, "header": {"message": message, "signature": "0x"}}
    if path.endswith("/genesis"):
        return {"genesis_time": str(genesis), "genesis_validators_root": root(7), "genesis_fork_version": "0x00000001"}
    if path.endswith("/spec"):
        return {"SECONDS_PER_SLOT": str(SLOT), "SLOTS_PER_EPOCH": "32", "DEPOSIT_CHAIN_ID": "1"}
    return {"head_slot": str(slot), "sync_distance": "0", "is_syncing": False, "is_optimistic": False, "el_offline": False}


def fetch(port, kind, size):
    """Takes the state; gives when the first byte came and how long all of it took."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(1 << 20)
        view = memoryview(buffer)
        client.sendall(f"GET {STATE}?{kind} HTTP/1.1\r\nHost: proxy\r\nUser-Agent: bench\r\nConnection: close\r\n\r\n".encode())
        got = client.recv_into(buffer)
        first = time.monotonic()
        if not bytes(buffer[:got]).startswith(b"HTTP/1.1 200"):
            raise Failed(f"{kind}: {bytes(buffer[:200])!r}")
        total, count = got, got
        last = b""
        while count:
            last = bytes(view[max(0, count - 8) : count])
            count = client.recv_into(view)
            total += count
    if total < size or total > size * 1.01 + 4096 or (kind == "chunked" and not last.endswith(b"0\r\n\r\n")):
        raise Failed(f"{kind}: {total} bytes came of {size}, the last {last!r}")
    return first, total, time.monotonic()


def measure(port, pid, node, kind, size):
    if pid:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # begin VmHWM anew
        resident, before = status(pid, "VmRSS"), sum(cpu(pid))
    started = time.monotonic()
    first, total, ended = fetch(port, kind, size)
    rate, late = total / (ended - started) / 1e6, (first - node.began.value) * 1e3
    if not pid:
        return Run(rate, late, 0, 0)
    spent = (sum(cpu(pid)) - before) / 1e3 * (1 << 30) / size
    return Run(rate, late, (status(pid, "VmHWM") - resident) / 1024, spent)


def main():
    parser = argparse.ArgumentParser(prog="bench/run.sh --state", description=__doc__)
    parser.add_argument("--state", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--mib", type=int, default=1024, help="the state's size (default 1024)")
    parser.add_argument("--no-pin", action="store_true", help="let the kernel place the proxy, instead of a core of its own")
    options = parser.parse_args()
    size = options.mib << 20
    with tempfile.TemporaryDirectory(prefix="steadfast-bench-") as work:
        bench = Bench(work, options)
        node = Node(size, bench.other_cpus)
        os.sched_setaffinity(0, bench.other_cpus)
        try:
            proxies = {"no proxy": (node.port, None)}
            binary = os.environ["STEADFAST_BIN"]
            commands = [("Steadfast", [binary, "run", "--config"], STEADFAST, ".toml"), ("haproxy", ["haproxy", "-db", "-f"], HAPROXY, ".cfg")]
            for name, command, template, suffix in commands:
                ports = {"port": free_port(), "admin": free_port(), "origin": node.port}
                config = bench.write(name + suffix, template.format(**ports))
                proxies[name] = ports["port"], bench.start(name, [*command, config], bench.proxy_cpus).pid
            time.sleep(2)
            for kind in ("length", "chunked"):
                runs = {name: [] for name in proxies}
                grown = {name: 0.0 for name in proxies}
                for turn in range(options.rounds + 1):
                    for name in list(proxies) if turn % 2 == 0 else reversed(proxies):
                        run = measure(*proxies[name], node, kind, size)
                        grown[name] = max(grown[name], run.grown)
                        # The first fills pools.
                        if turn:
                            runs[name].append(run)
                report(kind, runs, grown, options)
        except (Failed, OSError) as error:
            print(f"bench: {error}", file=sys.stderr)
            for log in Path(work).glob("*.log"):
                print(log.name, log.read_text(errors="replace")[-1000:], file=sys.stderr)
            return 1
        finally:
            bench.stop()
            node.process.terminate()
    return 0


def report(kind, runs, grown, options):
    print(f"\n### A state of {options.mib} MiB, {'its length known' if kind == 'length' else 'in chunks'}\n")
    print(f"Medians of {options.rounds} rounds.\n")
    print("| | MB/s | min..max | to haproxy | min..max | first byte later by, ms | most | CPU ms/GiB | memory grew by, MB, at most |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    yardstick = [run.rate for run in runs["haproxy"]]
    for name, all_runs in runs.items():
        rates, lates = [run.rate for run in all_runs], [run.late for run in all_runs]
        ratios = [rate / other for rate, other in zip(rates, yardstick)]
        cells = [name, f"{median(rates):.0f}", spread(rates, 0), f"{median(ratios):.2f}", spread(ratios, 2)]
        cells += [f"{median(lates):.2f}", f"{max(lates):.2f}"]
        cells += [f"{median(run.cpu for run in all_runs):.0f}", f"{grown[name]:.1f}"] if name != "no proxy" else ["", ""]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
