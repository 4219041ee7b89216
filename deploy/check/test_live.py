"""A real failover, watched by a real Prometheus with our alerts: every query of the dashboard and
of the alerts brings series.

`steadfast dev` has the usual limits. A second Steadfast before the same pretend nodes has small ones,
so that what happens at limits happens too.
"""

import http.client
import json
import os
import re
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import queries
from live import Programs, WebSocket, ask, wait_for

SMALL = """
max_connections = 4

[calls]
hold = "20s"

[chain]
window = 4
max_backfill = 1

[ws]
max_connections = 2
max_outbound = "64KiB"

[filters]
max = 1
timeout = "1s"
"""
# No endpoint listens there.
OUTBOX = """
[outbox]
dir = "{folder}/kept"

[[outbox.webhook]]
name = "billing"
url = "http://127.0.0.1:1/"
allow_private = "127.0.0.1"
events = ["tx.accepted"]
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""
CLUSTER = """
[cluster]
name = "check"
replica = "small"
nats = "{nats}"
"""
# Of the pretend chain, as docs/OUTBOX.md has it.
SIGNED = re.search(r"RAW=(0x[0-9a-f]+)", (queries.ROOT / "docs" / "OUTBOX.md").read_text())[1]
PROMETHEUS = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: ["{alerts}"]
scrape_configs:
  - job_name: steadfast
    static_configs:
      - targets: {targets}
"""


def rpc(method, *params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.began = time.time()
        cls.programs = Programs(cls.addClassCleanup)
        cls.start()
        cls.happen()
        # Thirty seconds after it stopped to read.
        cls.counts(cls.admin, "steadfast_client_connections_ended_total")
        # Two scrapes more, so that rates see the last of it.
        time.sleep(3)
        cls.ended = time.time()

    @classmethod
    def start(cls):
        dev = cls.programs.dev("--block-time", "1", "--validators", "32")
        cls.rpc, cls.admin, cls.control = dev.rpc, dev.admin, dev.control
        settings = SMALL + OUTBOX.format(folder=cls.programs.folder)
        settings += CLUSTER.format(nats=cls.programs.nats())
        for name, url in dev.nodes.items():
            tier = "primary" if name.endswith("1") else "backup"
            settings += f'[[{name[:2]}.{tier}]]\nname = "{name}"\nhttp = "{url}"\n'
            if name.startswith("el"):
                settings += f'ws = "{url.replace("http", "ws")}"\n'
                # More than is ever spent here.
                settings += "budget = { per_second = 100000, per_day = 100000000 }\n"
        cls.settings = cls.programs.folder / "small.toml"
        cls.settings.write_text(settings)
        small = cls.programs.steadfast("run", "--config", cls.settings)
        cls.small, cls.small_admin, cls.log = small.rpc, small.admin, small.log
        for url in (cls.admin, cls.small_admin):
            wait_for(lambda: ask(f"{url}/readyz"), cls.log)
        targets = [url.removeprefix("http://") for url in (cls.admin, cls.small_admin)]
        cls.prometheus = cls.programs.prometheus(
            PROMETHEUS.format(alerts=queries.ALERTS, targets=json.dumps(targets))
        )

    @classmethod
    def fault(cls, node, fault):
        if isinstance(fault, dict):
            ask(f"{cls.control}/nodes/{node}/faults", json.dumps(fault))
        else:
            ask(f"{cls.control}/nodes/{node}/{fault}", "")

    @classmethod
    def side(cls, admin, layer):
        return json.loads(ask(f"{admin}/status"))["networks"][0][layer]

    @classmethod
    def counts(cls, admin, metric, least=1):
        """Waits until the metric's sum is so much."""

        def counted():
            lines = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", ask(f"{admin}/metrics"), re.MULTILINE)
            assert sum(map(float, lines)) >= least, f"{metric} is less than {least}"
            return True

        wait_for(counted, cls.log)

    @classmethod
    def active(cls, layer, node, admin=None):
        wait_for(lambda: True if cls.side(admin or cls.admin, layer)["active"] == node else None)

    @classmethod
    def happen(cls):
        cls.clients_come()
        # First, since validators have nothing to sign in slots of blocks that were mined early.
        cls.beacon_side_errs()
        cls.limits_are_met()
        cls.primary_dies()
        cls.all_nodes_die()
        cls.settings_are_read_anew()

    @classmethod
    def clients_come(cls):
        # A replica that is the first of all takes its shards after failover_timeout, and sends nothing before.
        cls.counts(cls.small_admin, "steadfast_outbox_shards", 64)
        for url in (cls.rpc, cls.small):
            ask(url, rpc("eth_blockNumber"))
            assert "result" in json.loads(ask(url, rpc("eth_sendRawTransaction", SIGNED)))
            cls.subscribe(url)
        ask(cls.rpc, rpc("eth_newBlockFilter"))
        cls.never_read(cls.rpc)
        events = urllib.request.urlopen(f"{cls.rpc}/eth/v1/events?topics=head", timeout=60)
        cls.addClassCleanup(events.close)
        # A series of its first value has no rate: this value must have been scraped.
        time.sleep(2)

    @classmethod
    def never_read(cls, url):
        """Asks for more than sockets hold, and leaves it there."""
        client = socket.socket()
        cls.addClassCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = url.removeprefix("http://").split(":")
        client.connect((host, int(port)))
        body = "[" + ",".join([rpc("eth_getLogs", {"fromBlock": "0x0"})] * 1000) + "]"
        head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())

    @classmethod
    def subscribe(cls, url):
        client = WebSocket(url)
        cls.addClassCleanup(client.close)
        for params in (["newHeads"], ["logs", {}], ["syncing"]):
            client.call("eth_subscribe", *params)

    @classmethod
    def beacon_side_errs(cls):
        cls.fault("cl-2", "restart")
        cls.fault("cl-1", "hang")
        cls.active("cl", "cl-2")
        cls.counts(cls.admin, "steadfast_publications_again_total")
        cls.fault("cl-1", "up")
        cls.counts(cls.admin, "steadfast_told_again_total")
        # Heads are told whose headers no node gives.
        for node in ("cl-1", "cl-2"):
            cls.fault(node, {"fault": "hang_over", "methods": ["GET /eth/v1/beacon/headers/0x*"]})
        cls.counts(cls.admin, "steadfast_doubtful_events_total")
        for node in ("cl-1", "cl-2"):
            cls.fault(node, "up")

    @classmethod
    def limits_are_met(cls):
        # One filter may be open, and is dropped when nobody polls it for a second.
        for expected in ("result", "error"):
            assert expected in json.loads(ask(cls.small, rpc("eth_newBlockFilter")))
        # Four connections may be open: those that are idle give way.
        for _ in range(5):
            idle = http.client.HTTPConnection(cls.small.removeprefix("http://"))
            cls.addClassCleanup(idle.close)
            idle.request("POST", "/", rpc("eth_blockNumber"))
            idle.getresponse().read()
            time.sleep(0.1)
        # Two WebSockets with subscriptions may be open.
        second = WebSocket(cls.small)
        second.call("eth_subscribe", "newHeads")
        second.socket.recv(4096)
        third = WebSocket(cls.small)
        third.close()
        second.close()
        assert third.status == 503, third.status
        # A client that does not read.
        slow = wait_for(lambda: WebSocket(cls.small, buffer=4096).unless_refused())
        cls.addClassCleanup(slow.close)
        for _ in range(300):
            slow.call("eth_subscribe", "newHeads")
        ask(f"{cls.control}/mine/20", "")
        cls.counts(cls.small_admin, "steadfast_slow_clients_closed_total")

    @classmethod
    def primary_dies(cls):
        # Logs that no node has, and a reorganisation.
        height = int(json.loads(ask(cls.rpc, rpc("eth_blockNumber")))["result"], 16) + 2
        for node in ("el-1", "el-2"):
            cls.fault(node, f"missing-logs/{height}")
        # Two lost answers: one of a read, and one of a call that must not be repeated.
        cls.fault("el-1", "cut-answer/eth_gasPrice,eth_sendTransaction")
        ask(cls.rpc, rpc("eth_gasPrice"))
        assert "outcome_unknown" in ask(cls.rpc, rpc("eth_sendTransaction", {}))
        cls.fault("el-1", "down")
        cls.active("el", "el-2")
        for _ in range(20):
            ask(cls.rpc, rpc("eth_blockNumber"))
        ask(f"{cls.control}/reorg/2", "")
        cls.counts(cls.admin, "steadfast_logs_given_up_total")
        cls.fault("el-1", "up")
        cls.active("el", "el-1")

    @classmethod
    def all_nodes_die(cls):
        # Those of before were closed for the logs that they lack.
        for url in (cls.rpc, cls.small):
            cls.subscribe(url)
        time.sleep(1)
        for node in ("el-1", "el-2"):
            cls.fault(node, "down")
        wait_for(lambda: None if cls.side(cls.small_admin, "el")["serves"] else True)
        # Calls wait; four connections are busy with them, and a fifth is too many.
        waiting = [
            cls.programs.start(f"curl-{n}", "curl", "-s", cls.small, "-d", rpc("eth_gasPrice"))[0]
            for n in range(4)
        ]
        cls.counts(cls.small_admin, "steadfast_held_calls", 4)

        def refused():
            try:
                ask(cls.small, rpc("eth_gasPrice"))
            except urllib.error.HTTPError as error:
                error.close()
            except OSError:
                # Closed before all of the call was written.
                pass
            cls.counts(cls.small_admin, "steadfast_http_connections_refused_total")
            return True

        wait_for(refused, cls.log)
        # Two looks more at the calls that wait.
        time.sleep(2)
        ask(f"{cls.control}/mine/20", "")
        for node in ("el-1", "el-2"):
            cls.fault(node, "up")
        for curl in waiting:
            assert curl.wait() == 0
        cls.counts(cls.small_admin, "steadfast_gaps_skipped_total")
        cls.counts(cls.admin, "steadfast_backfilled_blocks_total")

    @classmethod
    def settings_are_read_anew(cls):
        good = cls.settings.read_text()
        for text, status in ((good + "\n[nonsense]\n", 422), (good, 200)):
            cls.settings.write_text(text)
            try:
                ask(f"{cls.small_admin}/reload", "")
                found = 200
            except urllib.error.HTTPError as error:
                found = error.code
                error.close()
            assert found == status, found

    def query(self, query):
        """The series that there were from the beginning to the end."""
        asked = {"query": query, "start": self.began, "end": self.ended, "step": 1}
        answer = json.loads(ask(f"{self.prometheus}/api/v1/query_range?{urllib.parse.urlencode(asked)}"))
        self.assertEqual(answer["status"], "success", query)
        return answer["data"]["result"]

    def test_every_query_of_the_dashboard_brings_series(self):
        for title, query, _ in queries.asked_by_dashboard(queries.dashboard()):
            with self.subTest(title, query=query):
                self.assertTrue(self.query(queries.filled(query)))

    def test_every_selector_of_the_alerts_brings_series(self):
        for rule in queries.alerts():
            for selector in queries.selectors(rule["expr"]):
                with self.subTest(rule["alert"], selector=selector):
                    self.assertTrue(self.query(selector))

    def test_prometheus_took_the_alerts_and_saw_the_failover(self):
        (group,) = json.loads(ask(f"{self.prometheus}/api/v1/rules"))["data"]["groups"]
        self.assertEqual({rule["health"] for rule in group["rules"]}, {"ok"})
        for alert in ("SteadfastOnBackup", "SteadfastNoNodeServes", "SteadfastCallsHeld"):
            with self.subTest(alert):
                self.assertTrue(self.query(f'ALERTS{{alertname="{alert}"}}'))

    def test_the_metrics_are_well_formed(self):
        for admin in (self.admin, self.small_admin):
            answer = subprocess.run(
                [os.environ["PROMTOOL"], "check", "metrics"],
                input=ask(f"{admin}/metrics"),
                capture_output=True,
                text=True,
            )
            self.assertEqual((answer.returncode, answer.stdout + answer.stderr), (0, ""))
