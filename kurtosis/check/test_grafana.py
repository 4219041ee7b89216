"""Prometheus and Grafana in the enclave: their settings, and the dashboard that deploy/ has."""

import json
import os
import subprocess
import tempfile
import unittest

import yaml

from engine import PACKAGE, interpret, network_params

PLAN = interpret(network_params())


class Grafana(unittest.TestCase):
    def test_the_dashboard_is_that_of_deploy(self):
        deployed = (PACKAGE.parent / "deploy" / "grafana" / "steadfast.json").read_text()
        self.assertEqual(PLAN.artifacts["grafana-dashboards"]["steadfast.json"], deployed)

    def test_the_dashboard_finds_the_source_that_there_is(self):
        (source,) = yaml.safe_load(PLAN.artifacts["grafana-datasources"]["prometheus.yml"])["datasources"]
        dashboard = json.loads(PLAN.artifacts["grafana-dashboards"]["steadfast.json"])
        (chosen,) = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
        self.assertEqual(chosen["query"], source["type"])
        self.assertTrue(source["isDefault"])

    def test_prometheus_takes_its_settings(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(PLAN.artifacts["prometheus-settings"]["prometheus.yml"])
            file.flush()
            answer = subprocess.run(
                [os.environ["PROMTOOL"], "check", "config", file.name], capture_output=True, text=True
            )
        self.assertEqual(answer.returncode, 0, answer.stderr)
