"""What both servers share: a port on loopback, the list of requests seen, the faults, and the control routes."""

from collections.abc import Sequence
from typing import Self

from aiohttp import web

from watcher.sandbox.actions import Handler
from watcher.sandbox.faults import Faults

CONTROL = "/sandbox/"


class Server:
    """One aiohttp server; `start` opens its port, `close` leaves nothing behind."""

    def __init__(self, host: str, port: int, *, max_body: int = 2**20) -> None:
        self.host = host
        self.port = port
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []
        self._max_body = max_body
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The origin to give to a client."""
        return f"http://{self.host}:{self.port}"

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes of this server, its own control routes among them."""
        raise NotImplementedError

    async def start(self) -> Self:
        """Open the port; port 0 takes a free one, and keeps it when the server is closed and started again."""
        self.faults.closing = False
        app = web.Application(middlewares=[self._middleware], client_max_size=self._max_body)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def close(self) -> None:
        """Let go whoever waits, close every connection and the port."""
        self.faults.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(CONTROL):
            return await handler(request)
        self.requests.append((request.method, request.path_qs))
        return await self.faults.apply(request, handler)
