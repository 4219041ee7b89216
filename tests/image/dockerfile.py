"""Rules for the Dockerfile and the .dockerignore: those of hadolint that apply, and what must agree with the rest of the tree."""

import fnmatch
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The Debian release that each runtime image is made of.
RELEASES = {"debian11": "bullseye", "debian12": "bookworm", "debian13": "trixie"}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# What must not get into a build, nor slow it down.
KEPT_OUT = [
    "rust-toolchain.toml",
    ".git/config",
    "target/debug/steadfast",
    "bench/target/x",
    "tests/real/node_modules/x",
    "tests/real/venv/x",
    "kurtosis/check/venv/x",
    ".env",
    "node.key",
]


@dataclass
class Instruction:
    word: str
    rest: str

    def exec_form(self):
        """The words of a JSON list; None if it is not one."""
        try:
            words = json.loads(self.rest)
        except ValueError:
            return None
        return words if isinstance(words, list) else None


def read():
    return (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()


def parse(text):
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [Instruction(*line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


def ignored(path, patterns):
    """By Docker's rules: the last pattern that fits a path, or a folder above it, decides."""
    out = False
    parts = path.split("/")
    for pattern in patterns:
        wanted = not pattern.startswith("!")
        steps = pattern.lstrip("!").strip("/").split("/")
        if any(fits(parts[:length], steps) for length in range(1, len(parts) + 1)):
            out = wanted
    return out


def fits(parts, steps):
    if not steps:
        return not parts
    if steps[0] == "**":
        return any(fits(parts[skip:], steps[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], steps[0]) and fits(parts[1:], steps[1:])


def documented_ports():
    """Those of `listen` and `admin.listen`, by docs/CONFIG.md."""
    text = (ROOT / "docs" / "CONFIG.md").read_text()
    return [
        re.search(rf'^\| `{key}` \| `"[^"]*:(\d+)"`', text, re.MULTILINE)[1]
        for key in ("listen", r"admin\.listen")
    ]


def documented_folder():
    """That of `outbox.dir`, by docs/CONFIG.md."""
    text = (ROOT / "docs" / "CONFIG.md").read_text()
    return re.search(r'^\| `outbox\.dir` \| `"([^"]*)"`', text, re.MULTILINE)[1]


def problems(dockerfile, dockerignore):
    found = []
    instructions = parse(dockerfile)
    patterns = [
        line.strip() for line in dockerignore.splitlines() if line.strip() and not line.startswith("#")
    ]
    stages, last = [], []
    for one in instructions:
        if one.word == "FROM":
            stages.append(one.rest.split())
            last = []
        last.append(one)

    def those(word, among=last):
        return [one for one in among if one.word == word]

    # ---- Images

    names = [stage[2] if len(stage) == 3 and stage[1].upper() == "AS" else "" for stage in stages]
    bases = [stage[0] for place, stage in enumerate(stages) if stage[0] not in names[:place]]
    for image in bases:
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not tag or tag.startswith("latest"):
            found.append(f"FROM {image}: the tag must say which version")
        if digest and not DIGEST.fullmatch(digest):
            found.append(f"FROM {image}: a digest is sha256: and 64 digits")
    # One image that cannot change beside one that can is pinned in name only.
    if len({"@" in image for image in bases}) == 2:
        found.append("FROM: every base image must have a digest, or none")
    builder = re.fullmatch(r"rust:(\d+\.\d+)-slim-(\w+)", stages[0][0].partition("@")[0])
    runtime = re.search(r"debian\d+", stages[-1][0])
    if not builder or not runtime or RELEASES.get(runtime[0]) != builder[2]:
        found.append("FROM: the builder's Debian release must be the runtime's")
    needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    if builder and builder[1] != needed:
        found.append(f"FROM {stages[0][0]}: Cargo.toml says {needed}")

    # ---- Building

    place, folder = -1, None
    for one in instructions:
        if one.word == "FROM":
            place, folder = place + 1, None
        if one.word == "WORKDIR":
            folder = one.rest
        if one.word == "ADD":
            found.append("ADD: use COPY")
        if one.word == "WORKDIR" and not one.rest.startswith("/"):
            found.append(f"WORKDIR {one.rest}: must be absolute")
        if one.word == "RUN" and re.search(r"\bsudo\b", one.rest):
            found.append("RUN: without sudo")
        if (
            one.word == "RUN"
            and "cargo build" in one.rest
            and not re.search(r"--release\b.*--locked\b|--locked\b.*--release\b", one.rest)
        ):
            found.append("RUN cargo build: must be --release --locked")
        if one.word in ("ENV", "ARG") and re.search(r"token|secret|password|key", one.rest, re.IGNORECASE):
            found.append(f"{one.word}: a secret would be in the image")
        if one.word == "COPY":
            flags = [word for word in one.rest.split() if word.startswith("--")]
            *sources, target = [word for word in one.rest.split() if not word.startswith("--")]
            for flag in flags:
                if flag.startswith("--from=") and flag.removeprefix("--from=") not in names[:place]:
                    found.append(f"COPY {flag}: there is no such stage before this one")
            if not sources:
                found.append(f"COPY {target}: must say where to")
            if len(sources) > 1 and not target.endswith("/"):
                found.append(f"COPY {target}: several files need a folder, with / at its end")
            if not target.startswith("/") and folder is None:
                found.append(f"COPY {target}: must be absolute, or after a WORKDIR")
            if not any(flag.startswith("--from=") for flag in flags):
                for source in sources:
                    if not (ROOT / source).exists():
                        found.append(f"COPY {source}: is not there")
                    elif source != "." and ignored(source, patterns):
                        found.append(f"COPY {source}: .dockerignore keeps it out")

    # ---- Running

    for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "USER", "EXPOSE"):
        if len(those(word)) != 1:
            found.append(f"{word}: must be there once in the last stage")
    if any(
        line.startswith(word + ":")
        for line in found
        for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK", "USER", "EXPOSE")
    ):
        return found
    user = those("USER")[0].rest.partition(":")[0]
    if user in ("root", "0"):
        found.append(f"USER {user}: must not be root")
    entrypoint, command = those("ENTRYPOINT")[0].exec_form(), those("CMD")[0].exec_form()
    health = Instruction("HEALTHCHECK", those("HEALTHCHECK")[0].rest.partition("CMD ")[2]).exec_form()
    for word, words in (("ENTRYPOINT", entrypoint), ("CMD", command), ("HEALTHCHECK", health)):
        if not words:
            found.append(f"{word}: must be a JSON list, for there is no shell")
    if entrypoint and health and health[0] != entrypoint[0]:
        found.append("HEALTHCHECK: must call the image's program")
    copied = [one.rest.split()[-1] for one in those("COPY") if "--from=" in one.rest]
    if entrypoint and entrypoint[0] not in copied:
        found.append(f"ENTRYPOINT {entrypoint[0]}: must be copied from an earlier stage")
    folders = [one.rest.split() for one in those("COPY") if one.rest.split()[-1] == documented_folder()]
    if not any("--chown=65532:65532" in words for words in folders):
        found.append(f"COPY {documented_folder()}: the folder of the outbox must be the user's own")
    # What is changed in a folder behind VOLUME is lost, its owner too.
    volumes = [place for place, one in enumerate(last) if one.word == "VOLUME"]
    filled = [place for place, one in enumerate(last) if one.rest.split()[-1] == documented_folder()]
    if [last[place].exec_form() for place in volumes] != [[documented_folder()]]:
        found.append(f"VOLUME: must be {documented_folder()} alone, as a JSON list")
    elif filled and filled[-1] > volumes[0]:
        found.append("VOLUME: must stand behind what fills the folder")
    if those("EXPOSE")[0].rest.split() != documented_ports():
        found.append(f"EXPOSE {those('EXPOSE')[0].rest}: docs/CONFIG.md says {' '.join(documented_ports())}")

    # ---- What is sent to the build

    found += [f".dockerignore: {path} must be kept out" for path in KEPT_OUT if not ignored(path, patterns)]
    found += [
        f".dockerignore: {path} is needed"
        for path in ("Cargo.toml", "Cargo.lock", "src/main.rs")
        if ignored(path, patterns)
    ]
    return found
