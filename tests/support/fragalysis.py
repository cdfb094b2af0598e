"""A Fragalysis of a few lines: it answers what a test gives it, and keeps what it was asked."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from tests.support.clock import FakeClock
from watcher.fragalysis import Fragalysis
from watcher.settings import FragalysisSettings, Settings

CAPTURES = Path(__file__).parent.parent / "data" / "fragalysis"
TOKEN = "0123456789abcdefSESSION"
CSRF = "csrf0123456789"
ENDED = 'sessionid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax'
UPLOADS, TARGETS, PROJECTS = "/api/target_experiment_uploads/", "/api/targets/", "/api/projects/"
OBSERVATIONS, DOWNLOAD, LANDING = "/api/site_observations/", "/api/download_structures/", "/viewer/react/landing/"

Reply = web.StreamResponse | Callable[[web.Request], web.StreamResponse]


def capture(name: str) -> bytes:
    return (CAPTURES / name).read_bytes()


def captured(name: str) -> Any:
    return json.loads(capture(name))


def answer(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Callable[[web.Request], web.Response]:
    """JSON, or a page for a string or bytes that look like one."""
    data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/html" if data.lstrip().startswith(b"<") else "application/json"
    return lambda _: web.Response(status=status, body=data, content_type=kind, headers=headers)


def rows(*results: Any, **more: Any) -> Callable[[web.Request], web.Response]:
    """A listing on one page."""
    return answer({"count": len(results), "next": None, "previous": None, "results": list(results), **more})


@dataclass
class Stack:
    """`replies` maps a path to its answer, or to a list that is answered one by one, the last for ever."""

    replies: dict[str, Any] = field(default_factory=dict)
    requests: list[web.Request] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    clock: FakeClock = field(default_factory=FakeClock)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.BaseRequest)
        self.requests.append(request)  # type: ignore[arg-type]
        if request.method == "POST":
            self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        reply = self.replies.get(f"{request.method} {request.path}", self.replies.get(request.path))
        if isinstance(reply, list):
            reply = reply.pop(0) if len(reply) > 1 else reply[0]
        if reply is None:
            if request.path == LANDING:
                return web.Response(text="<html></html>", headers={"Set-Cookie": f"csrftoken={CSRF}; Path=/"})
            return web.Response(status=404, text="<html><title>Not Found</title></html>", content_type="text/html")
        response: web.StreamResponse = reply(request)
        return response

    def asked(self, path: str) -> list[web.Request]:
        return [request for request in self.requests if request.path == path]

    def client(self, token: str = "", **fragalysis: Any) -> Fragalysis:
        section = FragalysisSettings(stack=self.url, requests_per_second=100, **fragalysis)
        section = section.model_copy(update={"token": SecretStr(token)})  # past the checks of the settings
        return Fragalysis(Settings(fragalysis=section), clock=self.clock)


@asynccontextmanager
async def stack(replies: dict[str, Any] | None = None) -> AsyncIterator[Stack]:
    this = Stack(replies or {})
    runner = web.ServerRunner(web.Server(this.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    this.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield this
    finally:
        await runner.cleanup()
