"""Counts the instructions of a running program by valgrind's callgrind."""

import re
import subprocess
import time

from measure import Failed

WAIT = 20  # seconds for callgrind to write a count


def under(work, name):
    """The words before a command that is to be counted; counts go to `work`."""
    return ["valgrind", "--tool=callgrind", f"--callgrind-out-file={work}/{name}.out"]


def begin(process):
    """Begins to count anew."""
    control("--zero", process)


def count(process, work, name):
    """Instructions since the count began."""
    control("--dump", process)
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        for dump in sorted(work.glob(f"{name}.out.*")):
            total = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(errors="replace"), re.M)
            if total:
                dump.unlink()
                return int(total[1])
        time.sleep(0.2)
    raise Failed(f"{name}: callgrind gave no count")


def control(command, process):
    run = subprocess.run(["callgrind_control", command, str(process.pid)], capture_output=True, text=True, timeout=30)
    if run.returncode:
        raise Failed(f"callgrind_control {command}: {run.stdout}{run.stderr}")
