"""The plan's settings in real programs: Steadfast before the pretend network's four pairs, and Prometheus beside it."""

import json
import subprocess
import unittest

from engine import interpret, network_params
from live import PATIENCE, STEADFAST, Programs, ask, wait_for


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        programs = Programs(cls.addClassCleanup)
        dev = programs.dev("--nodes", "4", "--block-time", "1")
        cls.nodes = dev.nodes
        addresses = [
            (cls.nodes[f"el-{n}"], cls.nodes[f"el-{n}"].replace("http", "ws"), cls.nodes[f"cl-{n}"])
            for n in range(1, 5)
        ]
        args = network_params()
        args["network_params"]["network_id"] = "1337"
        cls.plan = interpret(args, addresses)
        cls.settings = programs.folder / "steadfast.toml"
        cls.settings.write_text(cls.plan.artifacts["steadfast-settings"]["steadfast.toml"])

        # On loopback here, and on every address in the enclave.
        command = cls.plan.services["steadfast"]["cmd"]
        command[command.index("/etc/steadfast/steadfast.toml")] = str(cls.settings)
        running = programs.steadfast(*command)
        cls.rpc, cls.admin = running.rpc, running.admin
        ready = cls.plan.services["steadfast"]["ready_conditions"]["recipe"]["endpoint"]
        wait_for(lambda: ask(cls.admin + ready), running.log)

        settings = cls.plan.artifacts["prometheus-settings"]["prometheus.yml"]
        cls.prometheus = programs.prometheus(settings.replace("steadfast:9545", cls.admin.removeprefix("http://")))

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

    def test_prometheus_has_its_metrics(self):
        def scraped():
            answer = json.loads(ask(f"{self.prometheus}/api/v1/query?query=steadfast_node_usable"))
            return True if len(answer["data"]["result"]) == 8 else None

        wait_for(scraped)
