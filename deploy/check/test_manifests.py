"""Unit, chart, manifests and compose file: each by the tool that its reader uses, and against the
binary, its image and docs/CONFIG.md."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from live import STEADFAST, Programs, ask, wait_for
from queries import DEPLOY, ROOT

CHART = DEPLOY / "helm" / "steadfast"
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
CONFIG = (ROOT / "docs" / "CONFIG.md").read_text()
KUBERNETES = ("1.30", "1.33", "1.37")
# `nonroot` in distroless images.
USER = 65532
# The files of deploy/kubernetes, and what of the chart each is.
PLAIN = {
    "steadfast.yaml": ["--set", "restartOnChange=false"],
    "servicemonitor.yaml": [
        *["--set", "serviceMonitor.enabled=true"],
        *["--show-only", "templates/servicemonitor.yaml"],
    ],
}
HEAD = """# Written from deploy/helm/steadfast; deploy/check.sh compares. To change: the nodes in the
# ConfigMap, the image, and the namespaces that may reach the admin side.
"""


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def default(key):
    """The default of a setting, as docs/CONFIG.md has it."""
    return re.search(rf"^\| `{re.escape(key)}` \| `\"?([^\"`]*)\"?` \|", CONFIG, re.MULTILINE)[1]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def port(address):
    return int(address.rsplit(":", 1)[1])


def longest_end():
    """The seconds that the end of a process takes at most, with the defaults."""
    source = (ROOT / "src" / "app" / "cluster.rs").read_text()
    store = int(re.search(r"^const LEAVE_TIMEOUT: Duration = Duration::from_secs\((\d+)\);", source, re.MULTILINE)[1])
    # Calls end, and the cluster is left, at the same time; then spans are sent.
    leaving = seconds(default("cluster.on_hook_timeout")) + store
    return max(seconds(default("shutdown_grace")), leaving) + 3


RPC, ADMIN = port(default("listen")), port(default("admin.listen"))


def rendered(*arguments):
    answer = run(
        os.environ["HELM"], "template", "steadfast", CHART, "--kube-version", "1.33", *arguments
    )
    if answer.returncode:
        raise AssertionError(answer.stderr)
    return re.sub(r"^# Source: .*\n", "", answer.stdout, flags=re.MULTILINE)


def starts(test, settings):
    """The binary takes these settings and is alive."""
    programs = Programs(test.addCleanup)
    file = programs.folder / "steadfast.toml"
    file.write_text(settings)
    admin = programs.steadfast("run", "--config", file).admin
    test.assertTrue(ask(f"{admin}/livez"))


class Kubernetes(unittest.TestCase):
    def test_the_chart_passes_helms_own_check(self):
        answer = run(os.environ["HELM"], "lint", "--strict", CHART)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_wrong_values_are_refused(self):
        for wrong in (
            "replica=3",
            "replicas=two",
            "image.repository=",
            "service.port=0",
            "shutdown.preStopSeconds=0",
            "podDisruptionBudget.min=1",
            "outbox.dir=var",
            "outbox.size=much",
        ):
            with self.subTest(wrong), self.assertRaises(AssertionError):
                rendered("--set", wrong)

    def test_what_it_makes_fits_the_schemas_of_kubernetes(self):
        everything = [
            *["--set", "serviceMonitor.enabled=true,serviceMonitor.labels.release=x,secret=keys"],
            *["--set", "nodeSelector.disk=fast,service.annotations.a=b"],
            *["--set-json", 'tolerations=[{"key":"a","operator":"Exists"}]'],
            *["--set-json", 'affinity={"podAntiAffinity":{}}'],
        ]
        for arguments in ([], everything, ["--set", "outbox.enabled=true,outbox.storageClass=fast"]):
            for resource in yaml.safe_load_all(rendered(*arguments)):
                if resource["kind"] == "ServiceMonitor":
                    continue
                for version in KUBERNETES:
                    with self.subTest(resource["kind"], version=version):
                        kubernetes_validate.validate(resource, version, strict=True)

    def test_the_plain_manifests_are_what_it_makes(self):
        for name, arguments in PLAIN.items():
            path = DEPLOY / "kubernetes" / name
            expected = HEAD + rendered(*arguments)
            if os.environ.get("UPDATE"):
                path.write_text(expected)
            with self.subTest(name):
                self.assertEqual(path.read_text(), expected, "UPDATE=1 deploy/check.sh writes it anew")

    def test_the_pods_are_as_the_binary_and_its_image_need_them(self):
        resources = {(one["kind"], one["metadata"]["name"]): one for one in self.plain()}
        pod = resources["Deployment", "steadfast"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        ports = {one["name"]: one["containerPort"] for one in container["ports"]}
        self.assertEqual(ports, {"rpc": RPC, "admin": ADMIN})
        exposed = re.search(r"^EXPOSE (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]
        self.assertEqual(exposed.split(), [str(RPC), str(ADMIN)])
        probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
        self.assertEqual(probes["livenessProbe"], {"path": "/livez", "port": "admin"})
        self.assertEqual(probes["readinessProbe"], {"path": "/readyz", "port": "admin"})
        self.assertEqual(container["image"], f"steadfast:{VERSION}")
        # The pod outlives its wait, its grace time, and the leaving of a cluster.
        settings = resources["ConfigMap", "steadfast"]["data"]["steadfast.toml"]
        grace = seconds(tomllib.loads(settings).get("shutdown_grace", default("shutdown_grace")))
        wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.assertGreater(pod["terminationGracePeriodSeconds"], wait + max(grace, longest_end()))
        # While no node serves, calls wait in the pod, and it stays where they come.
        ready = container["readinessProbe"]
        self.assertGreater(ready["periodSeconds"] * ready["failureThreshold"], seconds(default("calls.hold")))
        # Selectors find the pods, and ports their names.
        labels = resources["Deployment", "steadfast"]["spec"]["template"]["metadata"]["labels"]
        for name, target in (("steadfast", "rpc"), ("steadfast-admin", "admin")):
            service = resources["Service", name]["spec"]
            self.assertLessEqual(service["selector"].items(), labels.items())
            self.assertEqual([one["targetPort"] for one in service["ports"]], [target])
        for kind in ("PodDisruptionBudget", "NetworkPolicy"):
            spec = resources[kind, "steadfast"]["spec"]
            selector = spec.get("selector") or spec["podSelector"]
            self.assertLessEqual(selector["matchLabels"].items(), labels.items())
        starts(self, settings)

    def test_each_pod_with_an_outbox_finds_its_volume_again(self):
        """U49, U55: the volume is the image's user's to write, and the settings' default."""
        resources = list(yaml.safe_load_all(rendered("--set", "outbox.enabled=true,outbox.storageClass=fast")))
        self.assertNotIn("Deployment", [one["kind"] for one in resources])
        (found,) = [one["spec"] for one in resources if one["kind"] == "StatefulSet"]
        (claim,) = found["volumeClaimTemplates"]
        self.assertEqual(claim["spec"]["storageClassName"], "fast")
        pod = found["template"]["spec"]
        (container,) = pod["containers"]
        mounts = {one["name"]: one for one in container["volumeMounts"]}
        mount = mounts[claim["metadata"]["name"]]
        self.assertEqual((mount["mountPath"], mount.get("readOnly")), (default("outbox.dir"), None))
        security = pod["securityContext"]
        self.assertEqual([security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")], [USER] * 3)
        services = [one["metadata"]["name"] for one in resources if one["kind"] == "Service"]
        self.assertIn(found["serviceName"], services)
        named = {(one["kind"], one["metadata"]["name"]): one["spec"] for one in resources if "spec" in one}
        # A client asks the pod that has its transactions.
        self.assertEqual(named["Service", "steadfast"]["sessionAffinity"], "ClientIP")
        self.assertIn("volumeClaimTemplates", rendered("--set", "outbox.enabled=true"))
        self.assertNotIn("volumeClaimTemplates", rendered())

    def test_the_monitor_finds_the_admin_side_and_names_the_job(self):
        (monitor,) = yaml.safe_load_all((DEPLOY / "kubernetes" / "servicemonitor.yaml").read_text())
        services = [one for one in self.plain() if one["kind"] == "Service"]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (found,) = [one for one in services if wanted <= one["metadata"]["labels"].items()]
        (endpoint,) = monitor["spec"]["endpoints"]
        self.assertEqual([one["name"] for one in found["spec"]["ports"]], [endpoint["port"]])
        self.assertEqual(endpoint["path"], "/metrics")
        self.assertEqual(endpoint["relabelings"], [{"targetLabel": "job", "replacement": "steadfast"}])

    def plain(self):
        return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "steadfast.yaml").read_text()))


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]

    def test_every_file_that_is_mounted_is_there(self):
        for name, service in self.services.items():
            for volume in service["volumes"]:
                source = volume.split(":")[0]
                if source.startswith("."):
                    with self.subTest(name, source=source):
                        self.assertTrue((DEPLOY / source).exists())

    def test_the_outbox_has_a_volume(self):
        """U50."""
        volumes = [volume.split(":") for volume in self.services["steadfast"]["volumes"]]
        (name,) = [source for source, target, *_ in volumes if target == default("outbox.dir")]
        self.assertIn(name, yaml.safe_load((DEPLOY / "compose.yml").read_text())["volumes"])

    def test_the_parts_find_one_another(self):
        proxy = self.services["steadfast"]
        self.assertEqual(proxy["ports"], [f"127.0.0.1:{one}:{one}" for one in (RPC, ADMIN)])
        self.assertEqual(proxy["image"], f"steadfast:{VERSION}")
        self.assertGreater(seconds(proxy["stop_grace_period"]), longest_end())
        prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        (job,) = prometheus["scrape_configs"]
        self.assertEqual(
            (job["job_name"], job["static_configs"]), ("steadfast", [{"targets": [f"steadfast:{ADMIN}"]}])
        )
        provisioning = DEPLOY / "grafana" / "provisioning"
        (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
        self.assertEqual((source["url"], source["isDefault"]), ("http://prometheus:9090", True))
        (provider,) = yaml.safe_load((provisioning / "dashboards" / "steadfast.yml").read_text())["providers"]
        mounted = [volume.split(":")[1] for volume in self.services["grafana"]["volumes"]]
        self.assertIn(provider["options"]["path"] + "/steadfast.json", mounted)

    def test_prometheus_takes_its_settings_and_the_alerts(self):
        answer = run(os.environ["PROMTOOL"], "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_the_binary_takes_its_settings(self):
        self.assertEqual(self.services["steadfast"]["command"][0], "run")
        starts(self, (DEPLOY / "steadfast.toml").read_text())


class ComposeOfACluster(unittest.TestCase):
    """U50."""

    @classmethod
    def setUpClass(cls):
        cls.file = yaml.safe_load((DEPLOY / "compose.cluster.yml").read_text())
        cls.services = cls.file["services"]
        cls.replicas = {name: one for name, one in cls.services.items() if name.startswith("steadfast")}

    def mounts(self, service):
        return dict(reversed(volume.split(":")[:2]) for volume in service["volumes"])

    def test_three_replicas_are_the_same_but_for_their_own(self):
        self.assertEqual(len(self.replicas), 3)
        own = ("hostname", "ports", "volumes")
        alike = [{key: one[key] for key in one if key not in own} for one in self.replicas.values()]
        self.assertEqual(alike, [alike[0]] * 3)
        single = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]["steadfast"]
        self.assertEqual(alike[0], {key: single[key] for key in single if key not in own})
        for name, one in self.replicas.items():
            # `${HOSTNAME}` names the replica in the cluster.
            self.assertEqual(one["hostname"], name)
        ports = [port for one in self.services.values() for port in one.get("ports", [])]
        self.assertTrue(all(port.startswith("127.0.0.1:") for port in ports), ports)
        self.assertEqual(len({port.split(":")[1] for port in ports}), len(ports))
        inside = [[int(port.split(":")[2]) for port in one["ports"]] for one in self.replicas.values()]
        self.assertEqual(inside, [[RPC, ADMIN]] * 3)

    def test_each_store_has_a_volume_of_its_own(self):
        folders = [self.mounts(one)[default("outbox.dir")] for one in self.replicas.values()]
        self.assertEqual(len(set(folders)), 3)
        settings = tomllib.loads((DEPLOY / "cluster.toml").read_text())
        self.assertEqual([settings[key]["dir"] for key in ("cluster", "outbox")], [default("outbox.dir")] * 2)
        nats = self.services["nats"]
        store = next(word.split("=")[1] for word in nats["command"] if word.startswith("--store_dir="))
        named = [*folders, self.mounts(nats)[store], self.mounts(self.services["prometheus"])["/prometheus"]]
        self.assertEqual(sorted(self.file["volumes"]), sorted(named))
        for name, service in self.services.items():
            for source in self.mounts(service).values():
                if source.startswith("."):
                    with self.subTest(name, source=source):
                        self.assertTrue((DEPLOY / source).exists())

    def test_every_service_has_a_health_check_on_its_own_loopback(self):
        for name, service in self.services.items():
            with self.subTest(name):
                if name in self.replicas:
                    # The image's own, by /livez of the admin side: no node and no NATS is asked.
                    self.assertNotIn("healthcheck", service)
                    self.assertIn(f"--admin-listen=0.0.0.0:{ADMIN}", service["command"])
                else:
                    url = service["healthcheck"]["test"][-1]
                    self.assertRegex(url, r"^http://127\.0\.0\.1:\d+/")
                self.assertNotIn("nats", service.get("depends_on", []))

    def test_the_parts_find_one_another(self):
        file = DEPLOY / "prometheus" / "cluster.yml"
        (job,) = yaml.safe_load(file.read_text())["scrape_configs"]
        targets = [f"{name}:{ADMIN}" for name in self.replicas]
        self.assertEqual((job["job_name"], job["static_configs"]), ("steadfast", [{"targets": targets}]))
        self.assertIn("--config.file=/etc/prometheus/cluster.yml", self.services["prometheus"]["command"])
        answer = run(os.environ["PROMTOOL"], "check", "config", file)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)
        settings = tomllib.loads((DEPLOY / "cluster.toml").read_text())
        self.assertEqual(settings["cluster"]["nats"], "nats://nats:4222")

    def test_three_binaries_with_its_settings_become_a_cluster(self):
        programs = Programs(self.addCleanup)
        nats = programs.nats()
        replicas = []
        for name in self.replicas:
            folder = programs.folder / name
            folder.mkdir()
            text = (DEPLOY / "cluster.toml").read_text()
            self.assertEqual(text.count(default("outbox.dir")), 2)
            text = text.replace(default("outbox.dir"), str(folder)).replace("nats://nats:4222", nats)
            (folder / "steadfast.toml").write_text(text.replace("${HOSTNAME}", name))
            replicas.append(programs.steadfast("run", "--config", folder / "steadfast.toml"))

        def status(replica):
            return json.loads(ask(f"{replica.admin}/status"))

        def agreed():
            views = [status(one)["cluster"]["view"] for one in replicas]
            members = [view and sorted(one["replica"] for one in view["members"]) for view in views]
            return members if members == [sorted(self.replicas)] * 3 else None

        wait_for(agreed, replicas[0].log)
        self.assertEqual([status(one)["outbox"]["store"] for one in replicas], ["writable"] * 3)


class Unit(unittest.TestCase):
    TEXT = (DEPLOY / "systemd" / "steadfast.service").read_text()
    SOCKET = (DEPLOY / "systemd" / "steadfast.socket").read_text()

    def test_systemd_takes_it_and_finds_it_safe(self):
        analyze = shutil.which("systemd-analyze")
        self.assertTrue(analyze, "no systemd-analyze here: run tests/install.sh")
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / "steadfast.service"
            unit.write_text(self.TEXT.replace("/usr/local/bin/steadfast", STEADFAST))
            socket = Path(folder) / "steadfast.socket"
            socket.write_text(self.SOCKET)
            answer = run(analyze, "verify", unit, socket)
            self.assertEqual((answer.returncode, answer.stderr), (0, ""))
            # Exposure from 0 to 10, in tenths.
            answer = run(analyze, "security", "--offline=true", "--threshold=15", unit)
            self.assertEqual(answer.returncode, 0, answer.stdout)

    def test_it_has_the_folder_of_the_outbox(self):
        state = re.search(r"^StateDirectory=(.*)$", self.TEXT, re.MULTILINE)[1]
        self.assertEqual(f"/var/lib/{state}", default("outbox.dir"))

    def test_its_sockets_outlive_the_service(self):
        # systemd removes a service's RuntimeDirectory= when the service stops.
        own = [f"/run/{name}/" for name in re.search(r"^RuntimeDirectory=(.*)$", self.TEXT, re.MULTILINE)[1].split()]
        files = re.findall(r"^#?ListenStream=(/.*)$", self.SOCKET, re.MULTILINE)
        self.assertTrue(files)
        for file in files:
            self.assertFalse(any(file.startswith(folder) for folder in own), file)

    def test_its_commands_and_times_are_the_binarys(self):
        for command in re.findall(r"^Exec\w+=/usr/local/bin/steadfast (.*)$", self.TEXT, re.MULTILINE):
            with self.subTest(command):
                self.assertEqual(run(STEADFAST, *command.split()[:1], "--help").returncode, 0)
        port = re.search(r"^ListenStream=(.*)$", self.SOCKET, re.MULTILINE)[1]
        self.assertEqual(port, default("listen"))
        stop = re.search(r"^TimeoutStopSec=(.*)$", self.TEXT, re.MULTILINE)[1]
        self.assertGreater(seconds(stop), longest_end())
