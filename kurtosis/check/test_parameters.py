"""network_params.yaml holds nothing that ethereum-package would refuse."""

import copy
import unittest

from engine import network_params
from parameters import TABLE, problems


def changed(change):
    args = copy.deepcopy(network_params())
    change(args)
    return args


def put(path, value):
    """Sets what stands at `path`, such as `participants.0.el_type`."""

    def change(args):
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in steps:
            args = args[step]
        args[last] = value

    return change


class Parameters(unittest.TestCase):
    def test_ours_are_known_and_right(self):
        self.assertEqual(problems(network_params()), [])

    def test_ours_are_two_primary_and_two_backup_pairs_of_two_kinds(self):
        pairs = [(one["el_type"], one["cl_type"]) for one in network_params()["participants"]]
        self.assertEqual(len(pairs), 4)
        self.assertEqual(len(set(pairs[:2])), 2)
        self.assertEqual(set(pairs[:2]), set(pairs[2:]))
        self.assertEqual(network_params()["network_params"]["preset"], "minimal")
        self.assertLess(network_params()["network_params"]["seconds_per_slot"], 12)

    def test_wrong_ones_are_refused(self):
        for change, expected in [
            (put("participant", []), "participant: is not a known key"),
            (
                put("participants.0.el_client_type", "geth"),
                "participants[0].el_client_type: is not a known key",
            ),
            (put("participants.1.el_type", "gethh"), "participants[1].el_type: 'gethh' is not one of"),
            (put("participants.1.cl_type", "geth"), "participants[1].cl_type: 'geth' is not one of"),
            (
                put("participants.2.supernode", "true"),
                "participants[2].supernode: 'true' is not of type bool",
            ),
            (put("participants.2.count", "1"), "participants[2].count: '1' is not of type int"),
            (put("participants.2.count", True), "participants[2].count: True is not of type int"),
            (
                put("participants.3.el_extra_params", "--v"),
                "participants[3].el_extra_params: must be a list of strings",
            ),
            (
                put("participants.3.el_extra_params", [1]),
                "participants[3].el_extra_params: must be a list of strings",
            ),
            (put("participants.3", "geth"), "participants[3]: must be a map"),
            (put("participants", {}), "participants: must be a list"),
            (put("participants", []), "participants: must be a list with at least one entry"),
            (put("network_params", []), "network_params: must be a map"),
            (
                put("network_params.network_id", 3151908),
                "network_params.network_id: 3151908 is not of type string",
            ),
            (put("network_params.network_id", " "), "network_params.network_id: is empty"),
            (put("network_params.preset", "small"), "network_params.preset: 'small' is not one of"),
            (
                put("network_params.slots_per_second", 4),
                "network_params.slots_per_second: is not a known key",
            ),
            (
                put("network_params.seconds_per_slot", 0),
                "network_params.seconds_per_slot: must be more than 0",
            ),
            (
                put("network_params.slot_duration_ms", 5000),
                "seconds_per_slot and slot_duration_ms contradict",
            ),
            (put("network_params.network", "hoodi"), "network_params.network: another network"),
            (put("network_params.perfect_peerdas_enabled", True), "needs 16 participants"),
            (
                put("participants.0.el_type", "dummy"),
                "participants[0]: the first participant is the boot node",
            ),
            (
                put("participants.0.cl_type", "nimbus"),
                "participants[0]: nimbus does not run with slots of 4 s",
            ),
            (
                put("additional_services", ["prometheus_grafanna"]),
                "additional_services: 'prometheus_grafanna' is not one",
            ),
            (put("additional_services", "dora"), "additional_services: must be a list"),
            (put("global_log_level", "loud"), "global_log_level: 'loud' is not one of"),
            (put("mev_type", "full"), "mev_type: 'full' is not one of"),
            (put("wait_for_finalization", "no"), "wait_for_finalization: 'no' is not of type bool"),
            (put("grafana_params", {"dashboards": []}), "grafana_params.dashboards: is not a known key"),
            (put("port_publisher", {"ell": {}}), "port_publisher.ell: is not a known key"),
            (
                put("port_publisher", {"el": {"enable": True}}),
                "port_publisher.el.enable: is not a known key",
            ),
            (put("port_publisher", {"el": True}), "port_publisher.el: must be a map"),
            (put("port_publisher", []), "port_publisher: must be a map"),
            (put("steadfast_params", {}), "steadfast_params: is not a known key"),
        ]:
            with self.subTest(expected):
                found = problems(changed(change))
                self.assertTrue(any(expected in line for line in found), f"{expected!r} is not among {found}")

    def test_fulu_needs_a_node_with_all_columns(self):
        def no_supernodes(args):
            for one in args["participants"]:
                del one["supernode"]

        self.assertEqual(
            problems(changed(no_supernodes)),
            ["participants: Fulu needs a supernode, or a node with 128 validators"],
        )

        def many_validators(args):
            no_supernodes(args)
            args["network_params"]["num_validator_keys_per_node"] = 128

        self.assertEqual(problems(changed(many_validators)), [])

    def test_each_section_takes_its_keys_and_no_other(self):
        ports = {kind: dict.fromkeys(TABLE["port_publisher"]["each"]) for kind in TABLE["port_publisher"]["kinds"]}
        sections = TABLE["sections"] | {"port_publisher": ports | {"nat_exit_ip": "127.0.0.1"}}
        for name, keys in sections.items():
            with self.subTest(name):
                given = keys if isinstance(keys, dict) else dict.fromkeys(keys)
                self.assertEqual(problems(changed(put(name, given))), [])
                found = problems(changed(put(name, given | {"no_such_key": 1})))
                self.assertEqual(found, [f"{name}.no_such_key: is not a known key"])
        for service in TABLE["additional_services"]:
            self.assertEqual(problems(changed(put("additional_services", [service]))), [])

    def test_every_type_of_the_table_is_one(self):
        for section in ("root", "participants", "network_params"):
            for key, kind in TABLE[section].items():
                with self.subTest(f"{section}.{key}"):
                    value = (
                        kind[0]
                        if isinstance(kind, list)
                        else {"s": "", "i": 1, "b": True, "m": {}, "l": []}[kind[0]]
                    )
                    args = (
                        {key: value}
                        if section == "root"
                        else {section: [{key: value}] if section == "participants" else {key: value}}
                    )
                    self.assertEqual(
                        [line for line in problems(args) if "type" in line or "known" in line], []
                    )
