"""The Fragalysis server, of 2024 or of 2026: what it answers, to whom.

Everything here follows the captures of a real backend of October 2024 and, for `age="2026"`, the newer serializers and
the published client. The data lie in `world`, their JSON in `shapes`, downloads in `downloads`.
"""

import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from watcher.sandbox import control
from watcher.sandbox.actions import EXPIRED, FAILS
from watcher.sandbox.chance import identifier, shuffled
from watcher.sandbox.downloads import Downloads, Pace
from watcher.sandbox.replies import detail, listing, not_found, page, reply, server_error
from watcher.sandbox.server import Server
from watcher.sandbox.shapes import Age, compound_row, observation_row, project_row, target_row, upload_row
from watcher.sandbox.world import Target, World

SESSION = "sandbox-session"
View = Callable[[web.Request], Awaitable[web.Response]]
_TASK = re.compile(r"/viewer/task_status/(?P<id>[^/]+)/")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class FragalysisServer(Server):
    """A Fragalysis stack; data changes (`publish`, `withdraw` ...) are those of `World`."""

    def __init__(
        self,
        *,
        age: Age = "2026",
        build_polls: int = 2,
        build_seconds: float = 0.0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port)
        self.age: Age = age
        self.seed = seed
        self.session_token = SESSION
        self.session_valid = True
        self.link_origin: str | None = None
        """Another origin for links, as behind a proxy hiding the scheme (capture `targets_behind_proxy_noproto`)."""
        self.world = World()
        self.downloads = Downloads(self.world, age, Pace(build_seconds, build_polls), clock, seed)
        world = self.world
        self.publish, self.withdraw, self.touch = world.publish, world.withdraw, world.touch
        self.rename, self.move, self.vanish, self.reappear = world.rename, world.move, world.vanish, world.reappear
        self.add_target, self.add_upload = world.add_target, world.add_upload
        self.set_public, self.break_builds = world.set_public, world.break_builds
        self._views: dict[str, tuple[tuple[str, ...], View]] = {
            "/viewer/react/landing/": (("GET", "HEAD"), self._landing),
            "/api/targets/": (("GET", "PATCH", "HEAD", "OPTIONS"), self._targets),
            "/api/projects/": (("GET", "HEAD", "OPTIONS"), self._projects),
            "/api/target_experiment_uploads/": (("GET",), self._uploads),
            "/api/site_observations/": (("GET", "HEAD", "OPTIONS"), self._observations),
            "/api/compounds/": (("GET", "HEAD", "OPTIONS"), self._compounds),
            "/api/compound-sets/": (("GET", "HEAD", "OPTIONS"), self._nothing),
            "/api/compound-molecules/": (("GET", "HEAD", "OPTIONS"), self._nothing),
            "/api/download_structures/": (("GET", "POST", "HEAD", "OPTIONS"), self._download),
        }
        if age == "2026":
            self._views["/api/user"] = (("GET", "POST"), self._user)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the control routes and one route for all else, as the real server resolves paths by itself."""
        return [*control.fragalysis_routes(self), web.route("*", "/{path:.*}", self._answer)]

    def expire_session(self) -> None:
        """Let the session run out: from now on it is silently anonymous (capture `targets_expired_session`)."""
        self.session_valid = False

    def renew_session(self) -> None:
        """Let the session token count again."""
        self.session_valid = True

    def state(self) -> dict[str, Any]:
        """Return what there is, for the control route."""
        targets = [
            {
                "id": target.id,
                "target": target.name,
                "target_access_string": target.project.target_access_string,
                "public": target.project.public,
                "vanished": target.vanished,
                "uploads": target.published,
                "prepared": len(target.uploads) - target.published,
                "observations": len(target.current),
            }
            for target in self.world.targets
        ]
        return {
            "age": self.age,
            "session_valid": self.session_valid,
            "pace": asdict(self.downloads.pace),
            "targets": targets,
        }

    async def _answer(self, request: web.Request) -> web.Response:
        response = await self._resolve(request)
        if "sessionid" in request.cookies and not self._member(request):
            response.headers.add(
                "Set-Cookie", 'sessionid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax'
            )
        return response

    async def _resolve(self, request: web.Request) -> web.Response:
        path = request.path
        if path == "/":
            return web.Response(status=302, headers={"Location": "/viewer/react/landing"}, content_type="text/html")
        if _TASK.fullmatch(path):
            return await self._view(request, ("GET", "HEAD", "OPTIONS"), self._task)
        if path in self._views:
            return await self._view(request, *self._views[path])
        if f"{path}/" in self._views or _TASK.fullmatch(f"{path}/"):
            query = f"?{request.query_string}" if request.query_string else ""
            return web.Response(status=301, headers={"Location": f"{path}/{query}"}, content_type="text/html")
        return not_found()

    async def _view(self, request: web.Request, allowed: tuple[str, ...], view: View) -> web.Response:
        accept = request.headers.get("Accept", "*/*")
        api = request.path.startswith("/api/")
        html = api and "text/html" in accept
        if api and not html and not any(kind in accept for kind in ("*/*", "application/json", "application/*")):
            return detail(406, "Could not satisfy the request Accept header.")
        if request.method not in allowed or request.method == "PATCH":
            response = detail(405, f'Method "{request.method}" not allowed.')
        else:
            response = await view(request)
        if html and response.content_type == "application/json":
            text = response.body.decode() if isinstance(response.body, bytes) else ""
            response = page("Django REST framework", f"<pre>{text}</pre>", status=response.status)
        if api:
            response.headers["Allow"] = ", ".join(allowed)
        return response

    def _member(self, request: web.Request) -> bool:
        known = request.cookies.get("sessionid") == self.session_token and self.session_valid
        return known and not request.get(EXPIRED, False)

    def _origin(self, request: web.Request) -> str:
        return self.link_origin or f"{request.scheme}://{request.host}"

    def _visible(self, request: web.Request) -> list[Target]:
        return list(self.world.visible(member=self._member(request)))

    def _list(self, request: web.Request, rows: list[dict[str, Any]]) -> web.Response:
        # The lists have no order of their own; what order they come in does not change between two pages.
        return listing(request, shuffled(rows, self.seed, request.path), self._origin(request))

    async def _landing(self, request: web.Request) -> web.Response:
        member = str(self._member(request)).lower()
        context = f"var DJANGO_CONTEXT = {{authenticated: {member}}}"
        html = f"<!DOCTYPE html>\n<html><body><script>{context}</script></body></html>\n"
        response = web.Response(text=html, content_type="text/html", headers={"Vary": "Cookie"})
        token = request.cookies.get("csrftoken") or (identifier("csrf", self.seed, len(self.requests)) * 2).replace(
            "-", ""
        )
        response.set_cookie("csrftoken", token, max_age=31449600, samesite="Lax")
        return response

    async def _user(self, request: web.Request) -> web.Response:
        if not self._member(request):
            return reply({"user": "AnonymousUser", "user_id": "None", "ping": "OK", "target_access": []})
        access = sorted(self.world.projects)
        return reply({"user": "sandbox", "user_id": "1", "ping": "OK", "target_access": access})

    async def _targets(self, request: web.Request) -> web.Response:
        title = request.query.get("title")
        found = [target for target in self._visible(request) if title in (None, "", target.name)]
        return self._list(request, [target_row(target, self._origin(request)) for target in found])

    async def _projects(self, request: web.Request) -> web.Response:
        member = self._member(request)
        found = [project for project in self.world.projects.values() if member or project.listed]
        return self._list(request, [project_row(project) for project in found])

    async def _uploads(self, request: web.Request) -> web.Response:
        found = self._visible(request)
        for name, ids in (("target", [t.id for t in found]), ("project", [t.project.id for t in found])):
            if wanted := request.query.get(name):
                if wanted not in map(str, ids):
                    words = "Select a valid choice. That choice is not one of the available choices."
                    return reply({name: [words]}, status=400)
                found = [t for t in found if str(t.id if name == "target" else t.project.id) == wanted]
        origin = self._origin(request)
        rows = [upload_row(t, index, origin, self.age) for t in found for index in range(1, t.published + 1)]
        return self._list(request, rows)

    async def _observations(self, request: web.Request) -> web.Response:
        found = self._chosen(request)
        if found is None:
            return server_error()
        rows = [
            observation_row(target, observation, self._origin(request), self.age)
            for target in found
            for observation in (target.current if self.age == "2024" else target.observations)
        ]
        return self._list(request, rows)

    async def _compounds(self, request: web.Request) -> web.Response:
        found = self._chosen(request)
        if found is None:
            return server_error()
        rows = [compound_row(each, target.project) for target in found for each in target.compounds.values()]
        return self._list(request, rows)

    async def _nothing(self, request: web.Request) -> web.Response:
        return self._list(request, [])

    def _chosen(self, request: web.Request) -> list[Target] | None:
        """Return the targets of `?target=`: none for an unknown id, None for what is no number (unhandled there)."""
        wanted = request.query.get("target")
        if wanted and not wanted.isdecimal():
            return None
        return [target for target in self._visible(request) if not wanted or target.id == int(wanted)]

    async def _task(self, request: web.Request) -> web.Response:
        task_id = request.path.split("/")[3]
        if not _UUID.fullmatch(task_id):
            return not_found()
        if self.age == "2024" and not self._member(request):
            return reply({"error": "Only authenticated users can check the task status"}, status=403)
        status = self.downloads.task(task_id)
        return reply(status or {"started": False, "finished": False, "status": "UNKNOWN", "messages": []})

    async def _download(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            return self.downloads.file(request.query.get("file_url"))
        if self._member(request) and (problem := _csrf_problem(request)):
            return detail(403, f"CSRF Failed: {problem}")
        if request.content_type == "application/json":
            try:
                form = dict(json.loads(await request.text()))
            except (ValueError, TypeError) as error:
                return detail(400, f"JSON parse error - {error}")
        else:
            form = dict(await request.post())
        return await self.downloads.request(form, member=self._member(request), fails=request.get(FAILS, False))


def _csrf_problem(request: web.Request) -> str | None:
    """Say what is wrong with a session user's POST (captures `download_post_member_*`); nobody else is checked."""
    if request.headers.get("X-Forwarded-Proto") == "https" and "Referer" not in request.headers:
        return "Referer checking failed - no Referer."
    if "csrftoken" not in request.cookies:
        return "CSRF cookie not set."
    if request.headers.get("X-CSRFToken") != request.cookies["csrftoken"]:
        return "CSRF token missing or incorrect."
    return None
