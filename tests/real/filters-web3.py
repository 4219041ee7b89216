"""A web3.py client over HTTP: `filters-web3.py URL ADDRESS` says the hashes of a block filter, the logs of a filter, and the events of a
contract's own filter, which web3.py tells alike whether they came or went."""

import sys
import time

from web3 import Web3

url, address = sys.argv[1:]
w3 = Web3(Web3.HTTPProvider(url))
address = Web3.to_checksum_address(address)
height = {"name": "height", "type": "uint256", "indexed": False}
contract = w3.eth.contract(address=address, abi=[{"type": "event", "name": "Ticked", "anonymous": False, "inputs": [height]}])
topic = Web3.to_hex(Web3.keccak(text="Ticked(uint256)"))


def say(*words):
    print(*words, flush=True)


def say_hash(block):
    say("hash", block.to_0x_hex())


def say_log(log):
    value = int.from_bytes(log["data"], "big")
    say("log", log["blockNumber"], log["logIndex"], log["blockHash"].to_0x_hex(), value, *["removed"] * log["removed"])


def say_event(event):
    say("event", event["blockNumber"], event["logIndex"], event["blockHash"].to_0x_hex(), event["args"]["height"])


told = [
    (w3.eth.filter("latest"), say_hash),
    (w3.eth.filter({"address": address, "topics": [topic]}), say_log),
    (contract.events.Ticked.create_filter(from_block="latest"), say_event),
]
while True:
    for changes, say_each in told:
        try:
            entries = changes.get_new_entries()
        except Exception as error:
            say("error", repr(error))
            continue
        for entry in entries:
            say_each(entry)
    time.sleep(0.25)
