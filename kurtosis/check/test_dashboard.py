"""Every query of the dashboard names metrics and labels that there are."""

import os
import subprocess
import tempfile
import unittest

import yaml

import dashboard
from engine import interpret, network_params

METRICS = dashboard.documented()


def promtool(*arguments):
    return subprocess.run([os.environ["PROMTOOL"], *arguments], capture_output=True, text=True)


class Dashboard(unittest.TestCase):
    def test_every_query_fits_the_documentation(self):
        for title, query, legend in dashboard.queries(dashboard.load()):
            with self.subTest(title, query=query):
                self.assertEqual(list(dashboard.problems(query, legend, METRICS)), [])

    def test_wrong_queries_are_refused(self):
        for query, legend, expected in [
            ("up", "", "names no metric"),
            ("steadfast_pool_served", "", "steadfast_pool_served is not in docs/STATUS.md"),
            (
                'steadfast_pool_serves{network="$network", node="x"}',
                "",
                "steadfast_pool_serves has no label node",
            ),
            (
                'sum by (node) (steadfast_held_calls{network="$network"})',
                "",
                "steadfast_held_calls has no label node",
            ),
            ("steadfast_pool_serves", "", "is not asked for the chosen network"),
            ('steadfast_pool_serves{network="$network"}', "{{node}}", "the legend names node"),
            ('sum by (layer) (steadfast_node_lag{network="$network"})', "{{node}}", "the legend names node"),
        ]:
            with self.subTest(query):
                found = list(dashboard.problems(query, legend, METRICS))
                self.assertTrue(any(expected in line for line in found), found)

    def test_the_queries_are_promql(self):
        rules = [
            {
                "record": f"query:{n}",
                "expr": query.replace("$__rate_interval", "1m").replace("$network", "default"),
            }
            for n, (_, query, _) in enumerate(dashboard.queries(dashboard.load()))
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            answer = promtool("check", "rules", file.name)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertIn(f"{len(rules)} rules found", answer.stdout)

    def test_the_panels_have_ids_and_places_of_their_own(self):
        panels = dashboard.load()["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        self.assertEqual(len(set(cells)), len(cells), "panels overlap")
        self.assertLess(max(x for x, _ in cells), 24)

    def test_it_asks_the_datasource_that_there_is(self):
        plan = interpret(network_params())
        (source,) = yaml.safe_load(plan.artifacts["grafana-datasources"]["prometheus.yml"])["datasources"]
        for panel in dashboard.load()["panels"]:
            for asked in [panel, *panel["targets"]]:
                self.assertEqual(
                    (asked["datasource"]["uid"], asked["datasource"]["type"]), (source["uid"], source["type"])
                )

    def test_prometheus_takes_its_settings(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(interpret(network_params()).artifacts["prometheus-settings"]["prometheus.yml"])
            file.flush()
            answer = promtool("check", "config", file.name)
        self.assertEqual(answer.returncode, 0, answer.stderr)
