"""Interprets main.star without Kurtosis, up to the plan of services."""

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import Path

import starlark
import yaml

from parameters import TABLE, problems

CHECK = Path(__file__).parent
PACKAGE = CHECK.parent
ETHEREUM_PACKAGE = f"github.com/ethpandaops/ethereum-package/main.star@{TABLE['version']}"
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PLACE = re.compile(r"\{\{ \.(\w+) \}\}")


def ignored(path):
    """Whether Kurtosis leaves out the file, by .kurtosisignore: a line is a pattern of names, and
    with / at its end of folders, anywhere in the package."""
    lines = [line.strip() for line in (PACKAGE / ".kurtosisignore").read_text().splitlines()]
    patterns = [line for line in lines if line and not line.startswith("#")]
    return any(
        fnmatch.fnmatchcase(name, pattern.rstrip("/"))
        for pattern in patterns
        for name in (path.parts[:-1] if pattern.endswith("/") else path.parts)
    )


class Refused(Exception):
    """Kurtosis, or ethereum-package, would refuse what main.star asks for."""


@dataclass
class Plan:
    """What main.star asked for."""

    services: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    network: dict = None
    output: dict = None


def network_params():
    return yaml.safe_load((PACKAGE / "network_params.yaml").read_text())


def names(number, participant):
    """A pair's URLs, as the package makes them of its services' names since release 6.0.0."""
    el, cl = participant["el_type"], participant["cl_type"]
    return (
        f"http://el-{number}-{el}-{cl}:8545",
        f"ws://el-{number}-{el}-{cl}:8546",
        f"http://cl-{number}-{cl}-{el}:4000",
    )


def interpret(args, addresses=None):
    """Runs main.star with `args`. `addresses` has other URLs for each pair: (http, ws, beacon)."""
    plan = Plan()
    errors = []

    def locate(src):
        if not src.startswith("./"):
            raise Refused(f"{src}: is not a place in this package")
        path = (PACKAGE / src).resolve()
        if not path.is_relative_to(PACKAGE.resolve()) or not path.is_file():
            raise Refused(f"{src}: is not a file of this package")
        if ignored(path.relative_to(PACKAGE.resolve())):
            raise Refused(f"{src}: .kurtosisignore keeps it out of the package")
        return path

    def artifact(name, files):
        name = name or f"artifact-{len(plan.artifacts)}"
        if name in plan.artifacts:
            raise Refused(f"{name}: there is an artifact of that name")
        plan.artifacts[name] = files
        return name

    def upload(src, name):
        path = locate(src)
        return artifact(name, {path.name: path.read_text()})

    def render(config, name):
        return artifact(
            name, {path: fill(path, one["template"], one["data"]) for path, one in config.items()}
        )

    def service(name, config):
        if not SERVICE_NAME.fullmatch(name) or name in plan.services:
            raise Refused(f"{name}: is no name for a service, or is taken")
        for mount, source in config["files"].items():
            if not mount.startswith("/") or source not in plan.artifacts:
                raise Refused(f"{name}: {mount} is not absolute, or has no artifact")
        for port in config["ports"].values():
            if not 0 < port["number"] < 65536 or port["transport_protocol"] not in ("TCP", "UDP"):
                raise Refused(f"{name}: {port} is no port")
        ready = config["ready_conditions"]
        if ready and ready["recipe"]["port_id"] not in config["ports"]:
            raise Refused(f"{name}: its readiness is asked at a port that it does not have")
        plan.services[name] = config

    def network(given):
        if found := problems(given):
            raise Refused("; ".join(found))
        plan.network = given
        chosen = [one for one in given["participants"] for _ in range(one.get("count", 1))]
        where = addresses or [names(number, one) for number, one in enumerate(chosen, 1)]
        return {
            "network_id": given.get("network_params", {}).get("network_id", "3151908"),
            "pairs": [
                {
                    "el": {"client_name": one["el_type"], "rpc_http_url": http, "ws_url": ws},
                    "cl": {"client_name": one["cl_type"], "beacon_http_url": beacon},
                }
                for one, (http, ws, beacon) in zip(chosen, where, strict=True)
            ],
        }

    def import_module(locator):
        if locator != ETHEREUM_PACKAGE:
            raise Refused(f"{locator}: is not {ETHEREUM_PACKAGE}")

    def kept(function):
        # Starlark wraps an error of ours in its own, and its text alone would be left.
        def call(*given):
            try:
                return function(*given)
            except Refused as error:
                errors.append(error)
                raise

        return call

    module = starlark.Module()
    for name, function in {
        "_service": service,
        "_upload": upload,
        "_render": render,
        "_network": network,
        "_import": import_module,
        "read_file": lambda src: locate(src).read_text(),
    }.items():
        module.add_callable(name, kept(function))
    module["_args"] = args
    library = starlark.Globals.extended_by(
        [starlark.LibraryExtension.StructType, starlark.LibraryExtension.Json]
    )
    dialect = starlark.Dialect.standard()
    dialect.enable_keyword_only_arguments = True
    try:
        for path in (CHECK / "kurtosis.star", PACKAGE / "main.star"):
            starlark.eval(module, starlark.parse(str(path), path.read_text(), dialect), library)
        plan.output = starlark.eval(module, starlark.parse("run", "run(plan, _args)", dialect), library)
    except starlark.StarlarkError as error:
        raise errors[0] if errors else Refused(str(error)) from None
    return plan


def fill(path, template, data):
    """Go's templates, of which ours use `{{ .key }}` alone."""

    def value(place):
        if place[1] not in data:
            raise Refused(f"{path}: nothing is given for {place[0]}")
        return str(data[place[1]])

    if "{{" in PLACE.sub("", template):
        raise Refused(f"{path}: has more of Go's templates than {{{{ .key }}}}")
    if unused := data.keys() - set(PLACE.findall(template)):
        raise Refused(f"{path}: has no place for {', '.join(sorted(unused))}")
    return PLACE.sub(value, template)
