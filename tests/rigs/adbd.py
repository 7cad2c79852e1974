"""A stand-in for Android's daemon, spoken to by the real `adb` over TCP; no Android, no authentication.

    python adbd.py PORT ROOT COMMAND...    commands of the shell run as COMMAND... sh -c LINE

The protocol is the public one (packages/modules/adb, protocol.txt and SYNC.TXT): messages of six
little-endian words and a payload; services `shell`, `shell,v2`, `exec` and `sync` (version 1).
"""

from __future__ import annotations

import asyncio
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path

LARGEST = 256 * 1024
BANNER = b"device::ro.product.name=rig;ro.product.model=rig_arm64;ro.product.device=qemu;features=shell_v2,cmd"
STDOUT_ID, STDERR_ID, EXIT_ID = 1, 2, 3


def word(name: bytes) -> int:
    return int.from_bytes(name, "little")


class Stream:
    """One open service: what the client writes, and a way to write back with flow control."""

    def __init__(self, link: Link, local: int, remote: int) -> None:
        self.link, self.local, self.remote = link, local, remote
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.rest = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.link.largest):
            if self.closed:
                return
            self.ready.clear()
            self.link.send(b"WRTE", self.local, self.remote, data[start : start + self.link.largest])
            await self.ready.wait()

    async def read(self, count: int) -> bytes:
        while len(self.rest) < count:
            more = await self.inbox.get()
            if more is None:
                raise EOFError
            self.rest += more
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.link.send(b"CLSE", self.local, self.remote)
            self.ready.set()
            self.inbox.put_nowait(None)


class Link:
    """One connection of an adb server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, root: Path, prefix: list[str]):
        self.reader, self.writer, self.root, self.prefix = reader, writer, root, prefix
        self.streams: dict[int, Stream] = {}
        self.largest = 4096
        self.tasks: set[asyncio.Task[None]] = set()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        code = word(command)
        self.writer.write(struct.pack("<6I", code, first, second, len(data), sum(data) & 0xFFFFFFFF, code ^ 0xFFFFFFFF))
        self.writer.write(data)

    async def serve(self) -> None:
        try:
            while True:
                code, first, second, length, _, _ = struct.unpack("<6I", await self.reader.readexactly(24))
                data = await self.reader.readexactly(length) if length else b""
                self.take(code.to_bytes(4, "little"), first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writer.close()

    def take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        stream = self.streams.get(second)
        if command == b"CNXN":
            self.largest = min(second, LARGEST)
            self.send(b"CNXN", 0x01000001, LARGEST, BANNER)
        elif command == b"OPEN":
            opened = Stream(self, len(self.streams) + 1, first)
            self.streams[opened.local] = opened
            task = asyncio.ensure_future(self.run(opened, data.rstrip(b"\0").decode()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif command == b"OKAY" and stream:
            stream.ready.set()
        elif command == b"WRTE" and stream:
            stream.inbox.put_nowait(data)
            self.send(b"OKAY", second, first)
        elif command == b"CLSE" and stream:
            stream.close()

    async def run(self, stream: Stream, service: str) -> None:
        self.send(b"OKAY", stream.local, stream.remote)
        kind, _, line = service.partition(":")
        try:
            if kind == "sync":
                await Sync(stream, self.root).serve()
            else:
                await self.shell(stream, line, framed="v2" in kind.split(","))
        except EOFError:
            pass
        finally:
            stream.close()

    async def shell(self, stream: Stream, line: str, *, framed: bool) -> None:
        errors = PIPE if framed else STDOUT
        process = await asyncio.create_subprocess_exec(
            *self.prefix, "sh", "-c", line, stdin=DEVNULL, stdout=PIPE, stderr=errors
        )

        async def forward(pipe: asyncio.StreamReader, number: int) -> None:
            while data := await pipe.read(65536):
                await stream.write(struct.pack("<BI", number, len(data)) + data if framed else data)

        pipes = [forward(process.stdout, STDOUT_ID)]
        if framed:
            pipes.append(forward(process.stderr, STDERR_ID))
        await asyncio.gather(*pipes)
        code = await process.wait()
        if framed:
            await stream.write(struct.pack("<BIB", EXIT_ID, 1, code & 255))


class Sync:
    """File transfer."""

    def __init__(self, stream: Stream, root: Path) -> None:
        self.stream, self.root = stream, root

    def place(self, name: bytes) -> Path:
        return self.root / name.decode().lstrip("/")

    async def serve(self) -> None:
        while True:
            kind, length = struct.unpack("<4sI", await self.stream.read(8))
            name = await self.stream.read(length) if length else b""
            if kind == b"QUIT":
                return None
            if kind == b"STAT":
                await self.stat(name)
            elif kind == b"SEND":
                await self.receive(name)
            elif kind == b"RECV":
                await self.send(name)
            else:
                return await self.fail(b"unknown request")

    async def fail(self, reason: bytes) -> None:
        await self.stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)

    async def stat(self, name: bytes) -> None:
        try:
            found = self.place(name).lstat()
            facts = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            facts = (0, 0, 0)
        await self.stream.write(struct.pack("<4s3I", b"STAT", *facts))

    async def receive(self, request: bytes) -> None:
        name, mode = request.rsplit(b",", 1)
        parts, problem = [], b""
        while True:
            kind, length = struct.unpack("<4sI", await self.stream.read(8))
            if kind == b"DONE":
                break
            parts.append(await self.stream.read(length))
        try:
            place = self.place(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"".join(parts))
            place.chmod(int(mode) & 0o777 or 0o644)
        except OSError as error:
            problem = str(error).encode()
        if problem:
            await self.fail(problem)
        else:
            await self.stream.write(struct.pack("<4sI", b"OKAY", 0))

    async def send(self, name: bytes) -> None:
        try:
            content = self.place(name).read_bytes()
        except OSError as error:
            return await self.fail(str(error).encode())
        for start in range(0, len(content), 65536):
            piece = content[start : start + 65536]
            await self.stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        return await self.stream.write(struct.pack("<4sI", b"DONE", 0))


async def main(port: int, root: Path, prefix: list[str]) -> None:
    server = await asyncio.start_server(lambda r, w: Link(r, w, root, prefix).serve(), "127.0.0.1", port)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
