"""The plan's settings in real programs: Steadfast before the pretend network's four pairs, and Prometheus beside it."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

import dashboard
from engine import interpret, network_params

STEADFAST = os.environ["STEADFAST_BIN"]
PATIENCE = 30
# Queries for faults that this test does not make.
SELDOM = {"Calls that failed", "Verdicts"}
# Metrics whose first series begins with something that this test does not make happen.
LATE = {"steadfast_gaps_skipped_total", "steadfast_backfilled_blocks_total"}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def ask(url, body=None):
    request = urllib.request.Request(
        url, data=None if body is None else body.encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def wait_for(condition, log=None):
    """What `condition` returns once it neither returns None nor fails. `log` tells why it does not."""
    end = time.monotonic() + PATIENCE
    while True:
        why = "it returned None"
        try:
            if (found := condition()) is not None:
                return found
        except (OSError, AssertionError) as error:
            why = str(error)
        if time.monotonic() > end:
            raise AssertionError(f"after {PATIENCE} s: {why}\n{log.read_text()[-4000:] if log else ''}")
        time.sleep(0.1)


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        control = free_port()
        cls.control = f"http://127.0.0.1:{control}"
        dev = cls.start(
            "dev",
            *[STEADFAST, "dev", "--nodes", "4", "--block-time", "1", "--control", f"127.0.0.1:{control}"],
            *["--listen", f"127.0.0.1:{free_port()}", "--admin-listen", f"127.0.0.1:{free_port()}"],
        )

        def nodes():
            found = dict(re.findall(r"^  ((?:el|cl)-\d) +(http://\S+)$", dev.read_text(), re.MULTILINE))
            return found if len(found) == 8 else None

        cls.nodes = wait_for(nodes, dev)
        addresses = [
            (cls.nodes[f"el-{n}"], cls.nodes[f"el-{n}"].replace("http", "ws"), cls.nodes[f"cl-{n}"])
            for n in range(1, 5)
        ]
        args = network_params()
        args["network_params"]["network_id"] = "1337"
        cls.plan = interpret(args, addresses)
        cls.settings = cls.folder / "steadfast.toml"
        cls.settings.write_text(cls.plan.artifacts["steadfast-settings"]["steadfast.toml"])

        # On loopback here, and on every address in the enclave.
        rpc, admin = free_port(), free_port()
        cls.rpc, cls.admin = f"http://127.0.0.1:{rpc}", f"http://127.0.0.1:{admin}"
        command = cls.plan.services["steadfast"]["cmd"]
        command[command.index("/etc/steadfast/steadfast.toml")] = str(cls.settings)
        command += ["--listen", f"127.0.0.1:{rpc}", "--admin-listen", f"127.0.0.1:{admin}"]
        log = cls.start("steadfast", STEADFAST, *command)
        ready = cls.plan.services["steadfast"]["ready_conditions"]["recipe"]["endpoint"]
        wait_for(lambda: ask(cls.admin + ready), log)

        prometheus = free_port()
        cls.prometheus = f"http://127.0.0.1:{prometheus}"
        settings = cls.plan.artifacts["prometheus-settings"]["prometheus.yml"]
        (cls.folder / "prometheus.yml").write_text(settings.replace("steadfast:9545", f"127.0.0.1:{admin}"))
        command = [f"--config.file={cls.folder}/prometheus.yml", f"--storage.tsdb.path={cls.folder}/data"]
        command.append(f"--web.listen-address=127.0.0.1:{prometheus}")
        log = cls.start("prometheus", os.environ["PROMETHEUS"], *command)
        ready = cls.plan.services["prometheus"]["ready_conditions"]["recipe"]["endpoint"]
        wait_for(lambda: ask(cls.prometheus + ready), log)

    @classmethod
    def start(cls, name, *command):
        """The path of its output."""
        log = cls.folder / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)

        def stop():
            process.send_signal(signal.SIGKILL)
            process.wait()

        cls.addClassCleanup(stop)
        return log

    def test_the_settings_pass_steadfasts_own_check(self):
        # A node may be on its way back.
        wait_for(self.check)

    def check(self):
        answer = subprocess.run(
            [STEADFAST, "check", "--config", self.settings], capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)
        return True

    def test_it_serves_with_its_tiers_and_pairs(self):
        (network,) = json.loads(ask(self.admin + "/status"))["networks"]
        for side, names in (
            ("el", ["geth-1", "reth-2", "geth-3", "reth-4"]),
            ("cl", ["lighthouse-1", "lodestar-2", "lighthouse-3", "lodestar-4"]),
        ):
            nodes = network[side]["nodes"]
            self.assertEqual([node["name"] for node in nodes], names)
            self.assertEqual([node["tier"] for node in nodes], ["primary", "primary", "backup", "backup"])
            self.assertEqual([node["pair"]["name"] for node in nodes], ["1", "2", "3", "4"])
        chain = ask(self.rpc, '{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}')
        self.assertEqual(json.loads(chain)["result"], hex(1337))

    def test_every_query_of_the_dashboard_is_answered(self):
        queries = list(dashboard.queries(dashboard.load()))

        def all_answered():
            ask(self.rpc, '{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}')
            # A series begins when there is something to count.
            begun = set(re.findall(r"^steadfast_\w+", ask(self.admin + "/metrics"), re.MULTILINE))
            empty = set()
            for title, query, _ in queries:
                asked = query.replace("$__rate_interval", "30s").replace("$network", "default")
                answer = json.loads(
                    ask(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': asked})}")
                )
                self.assertEqual(answer["status"], "success", query)
                names = {metric for metric, _ in dashboard.SELECTOR.findall(query)}
                if not answer["data"]["result"] and not names <= LATE - begun:
                    empty.add((title, query))
            self.assertLessEqual({title for title, _ in empty}, SELDOM, empty)
            return True

        # Clients of each kind, a reorganisation, and a switch, so that series begin.
        host, port = self.rpc.removeprefix("http://").split(":")
        websocket = socket.create_connection((host, int(port)))
        self.addCleanup(websocket.close)
        websocket.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self.assertIn(b" 101 ", websocket.recv(4096))
        subscribe = b'{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}'
        # One masked text frame, with a mask of zeros.
        websocket.sendall(bytes([0x81, 0x80 | len(subscribe)]) + bytes(4) + subscribe)
        events = urllib.request.urlopen(f"{self.rpc}/eth/v1/events?topics=head", timeout=PATIENCE)
        self.addCleanup(events.close)
        ask(self.rpc, '{"jsonrpc":"2.0","id":1,"method":"eth_newBlockFilter","params":[]}')
        self.addCleanup(ask, self.control + "/nodes/el-1/up", "")
        ask(self.control + "/nodes/el-1/down", "")
        ask(self.control + "/reorg/2", "")
        wait_for(all_answered)
