"""run.sh, with stand-ins for docker and kurtosis that write down how they were called."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from engine import PACKAGE, interpret, network_params

STAND_IN = """#!{bash}
printf '%s\\n' "{name} $*" >>"$CALLS"
{then}
"""
# The arguments are in a file that run.sh removes.
KEEP = """
[[ $1 == run ]] && cat "${@: -1}" >"$CALLS.args"
[[ $1 == port ]] && printf 'http://127.0.0.1:1234\\n'
exit 0
"""


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.bin = Path(folder.name)
        self.calls = self.bin / "calls"
        for tool in ("bash", "cat", "cp", "dirname", "mktemp", "rm"):
            (self.bin / tool).symlink_to(shutil.which(tool))

    def stand_in(self, name, then="exit 0"):
        path = self.bin / name
        path.write_text(STAND_IN.format(bash=shutil.which("bash"), name=name, then=then))
        path.chmod(0o755)

    def run_it(self, *arguments, **variables):
        environment = {"PATH": str(self.bin), "CALLS": str(self.calls), "TMPDIR": str(self.bin)} | variables
        return subprocess.run(
            ["bash", PACKAGE / "run.sh", *arguments], env=environment, cwd="/", capture_output=True, text=True
        )

    def called(self):
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def test_without_an_engine_it_says_so(self):
        answer = self.run_it()
        self.assertEqual((answer.returncode, answer.stdout), (1, ""))
        self.assertIn("kurtosis/run.sh: Kurtosis is not installed", answer.stderr)
        self.stand_in("kurtosis")
        self.assertIn("Docker is not installed", self.run_it().stderr)
        self.stand_in("docker", "exit 1")
        answer = self.run_it()
        self.assertEqual(answer.returncode, 1)
        self.assertIn("its engine does not answer", answer.stderr)
        self.assertEqual(self.called(), ["docker info"])

    def test_it_builds_starts_and_prints_the_ports(self):
        self.stand_in("kurtosis", KEEP)
        self.stand_in("docker")
        answer = self.run_it()
        self.assertEqual(answer.returncode, 0, answer.stderr)
        calls = self.called()
        self.assertEqual(calls[:2], ["docker info", "docker build --tag steadfast:kurtosis ."])
        self.assertRegex(calls[2], r"^kurtosis run --enclave steadfast kurtosis --args-file /\S+$")
        self.assertEqual(
            calls[3:],
            [
                f"kurtosis port print steadfast {port}"
                for port in ("steadfast rpc", "steadfast admin", "prometheus http", "grafana http")
            ],
        )
        for name in ("clients", "admin", "prometheus", "grafana"):
            self.assertRegex(answer.stdout, rf"(?m)^{name} +http://127.0.0.1:1234")
        self.assertFalse(Path(calls[2].split()[-1]).exists(), "the file with the arguments is left")

    def test_the_plan_takes_its_arguments_and_has_its_ports(self):
        self.stand_in("kurtosis", KEEP)
        self.stand_in("docker")
        self.run_it()
        args = yaml.safe_load(Path(f"{self.calls}.args").read_text())
        plan = interpret(args)
        self.assertEqual(plan.network, network_params())
        self.assertEqual(plan.services["steadfast"]["image"], self.called()[1].split()[-2])
        for call in self.called()[3:]:
            *_, service, port = call.split()
            self.assertIn(port, plan.services[service]["ports"])

    def test_an_image_that_is_there_is_not_built(self):
        self.stand_in("kurtosis", KEEP)
        self.stand_in("docker")
        self.run_it(IMAGE="registry/steadfast:1", ENCLAVE="mine")
        self.assertFalse([call for call in self.called() if call.startswith("docker build")])
        self.assertIn("kurtosis run --enclave mine ", "\n".join(self.called()))
        self.assertEqual(
            yaml.safe_load(Path(f"{self.calls}.args").read_text())["steadfast_params"],
            {"image": "registry/steadfast:1"},
        )

    def test_down_removes_the_enclave(self):
        self.stand_in("kurtosis")
        self.stand_in("docker")
        self.assertEqual(self.run_it("down").returncode, 0)
        self.assertEqual(self.called()[-1], "kurtosis enclave rm --force steadfast")

    def test_another_word_is_refused(self):
        answer = self.run_it("upp")
        self.assertEqual(answer.returncode, 1)
        self.assertIn("'upp' is not one of up, ports, down", answer.stderr)
        self.assertTrue(os.access(PACKAGE / "run.sh", os.X_OK))
