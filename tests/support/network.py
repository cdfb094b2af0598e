"""Servers of a few lines, for what goes wrong on the wire and a well-behaved server never does."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from aiohttp import web

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RawServer:
    """A TCP server on loopback; `connections` counts who came, `received` keeps each head and body that was read."""

    def __init__(self, port: int, scheme: str) -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.port = port
        self.connections = 0
        self.received: list[bytes] = []
        self.arrived = asyncio.Event()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request with its body, and keep it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        self.received.append(head + await reader.readexactly(length))
        self.arrived.set()
        return self.received[-1]


@asynccontextmanager
async def raw_server(
    talk: Callable[[RawServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, scheme: str = "http"
) -> AsyncIterator[RawServer]:
    """Serve with `talk`, which is called once for each connection and ends it by returning."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await talk(this, reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(connected(reader, writer)))

    tasks: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    this = RawServer(server.sockets[0].getsockname()[1], scheme)
    try:
        yield this
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off with a reset."""
    writer.transport.abort()


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port that refuses connections. It is taken, so that nobody else is given it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def free_port() -> int:
    """Return a port for a server that is to come: none of those that the system gives to whoever asks for any."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            return int(probe.getsockname()[1])


@asynccontextmanager
async def site(handler: Handler) -> AsyncIterator[str]:
    """Serve every path with one handler; gives the URL."""
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
