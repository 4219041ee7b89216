"""What ethereum-package would refuse of its arguments, by package_parameters.yaml and by the rules below."""

from pathlib import Path

import yaml

TABLE = yaml.safe_load((Path(__file__).parent / "package_parameters.yaml").read_text())

TYPES = {
    "string": str,
    "int": int,
    "bool": bool,
    "map": dict,
    "list": list,
    "null": type(None),
}
# What the package puts in place of what is left out, as far as the rules ask for it.
MAINNET = {"seconds_per_slot": 12, "slot_duration_ms": 12000}
MINIMAL = {"seconds_per_slot": 6, "slot_duration_ms": 6000}
VALIDATORS = 128
NETWORK_ID = "3151908"


def problems(args):
    """One line for each problem; no line if the package would take the arguments."""
    if not isinstance(args, dict):
        return ["the arguments must be a map"]
    found = list(unknown_or_wrong(args))
    # Rules need keys and types in order.
    return found or list(broken_rules(args))


def unknown_or_wrong(args):
    for key, value in args.items():
        if key == "participants":
            if not isinstance(value, list) or not value:
                yield "participants: must be a list with at least one entry"
                continue
            for index, participant in enumerate(value):
                yield from section(f"participants[{index}]", participant, TABLE["participants"])
        elif key == "network_params":
            yield from section(key, value, TABLE["network_params"])
        elif key == "additional_services":
            if not isinstance(value, list):
                yield "additional_services: must be a list"
                continue
            for service in value:
                if service not in TABLE["additional_services"]:
                    yield f"additional_services: {service!r} is not one of the package's services"
        elif key == "port_publisher":
            rules = TABLE[key]
            yield from section(key, value, dict.fromkeys(rules["all"] + rules["kinds"], "any"))
            for kind in rules["kinds"]:
                if isinstance(value, dict) and kind in value:
                    yield from section(f"{key}.{kind}", value[kind], dict.fromkeys(rules["each"], "any"))
        elif key in TABLE["sections"]:
            yield from section(key, value, dict.fromkeys(TABLE["sections"][key], "any"))
        elif key in TABLE["root"]:
            yield from wrong(key, value, TABLE["root"][key])
        else:
            yield f"{key}: is not a known key"


def section(path, value, keys):
    if not isinstance(value, dict):
        yield f"{path}: must be a map"
        return
    for key, inner in value.items():
        if key in keys:
            yield from wrong(f"{path}.{key}", inner, keys[key])
        else:
            yield f"{path}.{key}: is not a known key"


def wrong(path, value, kind):
    if isinstance(kind, list):
        if value not in kind:
            yield f"{path}: {value!r} is not one of {kind}"
    elif kind == "list of strings":
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            yield f"{path}: must be a list of strings"
    elif kind != "any" and type(value) not in [TYPES[name] for name in kind.split(" or ")]:
        yield f"{path}: {value!r} is not of type {kind}"


def broken_rules(args):
    network = args.get("network_params", {})
    participants = [one for one in args.get("participants", [{}]) for _ in range(one.get("count", 1))]
    defaults = MINIMAL if network.get("preset") == "minimal" else MAINNET

    if not participants:
        yield "participants: counts are all 0"
    if network.get("network", "kurtosis") != "kurtosis":
        yield "network_params.network: another network than a private one has rules that are not written down here"
    if not network.get("network_id", NETWORK_ID).strip():
        yield "network_params.network_id: is empty"

    seconds = network.get("seconds_per_slot", defaults["seconds_per_slot"])
    millis = network.get("slot_duration_ms", defaults["slot_duration_ms"])
    if seconds <= 0:
        yield "network_params.seconds_per_slot: must be more than 0"
    # One of the two may be left out; a value that equals the default counts as left out.
    both = (seconds != defaults["seconds_per_slot"]) == (millis != defaults["slot_duration_ms"])
    if both and millis != seconds * 1000:
        yield "network_params: seconds_per_slot and slot_duration_ms contradict each other"
    for index, one in enumerate(participants):
        if one.get("cl_type") == "nimbus":
            if defaults is MINIMAL and seconds != 6 or defaults is MAINNET and seconds < 12:
                yield f"participants[{index}]: nimbus does not run with slots of {seconds} s"
        if one.get("use_remote_signer") and one.get("use_separate_vc") is False:
            yield f"participants[{index}]: use_remote_signer needs use_separate_vc"
    if (
        participants
        and participants[0].get("el_type") == "dummy"
        and "bootnodoor" not in args.get("additional_services", [])
    ):
        yield "participants[0]: the first participant is the boot node, and a dummy cannot be"

    # Fulu is on from genesis unless it is put off, and some node must then have all data columns.
    validators = network.get("num_validator_keys_per_node", VALIDATORS)
    if network.get("fulu_fork_epoch", 0) < 2**64 - 1:
        if network.get("perfect_peerdas_enabled"):
            if len(participants) < 16:
                yield "network_params.perfect_peerdas_enabled: needs 16 participants"
        elif not any(
            one.get("supernode") or (one.get("validator_count") or validators) >= 128 for one in participants
        ):
            yield "participants: Fulu needs a supernode, or a node with 128 validators"
