"""The page docs/COMPATIBILITY.md of the rows that come in: client, door, what was done, outcome. Versions are those that are installed."""

import importlib.metadata
import json
import pathlib
import sys
import tomllib

ALLOY = object()
PACKAGES = {
    "ethers": ("ethers 6", "ethers"),
    "ethers5": ("ethers 5", "ethers-5"),
    "viem": ("viem", "viem"),
    "web3js": ("web3.js", "web3"),
    "web3": ("web3.py", None),
    "alloy": ("alloy", ALLOY),
    "ethereumjs": ("ethereumjs", "@ethereumjs/block"),
    "lodestar": ("Lodestar's API package", "@lodestar/api"),
}
HEAD = """# Compatibility

Real client libraries through Steadfast before real nodes. `tests/real/compatibility.sh` writes this
page from what a run saw: a row that fails ends the run. In CI the same run compares its page with this
one, and fails where they differ. Versions are those of the lock files.

Execution nodes are two anvils ({anvil}) that hold one chain; the consensus nodes are two of Lodestar's
own servers of the beacon API ({lodestar}) over a made-up chain. Meanwhile the first of the two is killed
(`kill -9`), comes back and catches up, hangs (`SIGSTOP`) and wakes; the pretend network is told to do the
same. In the rows before an ethereumjs node no node dies or hangs, and in those at the end of the proxy
none hangs. What a node was given before it dies, its peer has too, as among nodes with peers.

| client | version | door | done | outcome |
|---|---|---|---|---|
"""
FOOT = """
Over WebSocket, ethers, viem and alloy have no batches: several calls are sent at once.

How long a library waits for an answer before it gives up, by its own defaults: ethers 6 300 s and ethers 5
120 s over HTTP; viem 10 s; web3.py 30 s; Lodestar's API package 60 s; web3.js 1 s for a batch. There is no
limit for other calls of web3.js, for ethers over WebSocket, and in alloy and ethereumjs. For a payment to be
in a block, viem waits 180 s, web3.py 120 s and web3.js 50 blocks. A call that a node
which hangs has got takes some seconds: by Steadfast's defaults the node is found out after two, and the call
goes to another. A batch of web3.js has failed by then. So this run gives web3.js's batches 30 s, as an
application should (`batch.execute({ timeout: 30_000 })`), and viem's calls too.

Not tried: go-ethereum's client (Debian 12 has Go 1.19, but no package of go-ethereum's sources, and Go's
own registry of modules cannot be reached from the machines of this project), and consensus clients
themselves (they do not install there). `docs/TESTNET.md` says which of these an enclave runs.
"""


def version(package):
    if package is None:
        return importlib.metadata.version("web3")
    if package is ALLOY:
        locked = tomllib.loads(pathlib.Path("tests/real/alloy/Cargo.lock").read_text())["package"]
        return next(one["version"] for one in locked if one["name"] == "alloy-provider")
    return json.loads(pathlib.Path("tests/real/node_modules", package, "package.json").read_text())["version"]


def main():
    rows = dict.fromkeys(tuple(line.rstrip("\n").split("\t")) for line in sys.stdin)
    order = list(PACKAGES)
    print(HEAD.format(anvil=version("@foundry-rs/anvil"), lodestar=version("@lodestar/api")), end="")
    for client, door, done, outcome in sorted(rows, key=lambda row: (order.index(row[0]), row[1], row[2])):
        name, package = PACKAGES[client]
        print(f"| {name} | {version(package)} | {door} | {done} | {outcome} |")
    print(FOOT, end="")


main()
