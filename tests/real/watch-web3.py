"""A web3.py client: `watch-web3.py URL ADDRESS` says the same as watch-ethers.mjs, but each block by its announcement."""

import asyncio
import sys

from web3 import AsyncWeb3, WebSocketProvider
from web3.exceptions import PersistentConnectionClosedOK

url, address = sys.argv[1:]


def say(*words):
    print(*words, flush=True)


async def main():
    async with AsyncWeb3(WebSocketProvider(url, max_connection_retries=1)) as w3:
        heads = await w3.eth.subscribe("newHeads")
        topic = w3.to_hex(w3.keccak(text="Ticked(uint256)"))
        logs = await w3.eth.subscribe("logs", {"address": w3.to_checksum_address(address), "topics": [topic]})
        try:
            async for message in w3.socket.process_subscriptions():
                told = message["result"]
                if message["subscription"] == heads:
                    block = await w3.eth.get_block(told["number"])
                    say("block", block["number"], block["hash"].to_0x_hex())
                elif message["subscription"] == logs:
                    value = int.from_bytes(told["data"], "big")
                    say("log", told["blockNumber"], told["logIndex"], told["blockHash"].to_0x_hex(), value, *["removed"] * told["removed"])
                else:
                    say("error", message)
        except PersistentConnectionClosedOK as closed:
            say("closed", closed)


asyncio.run(main())
