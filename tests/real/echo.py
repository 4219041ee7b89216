"""`echo.py PORT TARGET`: makes an echo server of JSON-RPC over WebSocket, for cases that need one. What a client sends goes to the target frame by
frame, as it comes, with its own mask, but a message's first frame gets the beginning of a call before it, and its last frame the end: the message is
the call's id. Of the answer only the id goes back. A binary message goes as hexadecimal digits. A message that no JSON can hold goes to the target
too, which answers that it is none; this program then gives the message back itself, and says so. All that is no part of a message that may stand
where it stands (control frames, reserved bits and opcodes, fragments of nothing, the closing of connections) passes untouched, both ways."""

import asyncio
import socket
import struct
import sys

port, target = map(int, sys.argv[1:])
BEGIN, END = b'{"jsonrpc":"2.0","method":"eth_chainId","params":[],"id":"', b'"}'
NO_JSON = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,'
CONTINUATION, TEXT, BINARY = range(3)


def head(first, length, mask):
    masked = 0x80 if mask else 0
    if length < 126:
        return bytes([first, masked | length]) + mask
    if length < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, length) + mask
    return struct.pack("!BBQ", first, masked | 127, length) + mask


def apply(mask, data, offset):
    if not data:
        return data
    turn = offset % 4
    key = (mask[turn:] + mask[:turn]) * (len(data) // 4 + 1)
    return (int.from_bytes(data, "big") ^ int.from_bytes(key[: len(data)], "big")).to_bytes(len(data), "big")


class Side:
    """One of the two connections. That nothing can be written any more says nothing of what there is to read."""

    def __init__(self, connection):
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.ahead = bytearray()

    async def some(self, most):
        """As many bytes as there are."""
        if not self.ahead:
            self.ahead += await asyncio.get_running_loop().sock_recv(self.connection, 1 << 20)
        if not self.ahead:
            raise EOFError
        some = bytes(self.ahead[:most])
        del self.ahead[:most]
        return some

    async def exactly(self, count):
        read = b""
        while len(read) < count:
            read += await self.some(count - len(read))
        return read

    async def until(self, end):
        read = b""
        while not read.endswith(end):
            read += await self.exactly(1)
        return read

    async def head(self):
        """The bytes of a frame's head, its length and its mask."""
        raw = await self.exactly(2)
        length = raw[1] & 0x7F
        more = await self.exactly({126: 2, 127: 8}.get(length, 0))
        if more:
            length = int.from_bytes(more, "big")
        mask = await self.exactly(4) if raw[1] & 0x80 else b""
        return raw + more + mask, length, mask

    async def payload(self, length):
        """The payload, as it comes."""
        while length:
            chunk = await self.some(min(length, 1 << 20))
            length -= len(chunk)
            yield chunk

    async def write(self, data):
        await asyncio.get_running_loop().sock_sendall(self.connection, data)


class Calls:
    """From the client to the target."""

    def __init__(self):
        self.kind = None
        # The payloads of messages that are no JSON even as an id.
        self.strange = []
        self.text = bytearray()

    async def pass_on(self, client, node):
        while True:
            raw, length, mask = await client.head()
            opcode, final = raw[0] & 0x0F, raw[0] & 0x80
            fits = opcode == CONTINUATION if self.kind else opcode in (TEXT, BINARY)
            if raw[0] & 0x70 or not mask or not fits:
                await node.write(raw)
                async for chunk in client.payload(length):
                    await node.write(chunk)
                continue
            before, after = b"", END if final else b""
            if opcode != CONTINUATION:
                self.kind = opcode
                before = BEGIN + (b"t" if opcode == TEXT else b"b")
            factor = 1 if self.kind == TEXT else 2
            await node.write(head(raw[0], len(before) + factor * length + len(after), mask) + apply(mask, before, 0))
            offset, read = len(before), 0
            async for chunk in client.payload(length):
                plain = apply(mask, chunk, read)
                read += len(chunk)
                if self.kind == BINARY:
                    plain = plain.hex().encode()
                elif any(byte < 0x20 for byte in plain[:1000]):
                    self.strange.append(plain)
                await node.write(apply(mask, plain, offset))
                offset += len(plain)
            await node.write(apply(mask, after, offset))
            if final:
                self.kind = None


async def pass_back(node, client, calls):
    while True:
        raw, length, mask = await node.head()
        data = b"".join([chunk async for chunk in node.payload(length)])
        if raw[0] == 0x80 | TEXT and not mask:
            if data.startswith(NO_JSON) and calls.strange:
                data = calls.strange.pop(0)
                # The proxy took the message, and answered that it is no JSON: what goes back is not its own.
                print(f"given back here: {data!r}", flush=True)
                raw = head(0x80 | TEXT, len(data), b"")
            elif b'","result":' in data[-100:]:
                start = data.index(b'"id":"') + 6
                kind, data = data[start : start + 1], data[start + 1 : data.rindex(b'","result":')]
                opcode, data = (TEXT, data) if kind == b"t" else (BINARY, bytes.fromhex(data.decode()))
                raw = head(0x80 | opcode, len(data), b"")
        await client.write(raw + data)


async def hand_through(source, drain, work):
    try:
        await drain.write(await source.until(b"\r\n\r\n"))
        await work(source, drain)
    except (EOFError, ConnectionError):
        pass
    try:
        drain.connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass


async def serve(connection):
    client, node, calls = Side(connection), Side(socket.create_connection(("127.0.0.1", target))), Calls()
    with client.connection, node.connection:
        await asyncio.gather(
            hand_through(client, node, calls.pass_on),
            hand_through(node, client, lambda source, drain: pass_back(source, drain, calls)),
        )


async def main():
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    async with asyncio.TaskGroup() as connections:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            connections.create_task(serve(connection))


asyncio.run(main())
