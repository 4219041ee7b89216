"""main.star, interpreted up to the plan of services."""

import re
import tomllib
import unittest
import unittest.mock
from pathlib import Path

import yaml

from engine import PACKAGE, Refused, fill, ignored, interpret, network_params

ROOT = PACKAGE.parent


def ports(service):
    return {name: port["number"] for name, port in service["ports"].items()}


class PlanOfServices(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plan = interpret(network_params())

    def mounted(self, service, path):
        mount, name = path.rsplit("/", 1)
        return self.plan.artifacts[self.plan.services[service]["files"][mount]][name]

    def test_the_package_is_what_is_read_and_no_checks(self):
        files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()]
        kept = {str(path) for path in files if not ignored(path)} - {"grafana/steadfast.json"}
        self.assertEqual(
            kept,
            {
                ".kurtosisignore",
                "grafana/dashboards.yml",
                "grafana/datasource.yml.tmpl",
                "kurtosis.yml",
                "main.star",
                "network_params.yaml",
                "prometheus.yml.tmpl",
                "run.sh",
                "steadfast.toml.tmpl",
            },
        )
        with unittest.mock.patch("engine.ignored", lambda path: path.name == "main.star" or path.suffix == ".tmpl"):
            with self.assertRaisesRegex(Refused, "tmpl: .kurtosisignore keeps it out"):
                interpret(network_params())

    def test_the_services_are_ours_in_order(self):
        self.assertEqual(list(self.plan.services), ["steadfast", "prometheus", "grafana"])

    def test_the_network_gets_its_arguments_and_none_of_ours(self):
        args = network_params() | {"steadfast_params": {"image": "steadfast:other"}}
        plan = interpret(args)
        self.assertEqual(plan.network, network_params())
        self.assertEqual(plan.services["steadfast"]["image"], "steadfast:other")

    def test_steadfast_runs_as_its_image_says(self):
        service = self.plan.services["steadfast"]
        self.assertEqual(service["image"], "steadfast:kurtosis")
        self.assertEqual(service["entrypoint"], [], "the image's own")
        self.assertEqual(service["cmd"], ["run", "--config", "/etc/steadfast/steadfast.toml"])
        self.assertEqual(ports(service), {"rpc": 8545, "admin": 9545})
        exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
        self.assertEqual(exposed.split(), [str(port) for port in ports(service).values()])
        ready = service["ready_conditions"]
        self.assertEqual((ready["recipe"]["port_id"], ready["recipe"]["endpoint"]), ("admin", "/readyz"))
        self.assertEqual((ready["field"], ready["assertion"], ready["target_value"]), ("code", "==", 200))

    def test_the_first_two_pairs_are_primaries(self):
        settings = tomllib.loads(self.mounted("steadfast", "/etc/steadfast/steadfast.toml"))
        names = {
            (side, tier): [node["name"] for node in settings[side][tier]]
            for side in ("el", "cl")
            for tier in ("primary", "backup")
        }
        self.assertEqual(
            names,
            {
                ("el", "primary"): ["geth-1", "reth-2"],
                ("el", "backup"): ["geth-3", "reth-4"],
                ("cl", "primary"): ["lighthouse-1", "lodestar-2"],
                ("cl", "backup"): ["lighthouse-3", "lodestar-4"],
            },
        )
        self.assertEqual(
            settings["el"]["backup"][0],
            {
                "name": "geth-3",
                "http": "http://el-3-geth-lighthouse:8545",
                "ws": "ws://el-3-geth-lighthouse:8546",
                "pair": "3",
            },
        )
        self.assertEqual(
            settings["cl"]["backup"][0],
            {"name": "lighthouse-3", "http": "http://cl-3-lighthouse-geth:4000", "pair": "3"},
        )
        self.assertEqual(settings["chain_id"], 3151908)
        self.assertEqual((settings["listen"], settings["admin"]["listen"]), ("0.0.0.0:8545", "0.0.0.0:9545"))

    def test_a_client_without_a_websocket_has_none_in_the_settings(self):
        addresses = [(f"http://10.0.0.{n}:8545", "", f"http://10.0.1.{n}:4000") for n in range(4)]
        settings = tomllib.loads(
            interpret(network_params(), addresses).artifacts["steadfast-settings"]["steadfast.toml"]
        )
        self.assertNotIn("ws", settings["el"]["primary"][0])

    def test_the_number_of_primaries_is_a_choice(self):
        plan = interpret(network_params() | {"steadfast_params": {"primaries": 3}})
        settings = tomllib.loads(plan.artifacts["steadfast-settings"]["steadfast.toml"])
        self.assertEqual([len(settings["el"][tier]) for tier in ("primary", "backup")], [3, 1])

    def test_a_participant_that_counts_twice_is_two_pairs(self):
        args = network_params()
        args["participants"] = args["participants"][:2]
        args["participants"][1]["count"] = 2
        settings = tomllib.loads(interpret(args).artifacts["steadfast-settings"]["steadfast.toml"])
        self.assertEqual([node["name"] for node in settings["el"]["backup"]], ["reth-3"])

    def test_prometheus_asks_steadfast_for_its_metrics(self):
        service = self.plan.services["prometheus"]
        self.assertRegex(service["image"], r":v\d+\.\d+\.\d+$")
        self.assertEqual(ports(service), {"http": 9090})
        self.assertIn("--config.file=/etc/steadfast/prometheus.yml", service["cmd"])
        settings = yaml.safe_load(self.mounted("prometheus", "/etc/steadfast/prometheus.yml"))
        (job,) = settings["scrape_configs"]
        self.assertEqual(
            (job["metrics_path"], job["static_configs"]), ("/metrics", [{"targets": ["steadfast:9545"]}])
        )

    def test_grafana_finds_prometheus_and_the_dashboard(self):
        service = self.plan.services["grafana"]
        self.assertRegex(service["image"], r":\d+\.\d+\.\d+$")
        self.assertEqual(ports(service), {"http": 3000})
        sources = yaml.safe_load(
            self.mounted("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml")
        )
        (source,) = sources["datasources"]
        self.assertEqual((source["url"], source["uid"]), ("http://prometheus:9090", "prometheus"))
        providers = yaml.safe_load(
            self.mounted("grafana", "/etc/grafana/provisioning/dashboards/dashboards.yml")
        )
        (provider,) = providers["providers"]
        self.assertIn(provider["options"]["path"], service["files"])
        self.mounted("grafana", provider["options"]["path"] + "/steadfast.json")

    def test_wrong_choices_are_refused(self):
        for choices, expected in [
            ({"imagee": "x"}, "steadfast_params.imagee is not a known key"),
            ({"primaries": 0}, "steadfast_params.primaries must be a number from 1 to 4"),
            ({"primaries": 5}, "steadfast_params.primaries must be a number from 1 to 4"),
            ({"primaries": "2"}, "steadfast_params.primaries must be a number from 1 to 4"),
        ]:
            with self.subTest(expected), self.assertRaisesRegex(Refused, re.escape(expected)):
                interpret(network_params() | {"steadfast_params": choices})

    def test_what_the_package_refuses_ends_the_run(self):
        with self.assertRaisesRegex(Refused, "participant: is not a known key"):
            interpret(network_params() | {"participant": []})


class Fake(unittest.TestCase):
    """The stand-in for Kurtosis refuses what Kurtosis does; else the tests above would prove nothing."""

    def refuses(self, old, new, expected):
        main = PACKAGE / "main.star"
        text = main.read_text()
        self.assertIn(old, text)
        with unittest.mock.patch.object(
            Path, "read_text", lambda path: text.replace(old, new) if path == main else READ(path)
        ):
            with self.assertRaisesRegex(Refused, expected):
                interpret(network_params())

    def test_it_refuses_another_version(self):
        self.refuses("main.star@6.1.0", "main.star@6.0.0", "6.0.0: is not github.com")

    def test_it_refuses_unknown_arguments(self):
        self.refuses("image = image,", "image = image, image_name = image,", "image_name")
        self.refuses("port_id = port", "port = port", "port_id")

    def test_it_refuses_files_that_are_not_there(self):
        self.refuses("./steadfast.toml.tmpl", "./steadfast.tmpl", "is not a file of this package")
        self.refuses("./grafana/steadfast.json", "../README.md", "is not a place in this package")

    def test_it_refuses_a_readiness_without_its_port(self):
        self.refuses(
            'answers("admin"', 'answers("metrics"', "readiness is asked at a port that it does not have"
        )

    def test_it_refuses_templates_that_do_not_fit(self):
        self.refuses('"chain_id": chain_id,', "", "nothing is given for {{ .chain_id }}")
        self.refuses('"chain_id": chain_id,', '"chain_id": chain_id, "id": 1,', "has no place for id")
        with self.assertRaisesRegex(Refused, "more of Go's templates"):
            fill("x", "{{ range .nodes }}", {})

    def test_it_refuses_names_that_kurtosis_does_not_take(self):
        self.refuses('name = "steadfast",', 'name = "Steadfast",', "is no name for a service")


READ = Path.read_text
