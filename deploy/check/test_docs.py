"""What docs say of files, tests, settings and metrics is there."""

import re
import unittest
from unittest import mock

import queries
from queries import ROOT
from test_manifests import starts

SECURITY = (ROOT / "docs" / "SECURITY.md").read_text()
NAMES = ("OPERATIONS.md", "OUTBOX.md", "SECURITY.md", "QUICKSTART.md", "MIGRATION.md", "ERRORS.md", "GLOSSARY.md")
PAGES = [ROOT / "docs" / name for name in NAMES]
# Methods and subscriptions of ours, which are named as metrics are.
CALLS = {"steadfast_getTransactionStatus", "steadfast_transaction"}
PAGES += [ROOT / "deploy" / "README.md", ROOT / "README.md"]


def anchors(path):
    """The places in a page that a link may lead to."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


class Docs(unittest.TestCase):
    def test_every_test_that_is_named_is_there(self):
        named = 0
        for part in re.findall(r"`(?:tests/\S+\.rs|features/\S+\.feature)`: [^|;]*", SECURITY):
            file, rest = re.match(r"`([^`]*)`: (.*)", part).groups()
            text = (ROOT / file).read_text()
            if file.endswith(".feature"):
                expected = [] if "whole file" in rest else [f"Scenario: {rest.strip()}\n"]
            else:
                expected = [f"fn {name}(" for name in re.findall(r"`(\w+)`", rest)]
            for line in expected:
                named += 1
                with self.subTest(file):
                    self.assertIn(line, text)
        self.assertGreater(named, 40)

    def test_every_link_leads_somewhere(self):
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
                if re.match(r"https?:", target):
                    continue
                path, _, anchor = target.partition("#")
                found = (page.parent / path).resolve() if path else page
                with self.subTest(page.name, target=target):
                    self.assertTrue(found.exists())
                    if anchor:
                        self.assertIn(anchor, anchors(found))

    def test_every_metric_that_is_named_is_there(self):
        metrics = queries.documented()
        for page in PAGES:
            for name in set(re.findall(r"\bsteadfast_\w+", page.read_text())) - CALLS:
                with self.subTest(page.name, name=name):
                    self.assertIn(name, metrics)

    def test_the_binary_takes_every_settings_file_that_is_shown(self):
        for page in PAGES:
            for number, shown in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S), 1):
                with self.subTest(page.name, number=number):
                    # A path below the folder of the file, since the test may not write elsewhere.
                    shown = shown.replace('dir = "/var/lib/', 'dir = "')
                    starts(self, re.sub(r'\$\{\w+\}', "secret", shown))

    def test_the_receivers_check_of_a_signature_is_right(self):
        code = re.search(r"^```python\n(.*?)^```", (ROOT / "docs" / "OUTBOX.md").read_text(), re.M | re.S)[1]
        shown = {}
        exec(code, shown)
        secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
        # The vector that the libraries of the Standard Webhooks are tested with.
        headers = {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
        with mock.patch("time.time", return_value=1614265330):
            self.assertTrue(shown["verify"](secret, headers, body))
            self.assertFalse(shown["verify"](secret, headers, body + b" "))
        self.assertFalse(shown["verify"](secret, headers, body), "it was signed long ago")
