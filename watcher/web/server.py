"""The HTTP server of the daemon.

`/livez` says that the loop turns and the database answers; a remote outage never flips it. `/readyz` says that the
daemon does its work, and lists what is not well. `/metrics` is for Prometheus.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from watcher import metrics
from watcher.clock import Clock
from watcher.errors import Failure, Ours
from watcher.settings import ServerSettings
from watcher.store import overview
from watcher.store.claims import Policy
from watcher.store.engine import Store
from watcher.web.gauges import refresh

_DATABASE_DEADLINE_S = 5.0


class Health:
    """What the server asks the daemon and the record."""

    def __init__(self, store: Store, policy: Policy, clock: Clock) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self.ready = False
        """Set by the daemon: record up to date and locked, scheduler running."""

    async def live(self, _: web.Request) -> web.Response:
        """Answer 200 while the database answers."""
        try:
            async with asyncio.timeout(_DATABASE_DEADLINE_S):
                await self._store.ping()
        except (Failure, TimeoutError) as error:
            return web.json_response({"live": False, "reason": str(error) or "the database is silent"}, status=503)
        return web.json_response({"live": True})

    async def readiness(self, _: web.Request) -> web.Response:
        """Answer 200 while the daemon does its work; the body tells what is not well, here and elsewhere."""
        try:
            async with asyncio.timeout(_DATABASE_DEADLINE_S), self._store.read() as session:
                conditions = [
                    {
                        "kind": condition.kind,
                        "subject": condition.subject,
                        "reason": condition.reason,
                        "action": condition.action,
                        "since": condition.since.isoformat(),
                    }
                    for condition in await overview.needs_attention(session)
                ]
        except (Failure, TimeoutError) as error:
            return web.json_response({"ready": False, "reason": str(error) or "the database is silent"}, status=503)
        return web.json_response({"ready": self.ready, "conditions": conditions}, status=200 if self.ready else 503)

    async def scrape(self, _: web.Request) -> web.Response:
        """Answer with every metric, read from the record now."""
        try:
            async with self._store.read() as session:
                await refresh(session, self._policy, self._clock.now())
        except Failure as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serving(settings: ServerSettings, health: Health) -> AsyncIterator[str | None]:
    """Serve while the block runs; yields HOST:PORT, or None where `server.listen` is empty.

    Raises Ours naming the address when it cannot be listened on.
    """
    if not settings.listen:
        yield None
        return
    host, _, port = settings.listen.rpartition(":")
    app = web.Application(middlewares=[_asking_for(settings.token.get_secret_value())])
    app.router.add_get("/livez", health.live)
    app.router.add_get("/readyz", health.readiness)
    app.router.add_get("/metrics", health.scrape)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except (OSError, OverflowError) as error:
            raise Ours(
                f"server.listen = {settings.listen!r} cannot be listened on: {getattr(error, 'strerror', error)}",
                action="free the port, or set server.listen to another one, or to an empty text for no server",
            ) from error
        address = runner.addresses[0]
        yield f"{address[0]}:{address[1]}"
    finally:
        await runner.cleanup()


def _asking_for(token: str) -> Middleware:
    """Ask for the bearer token, if one is set, everywhere but at `/livez`."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        expected = f"Bearer {token}"
        if token and request.path != "/livez" and not hmac.compare_digest(given.encode(), expected.encode()):
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"}, text="a bearer token is asked for\n")
        return await handler(request)

    return middleware
