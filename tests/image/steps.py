"""The steps of the Dockerfile's last stage in a chroot, and what has to hold of the program there.

check.sh runs this in namespaces of its own for mounts, processes and the network, which end with it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from dockerfile import ROOT, documented_folder, parse, read

PATIENCE = 30
# `nonroot` in distroless images.
USER = 65532


def run(*command):
    subprocess.run(command, check=True)


def done(what):
    print(f"ok    {what}", flush=True)


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            sys.exit(f"FAIL  {what}: not in {PATIENCE} s")
        time.sleep(0.1)
    return found


def main(root, binary):
    stage = parse(read()[0])
    words = {one.word: one for one in stage}
    entrypoint, command = words["ENTRYPOINT"].exec_form(), words["CMD"].exec_form()
    health = json.loads(words["HEALTHCHECK"].rest.partition("CMD ")[2])
    settings = Path(command[command.index("--config") + 1])

    # ---- COPY, and a file system that is only read

    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", root, root)
    work = Path(root) / "tmp"
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", work)
    (work / "settings").mkdir()
    run("mount", "--bind", binary, f"{root}{entrypoint[0]}")
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        run("mount", "--bind", ROOT / name, f"{root}/licenses/{name}")
    run("mount", "--bind", work / "settings", f"{root}{settings.parent}")
    # As a new volume that is mounted over the image's folder, with the folder's owner.
    folder = f"{root}{documented_folder()}"
    os.makedirs(folder, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"mode=755,uid={USER},gid={USER},size=256m", "tmpfs", folder)
    run("mount", "-t", "proc", "proc", f"{root}/proc")
    run("mount", "-o", "remount,bind,ro", root)
    run("ip", "link", "set", "lo", "up")

    def inside(*program, **how):
        """Starts a program as the image does: its user, no groups, no environment but a path."""

        def enter():
            os.chroot(root)
            os.chdir("/")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)

        return subprocess.Popen(program, preexec_fn=enter, env={"PATH": "/usr/bin:/bin"}, **how)

    def ends(*program):
        """Its exit code, and what it said."""
        process = inside(*program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, said

    def expect(what, program, code):
        ended, said = ends(*program)
        if ended != code:
            sys.exit(f"FAIL  {what}: exit code {ended} instead of {code}\n{said}")
        done(what)

    expect("it starts there", [*entrypoint, "--version"], 0)
    expect("before it runs, its health check says so", health, 1)

    # ---- A node for it: the pretend network's, from the same binary

    log = work / "dev.log"
    with log.open("w") as out:
        inside(
            *entrypoint,
            "dev",
            "--listen",
            "127.0.0.1:28545",
            "--admin-listen",
            "127.0.0.1:29545",
            stdout=out,
            stderr=out,
        )
    node = wait_for("a node", lambda: re.search(r"^  el-1 +(http://\S+)$", log.read_text(), re.MULTILINE))[1]

    # ---- ENTRYPOINT and CMD, as they stand

    (work / "settings" / settings.name).write_text(f'[outbox]\n[[el.primary]]\nhttp = "{node}"\n')
    log = work / "steadfast.log"
    with log.open("w") as out:
        proxy = inside(*entrypoint, *command, stdout=out, stderr=out)
    wait_for("the health check", lambda: ends(*health)[0] == 0 or proxy.poll() is not None)
    if proxy.poll() is not None:
        sys.exit(f"FAIL  it ended: {log.read_text()}")
    expect(f"its health check answers: {' '.join(health)}", health, 0)

    status = Path(f"/proc/{proxy.pid}/status").read_text()
    if not re.search(rf"^Uid:(\s+{USER}){{4}}$", status, re.MULTILINE) or not re.search(
        rf"^Gid:(\s+{USER}){{4}}$", status, re.MULTILINE
    ):
        sys.exit(f"FAIL  it does not run as {USER}: {status}")
    if not re.search(r"^CapEff:\s+0+$", status, re.MULTILINE):
        sys.exit(f"FAIL  it has rights: {status}")
    done(f"it runs as {USER}, without rights")

    wait_for("readiness", lambda: ends(entrypoint[0], "status", "--ready")[0] == 0)
    call = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}'
    request = urllib.request.Request(
        "http://127.0.0.1:8545", data=call, headers={"Content-Type": "application/json"}
    )
    answer = json.loads(urllib.request.urlopen(request, timeout=PATIENCE).read())
    if answer.get("result") != hex(1337):
        sys.exit(f"FAIL  a call: {answer}")
    done("a call comes through")

    # U49: the outbox is on the volume, which a user without rights writes.
    status = json.loads(ends(entrypoint[0], "status", "--json")[1])
    files = [(one.stat().st_uid, one.stat().st_size > 0) for one in Path(folder).iterdir()]
    if status["outbox"]["store"] != "writable" or (USER, True) not in files:
        sys.exit(f"FAIL  the outbox on its volume: {files} {status['outbox']}")
    done("the outbox is on its volume")

    # ---- As an engine stops it

    proxy.send_signal(signal.SIGTERM)
    if proxy.wait(timeout=PATIENCE) != 0:
        sys.exit(f"FAIL  at SIGTERM it ended with {proxy.returncode}: {log.read_text()}")
    done("SIGTERM ends it well")
    expect("afterwards, its health check says so", health, 1)


main(*sys.argv[1:])
