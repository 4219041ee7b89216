"""A web3.py client: `calls-web3.py HTTP_URL WS_URL SINK KEY KEY` does the same as calls-ethers.mjs. It does not call again what has failed."""

import asyncio
import signal
import sys
import time
import traceback

from aiohttp import ClientTimeout
from web3 import AsyncHTTPProvider, AsyncWeb3, WebSocketProvider

http, ws, sink, *keys = sys.argv[1:]
enough = False
# Seconds for an answer, as is the library's default.
PATIENCE = 30


def say(*words):
    print(*words, flush=True)


class Door:
    def __init__(self, w3, key):
        self.w3 = w3
        self.account = w3.eth.account.from_key(key)
        self.sink = w3.to_checksum_address(sink)

    async def call(self):
        return [await self.w3.eth.block_number]

    async def batch(self):
        async with self.w3.batch_requests() as batch:
            for asked in (self.w3.eth.get_block("latest"), self.w3.eth.get_code(self.sink), self.w3.eth.get_balance(self.sink)):
                batch.add(asked)
            block, code, _ = await batch.async_execute()
        return [await self.w3.eth.chain_id, block["number"], code.to_0x_hex()]

    async def paid(self):
        eth = self.w3.eth
        tip = await eth.max_priority_fee
        base = (await eth.get_block("latest"))["baseFeePerGas"]
        payment = {
            "to": self.sink,
            "value": 1,
            "gas": 21000,
            "chainId": await eth.chain_id,
            "nonce": await eth.get_transaction_count(self.account.address, "pending"),
            "maxPriorityFeePerGas": tip,
            "maxFeePerGas": 2 * base + tip,
        }
        sent = await eth.send_raw_transaction(self.account.sign_transaction(payment).raw_transaction)
        receipt = await eth.wait_for_transaction_receipt(sent, poll_latency=0.1)
        return [receipt["transactionHash"].to_0x_hex(), receipt["blockNumber"], receipt["status"]]


async def keep_calling(name, door):
    while not enough:
        for what in (door.call, door.batch, door.paid):
            began = time.monotonic()
            try:
                answer = await what()
                say(what.__name__, name, *answer, round(1000 * (time.monotonic() - began)), "ms")
            except Exception:
                say("error", name, what.__name__, traceback.format_exc())
    say("done", name)


def end():
    global enough
    enough = True


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    over_http = AsyncWeb3(AsyncHTTPProvider(http, {"timeout": ClientTimeout(PATIENCE)}, exception_retry_configuration=None))
    async with AsyncWeb3(WebSocketProvider(ws, max_connection_retries=1, request_timeout=PATIENCE)) as over_ws:
        await asyncio.gather(keep_calling("http", Door(over_http, keys[0])), keep_calling("ws", Door(over_ws, keys[1])))
    await over_http.provider.disconnect()


asyncio.run(main())
