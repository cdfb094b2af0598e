"""Download requests: their checks, the builds they start, and the links that come out.

Order and words of the refusals are those of the captures `download_post_*` and `download_get_*`. The 2024 server builds
while the POST waits and answers with the file; the 2026 server answers with a task to poll (`2026/task_status_*`).
Links live 90 minutes.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web

from watcher.sandbox.archives import build
from watcher.sandbox.chance import identifier
from watcher.sandbox.replies import message, reply, server_error
from watcher.sandbox.shapes import Age
from watcher.sandbox.world import Observation, Target, World

LINK_SECONDS = 90 * 60.0
FLAGS = (
    "all_aligned_structures", "cif_info", "diff_file", "event_file", "map_info", "metadata_info", "mtz_info",
    "pdb_info", "sigmaa_file", "trans_matrix_info", "single_sdf_file", "compound_sets", "static_link", "soakdb_files",
)  # fmt: skip
_BOOLEANS = {
    "true": True,
    "1": True,
    "on": True,
    "yes": True,
    "": False,
    "false": False,
    "0": False,
    "off": False,
    "no": False,
}
_STAGES = ("Start processing", "Creating tarball contents...", "Compressing tarball...", "File created")


@dataclass
class Pace:
    """How long a build takes: in seconds, and (2026) for how many polls it says RUNNING."""

    seconds: float = 0.0
    polls: int = 2


@dataclass
class Build:
    """One build, and the file that it makes."""

    key: tuple[object, ...]
    task_id: str
    file_url: str
    content: bytes
    started: float
    fails: bool = False
    polls: int = 0

    def finished(self, pace: Pace, now: float) -> bool:
        """Say whether the file is there."""
        return self.polls > pace.polls and now >= self.started + pace.seconds


class Downloads:
    """All builds of one server."""

    def __init__(self, world: World, age: Age, pace: Pace, clock: Callable[[], float], seed: int) -> None:
        self.pace = pace
        self._world = world
        self._age = age
        self._clock = clock
        self._seed = seed
        self._builds: list[Build] = []

    async def request(self, form: Mapping[str, Any], *, member: bool, fails: bool) -> web.Response:
        """Answer a POST."""
        flags = _flags(form)
        if "file_url" not in form or flags is None:
            return server_error()  # a missing key or a boolean that does not parse is not handled there
        if form["file_url"]:
            return message(400, "file_url should only be provided for static files")
        if not form.get("target_name"):
            return message(400, "If no file_url, a target_name (title) must be provided")
        if not form.get("target_access_string"):
            return message(400, "If no file_url, a target_access_string must be provided")
        found = self._find(str(form["target_name"]), str(form["target_access_string"]), member)
        if isinstance(found, web.Response):
            return found
        wanted = [code for code in str(form.get("proteins", "")).split(",") if code]
        observations = [each for each in found.current if not wanted or each.row.code in wanted]
        if not observations:
            return message(
                404, f"Please enter list of valid protein codes for target: {found.name}, proteins: {wanted}"
            )
        return await self._start(found, observations, flags, fails=fails or not found.buildable)

    def file(self, file_url: str | None) -> web.Response:
        """Answer a GET: whoever knows the link gets the file, labelled zip whatever it is."""
        if file_url is None:
            return message(404, "Please provide file_url parameter from post response")
        for build_ in self._builds:
            alive = self._clock() < build_.started + self.pace.seconds + LINK_SECONDS
            if build_.file_url == file_url and alive and build_.finished(self.pace, self._clock()) and not build_.fails:
                name = file_url.rpartition("/")[2]
                headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(name)}"}
                if name.isascii():
                    headers["Content-Disposition"] = f'attachment; filename="{name}"'
                return web.Response(body=build_.content, content_type="application/zip", headers=headers)
        return message(404, "file_url is not found")

    def task(self, task_id: str) -> dict[str, Any] | None:
        """Return the status of a build, None if there is none of that id; asking moves it on."""
        build_ = next((each for each in self._builds if each.task_id == task_id), None)
        if build_ is None:
            return None
        build_.polls += 1
        if not build_.finished(self.pace, self._clock()):
            stage = _STAGES[min(build_.polls, len(_STAGES)) - 1]
            return {"started": True, "finished": False, "status": "RUNNING", "messages": [stage]}
        if build_.fails:
            words = "The download task ended unexpectedly (FileNotFoundError)"
            return {"started": True, "finished": True, "status": "FAILED", "messages": [words]}
        return {"started": True, "finished": True, "status": "SUCCESS", "messages": [build_.file_url]}

    def _find(self, name: str, tas: str, member: bool) -> Target | web.Response:
        project = self._world.projects.get(tas)
        if project is None:
            return message(404, f'Project "{tas}" does not exist')
        if not (member or project.listed):
            return message(404, f'User "" is not a member of {tas}')
        for target in self._world.visible(member=member):
            if target.name == name and target.project is project:
                return target
        return message(404, f'Target "{name}" does not exist under project {tas}')

    async def _start(
        self, target: Target, observations: list[Observation], flags: dict[str, bool], *, fails: bool
    ) -> web.Response:
        # A file is kept by target, observation codes and flags while its link lives (`download_post_anonymous_repeat`).
        key = (target.id, target.name, tuple(each.row.code for each in observations), tuple(sorted(flags.items())))
        now = self._clock()
        build_ = next((each for each in self._builds if each.key == key and now < each.started + LINK_SECONDS), None)
        if build_ is not None and build_.fails and build_.finished(self.pace, now):
            build_ = None  # a request after a failure starts afresh
        if self._age == "2024":
            if (
                fails or not target.name.isascii()
            ):  # the README cannot be typeset (capture `download_post_unicode_title`)
                return server_error()
            if build_ is None:
                await asyncio.sleep(self.pace.seconds)
                build_ = self._build(key, target, observations, flags)
                build_.polls = self.pace.polls + 1
            return reply({"file_url": build_.file_url})
        if build_ is None:
            build_ = self._build(key, target, observations, flags)
            build_.fails = fails
        if build_.finished(self.pace, now):
            return reply({"file_url": build_.file_url})
        return reply({"task_status_url": f"/viewer/task_status/{build_.task_id}/"}, status=202)

    def _build(
        self, key: tuple[object, ...], target: Target, observations: list[Observation], flags: dict[str, bool]
    ) -> Build:
        task_id = identifier("build", self._seed, len(self._builds))
        suffix = "zip" if self._age == "2024" else "tar.gz"
        url = f"/code/media/downloads/{task_id}/{target.name}.{suffix}"
        build_ = Build(key, task_id, url, build(target, observations, flags, self._age), self._clock())
        self._builds.append(build_)
        return build_


def _flags(form: Mapping[str, Any]) -> dict[str, bool] | None:
    flags = {name: _BOOLEANS.get(str(form.get(name, "")).lower()) for name in FLAGS}
    whole = {name: value for name, value in flags.items() if value is not None}
    return whole if len(whole) == len(FLAGS) else None
