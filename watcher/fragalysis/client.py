"""What Fragalysis holds: targets, uploads, observations. A list is complete or a failure, never a part of the whole."""

import html
import re
from dataclasses import replace
from typing import Self

import msgspec
import structlog

from watcher.clock import Clock
from watcher.fragalysis.downloads import Downloads
from watcher.fragalysis.paging import read_listing
from watcher.fragalysis.records import (
    Observation,
    ObservationRow,
    ProjectRow,
    Target,
    TargetRow,
    TargetUploads,
    Upload,
    UploadRow,
)
from watcher.fragalysis.session import Session
from watcher.http import SHORT
from watcher.settings import Settings

log = structlog.get_logger(__name__)

TARGETS_PATH = "/api/targets/"
PROJECTS_PATH = "/api/projects/"
UPLOADS_PATH = "/api/target_experiment_uploads/"
OBSERVATIONS_PATH = "/api/site_observations/"
USER_PATH = "/api/user"


class _User(msgspec.Struct, frozen=True):
    user: str


class Fragalysis(Downloads):
    """One stack as one visitor sees it: an async context manager.

    Every call may raise Transient, AuthFailure or Invalid, as `watcher.errors` tells.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        """Raise SettingsError when the token cannot be one."""
        super().__init__(Session(settings, clock=clock), clock, settings.fragalysis.build_timeout)
        self._unlisted: set[int] = set()

    async def __aenter__(self) -> Self:
        """Return self; nothing is asked yet."""
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close every connection."""
        await self._session.__aexit__(*exception)

    async def target_list(self) -> list[Target]:
        """Return every target that this visitor sees, by id."""
        rows = await read_listing(self._session, TARGETS_PATH, TargetRow, operation="targets")
        projects = await self._projects()
        return sorted((row.record(projects) for row in rows), key=lambda target: target.target_id)

    async def target_uploads(self) -> dict[int, TargetUploads]:
        """Return every target with its uploads, by target id; targets without any included.

        Uploads are read first, so that a target that comes with its first upload in between is in the later list of
        targets. The newest upload names a target, for the list of targets may lag behind; but a target is open to the
        public only if both say so, for the upload may name the project that the target has left. An upload of 2024
        whose target is not listed has no name to be followed by and is left out.
        """
        rows = await read_listing(self._session, UPLOADS_PATH, UploadRow, operation="uploads")
        target_rows = await read_listing(self._session, TARGETS_PATH, TargetRow, operation="targets")
        projects = await self._projects()

        pairs = sorted(((row.record(), row) for row in rows), key=lambda pair: _age(pair[0]))
        listed = {target.target_id: target for target in (row.record(projects) for row in target_rows)}
        targets = dict(listed)
        for upload, row in pairs:
            targets[upload.target_id] = row.target_record(projects) or targets.get(upload.target_id) or _NOT_LISTED
        for target_id, target in listed.items():
            if not target.open_to_public:
                targets[target_id] = replace(targets[target_id], open_to_public=target.open_to_public)
        uploads: dict[int, list[Upload]] = {target_id: [] for target_id in targets}
        for upload, _ in pairs:
            uploads[upload.target_id].append(upload)
        self._tell_unlisted({target_id for target_id, target in targets.items() if target is _NOT_LISTED})
        return {
            target_id: TargetUploads(target, tuple(uploads[target_id]))
            for target_id, target in sorted(targets.items())
            if target is not _NOT_LISTED
        }

    async def get_target_compound_smiles(self, target_id: int) -> list[Observation]:
        """Return the observations of a target by id, superseded ones left out; none for an unknown target.

        The 2024 server lists no superseded rows itself (capture `site_observations_target1`).
        """
        rows = await read_listing(
            self._session, OBSERVATIONS_PATH, ObservationRow, operation="observations", filters={"target": target_id}
        )
        kept = (row.record() for row in rows if not row.superseded)
        return sorted(kept, key=lambda observation: observation.observation_id)

    async def user(self) -> str | None:
        """Return the name of the signed-in user; None for an anonymous visitor.

        From `/api/user` (2026), else from the landing page (captures `2026/api_user_anonymous`, `landing_anonymous`).
        """
        answer = await self._session.get(USER_PATH, operation="user", limit=SHORT)
        if answer.status not in (404, 405):
            name = self._session.json(answer, _User).user
            return None if name in ("", "AnonymousUser") else name
        page = (await self._session.landing_page()).body.decode("utf-8", "replace")
        if not re.search(r"\bauthenticated:\s*true\b", page):
            return None
        found = re.search(r"\busername:\s*'([^']*)'", page)
        return html.unescape(found[1]) if found else "(name unknown)"

    async def _projects(self) -> dict[int, ProjectRow]:
        rows = await read_listing(self._session, PROJECTS_PATH, ProjectRow, operation="projects")
        return {int(row.id): row for row in rows}

    def _tell_unlisted(self, target_ids: set[int]) -> None:
        """Log when the set changes, not on every scan."""
        if target_ids == self._unlisted:
            return
        if target_ids:
            log.warning("uploads_of_unlisted_targets", target_ids=sorted(target_ids))
        else:
            log.info("uploads_of_unlisted_targets_no_more")
        self._unlisted = target_ids


_NOT_LISTED = Target(-1, "", "", None)


def _age(upload: Upload) -> tuple[object, ...]:
    return upload.committed_at, upload.upload_index, upload.target_id
