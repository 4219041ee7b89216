"""Dashboard and alerts by themselves: every query names metrics and labels that there are."""

import os
import re
import subprocess
import tempfile
import unittest

import yaml

import queries

METRICS = queries.documented()
RUNBOOK = (queries.ROOT / "docs" / "OPERATIONS.md").read_text()


def promtool(*arguments):
    return subprocess.run(
        [os.environ["PROMTOOL"], *arguments], capture_output=True, text=True, cwd=queries.ALERTS.parent
    )


class Alerts(unittest.TestCase):
    def test_they_are_rules(self):
        answer = promtool("check", "rules", "alerts.yml")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertIn(f"{len(queries.alerts())} rules found", answer.stdout)

    def test_they_fire_when_they_should_and_only_then(self):
        answer = promtool("test", "rules", "alerts_test.yml")
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)
        tests = (queries.ALERTS.parent / "alerts_test.yml").read_text()
        for rule in queries.alerts():
            self.assertIn(rule["alert"], tests, "no test has it firing")

    def test_their_queries_fit_the_documentation(self):
        for rule in queries.alerts():
            with self.subTest(rule["alert"]):
                if rule["expr"] == 'up{job="steadfast"} == 0':
                    continue
                found = list(queries.problems(rule["expr"], "", METRICS, of_dashboard=False))
                self.assertEqual(found, [])

    def test_each_has_its_entry_in_the_runbook(self):
        names = [rule["alert"] for rule in queries.alerts()]
        for rule in queries.alerts():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                anchor = rule["alert"].lower()
                self.assertEqual(rule["annotations"]["runbook"], f"docs/OPERATIONS.md#{anchor}")
        entries = re.findall(r"^### (Steadfast\w+)$", RUNBOOK, re.MULTILINE)
        self.assertEqual(entries, names, "the runbook has the alerts in their order")


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.board = queries.dashboard()

    def test_every_query_fits_the_documentation(self):
        for title, query, legend in queries.asked_by_dashboard(self.board):
            with self.subTest(title, query=query):
                self.assertEqual(list(queries.problems(query, legend, METRICS)), [])

    def test_wrong_queries_are_refused(self):
        chosen = 'network="$network", instance=~"$instance"'
        for query, legend, expected in [
            ("up", "", "names no metric"),
            ("steadfast_pool_served", "", "steadfast_pool_served is not in docs/METRICS.md"),
            (f'steadfast_pool_serves{{{chosen}, node="x"}}', "", "steadfast_pool_serves has no label node"),
            (f"sum by (node) (steadfast_held_calls{{{chosen}}})", "", "no metric has the label node"),
            ("steadfast_pool_serves", "", "is not asked for the chosen network"),
            ("steadfast_ws_connections", "", "is not asked for the chosen replicas"),
            (f"steadfast_pool_serves{{{chosen}}}", "{{node}}", "the legend names node"),
            (f"sum by (layer) (steadfast_node_lag{{{chosen}}})", "{{node}}", "the legend names node"),
        ]:
            with self.subTest(query):
                found = list(queries.problems(query, legend, METRICS))
                self.assertTrue(any(expected in line for line in found), found)

    def test_every_metric_is_shown(self):
        shown = " ".join(query for _, query, _ in queries.asked_by_dashboard(self.board))
        asked = {queries.HISTOGRAM.sub("", name) for name, _ in queries.SELECTOR.findall(shown)}
        asked |= {name for name, _ in queries.SELECTOR.findall(shown)}
        # These two matter in a question about one chain's nodes, and not from day to day.
        self.assertEqual(
            METRICS.keys() - asked, {"steadfast_odd_logs_total", "steadfast_bloom_contradictions_total"}
        )

    def test_its_queries_are_promql(self):
        asked = list(queries.asked_by_dashboard(self.board))
        rules = [
            {"record": f"query:{n}", "expr": queries.filled(query)} for n, (_, query, _) in enumerate(asked)
        ]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            answer = promtool("check", "rules", file.name)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertIn(f"{len(rules)} rules found", answer.stdout)

    def test_the_panels_have_ids_and_places_of_their_own(self):
        panels = self.board["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        titles = [panel["title"] for panel in panels]
        self.assertEqual(len(set(titles)), len(titles))
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        self.assertEqual(len(set(cells)), len(cells), "panels overlap")
        self.assertLess(max(x for x, _ in cells), 24)

    def test_it_asks_the_datasource_that_the_reader_chooses(self):
        chosen = {"type": "prometheus", "uid": "${datasource}"}
        for panel in queries.panels(self.board):
            for asked in [panel, *panel["targets"]]:
                self.assertEqual(asked["datasource"], chosen)
        names = [variable["name"] for variable in self.board["templating"]["list"]]
        self.assertEqual(names, ["datasource", "network", "instance"])
