"""The HTTP server of the daemon.

`/livez` says that the loop turns and the database answers. `/readyz` says that the daemon does its work: the record has
its schema and is locked, the scheduler runs; it also lists what is not well. Neither is flipped by a service that is
away. `/metrics` is for Prometheus.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from watcher import metrics
from watcher.errors import Failure, Ours
from watcher.heartbeat import Pulse
from watcher.program import Program
from watcher.schedule import Schedule
from watcher.settings import ServerSettings
from watcher.store import overview
from watcher.store.migrate import is_current
from watcher.store.schema import Condition
from watcher.web.gauges import refresh

_DATABASE_DEADLINE_S = 5.0
_MISSING = {
    "schema_current": "the record has another schema than this version",
    "lock_held": "the lock of the record is lost",
    "scheduler_running": "the scheduler does not run",
}
"""What is said of a part of `/readyz` that does not hold."""


class Health:
    """What the server asks the daemon and the record."""

    def __init__(self, program: Program, pulse: Pulse) -> None:
        self._program = program
        self._context = program.context
        self._pulse = pulse
        self._scraping = asyncio.Lock()
        self.schedule: Schedule | None = None
        """Set by the daemon while it does its work."""

    async def live(self, _: web.Request) -> web.Response:
        """Answer 200 while the stages are given turns and the database answers."""
        trouble = await self._pulse.trouble()
        if trouble:
            return web.json_response({"live": False, "reason": trouble}, status=503)
        return web.json_response({"live": True})

    async def readiness(self, _: web.Request) -> web.Response:
        """Answer 200 while the daemon does its work; the body tells of each part, and what is not well elsewhere."""
        try:
            async with asyncio.timeout(_DATABASE_DEADLINE_S), self._context.store.read() as session:
                schema_is_current = await is_current(session)
                conditions = [_as_json(condition) for condition in await overview.needs_attention(session)]
        except TimeoutError:
            return web.json_response({"ready": False, "reason": "the database is silent"}, status=503)
        except Failure as failure:
            return web.json_response({"ready": False, "reason": failure.message}, status=503)
        parts = {
            "schema_current": schema_is_current,
            "lock_held": self._program.lock.held,
            "scheduler_running": self.schedule is not None and self.schedule.running,
        }
        missing = "; ".join(_MISSING[part] for part, holds in parts.items() if not holds)
        body = {"ready": not missing, **parts, "conditions": conditions}
        if missing:
            body["reason"] = missing
        return web.json_response(body, status=503 if missing else 200)

    async def scrape(self, _: web.Request) -> web.Response:
        """Answer with every metric, read from the record now."""
        try:
            async with self._scraping:  # one after the other: the gauges are shared
                targets = await refresh(self._context)
                body = await asyncio.to_thread(generate_latest, metrics.REGISTRY)  # it reads /proc
        except Failure as error:
            return web.Response(status=503, text=f"{error}\n")
        body += targets.encode("utf-8", "replace")
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _as_json(condition: Condition) -> dict[str, str]:
    return {
        "kind": condition.kind,
        "subject": condition.subject,
        "reason": condition.reason,
        "action": condition.action,
        "since": condition.since.isoformat(),
    }


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
