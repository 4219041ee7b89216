"""Programs that are started for a test, and the clients that a test talks to them with."""

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

STEADFAST = os.environ["STEADFAST_BIN"]
PROMETHEUS = os.environ["PROMETHEUS"]
PATIENCE = 30
PR_SET_PDEATHSIG = 1


def free_port():
    """Below the ports that the system gives to outgoing connections: none takes it in between."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def ask(url, body=None):
    """The body of the answer; one that is no success is an OSError."""
    request = urllib.request.Request(
        url, data=None if body is None else body.encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def wait_for(condition, log=None):
    """What `condition` returns once it neither returns None nor fails; `log` tells why not."""
    end = time.monotonic() + PATIENCE
    while True:
        why = "it returned None"
        try:
            if (found := condition()) is not None:
                return found
        except (OSError, AssertionError) as error:
            why = str(error)
        if time.monotonic() > end:
            raise AssertionError(f"after {PATIENCE} s: {why}\n{log.read_text()[-4000:] if log else ''}")
        time.sleep(0.1)


@dataclass
class Running:
    """A Steadfast that runs, by its URLs. `control` and `nodes` are the pretend network's."""

    rpc: str
    admin: str
    log: Path
    control: str = ""
    nodes: dict = None


def end_with_parent():
    """The kernel ends this process when the tests end, however they do."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Programs:
    """Ends each program that it started, by its process id, and removes the folder."""

    def __init__(self, clean_up):
        folder = tempfile.TemporaryDirectory()
        clean_up(folder.cleanup)
        self.folder = Path(folder.name)
        self.clean_up = clean_up

    def start(self, name, *command):
        """The program and the path of its output."""
        log = self.folder / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
            )

        def stop():
            process.send_signal(signal.SIGKILL)
            process.wait()

        self.clean_up(stop)
        return process, log

    def nats(self):
        """The URL of a NATS server with JetStream."""
        port = free_port()
        address = ["-a", "127.0.0.1", "-p", str(port)]
        server = Path(sys.executable).parent / "nats-server"
        _, log = self.start("nats", server, *address, "-js", "-sd", self.folder / "nats")
        wait_for(lambda: "Server is ready" in log.read_text() or None, log)
        return f"nats://127.0.0.1:{port}"

    def steadfast(self, *arguments):
        """Steadfast with these arguments, at ports of its own choice."""
        listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        _, log = self.start("steadfast", STEADFAST, *arguments, *listen)

        def running():
            found = re.search(r"clients=(\S+) admin=(\S+)", log.read_text())
            return Running(f"http://{found[1]}", f"http://{found[2]}", log) if found else None

        return wait_for(running, log)

    def dev(self, *arguments):
        """The pretend network with its proxy."""
        listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]
        _, log = self.start("dev", STEADFAST, "dev", *arguments, *listen)

        def running():
            said = log.read_text()
            if "Ctrl-C ends it" not in said:
                return None
            rpc = re.search(r"(http://\S+) +ws:", said)[1]
            admin = re.search(r"(http://\S+)/ in a browser", said)[1]
            control = re.search(r"(http://\S+)/nodes/el-1/down", said)[1]
            nodes = dict(re.findall(r"^  ((?:el|cl)-\d) +(http://\S+)$", said, re.MULTILINE))
            return Running(rpc, admin, log, control, nodes)

        return wait_for(running, log)

    def prometheus(self, settings):
        """Prometheus with the settings of this text, by its URL."""
        (self.folder / "prometheus.yml").write_text(settings)
        port = free_port()
        _, log = self.start(
            "prometheus",
            PROMETHEUS,
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: ask(f"{url}/-/ready"), log)
        return url


class WebSocket:
    """Enough of a WebSocket client: it sends texts and reads what comes, or does not read."""

    def __init__(self, url, buffer=None):
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(10)
        self.socket.connect((host, int(port)))
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self.status = int(self.socket.recv(4096).split()[1])

    def call(self, method, *params):
        text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        # One masked text frame, with a mask of zeros.
        length = bytes([0x80 | len(text)]) if len(text) < 126 else bytes([0xFE]) + len(text).to_bytes(2)
        self.socket.sendall(b"\x81" + length + bytes(4) + text)

    def unless_refused(self):
        if self.status == 101:
            return self
        self.close()
        return None

    def close(self):
        self.socket.close()
