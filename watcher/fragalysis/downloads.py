"""Getting the archive of a target: ask for it, wait for the build, fetch the file.

A stack of 2024 answers the request with the file's link after up to 35 s; one of 2026 with a task to be polled
(captures `download_post_anonymous_csrf`, `2026/download_post_task`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec

from watcher.answers import Answer
from watcher.clock import Clock
from watcher.errors import AuthFailure, Failure, Invalid, NotFound, Transient
from watcher.fragalysis.builds import BuildFailed, Building, BuildReady, BuildTask, FileLink, TaskStatus
from watcher.fragalysis.session import Session
from watcher.http import SHORT
from watcher.points import reach
from watcher.settings import DownloadSettings

DOWNLOAD_PATH = "/api/download_structures/"

_FIRST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(seconds=30)
_LONGEST_RETRY_AFTER = timedelta(minutes=5)
_FAILED_LOOKS = 5
_BUILDS = 3
_CLOCK_STEP = timedelta(minutes=1)
"""Further ahead no build was asked for but by a clock that was ahead: nobody knows when."""
_IS_DOWN = (502, 503)
"""What a proxy says while the stack is away; 504 can be a build that takes too long."""


class CannotBuild(Transient):
    """The server did not produce the archive: 5xx, a failed, lost or too long build. A stored task is of no more use.

    A caller counts these: some targets can never be built (captures `download_post_missing_files` and
    `download_post_unicode_title`).
    """


class LinkExpired(Transient):
    """The file that a link leads to is not there any more; another request finds or builds it again."""


class NotAMember(AuthFailure):
    """This visitor may not have this target's files (capture `download_post_private_anonymous`)."""


class NoObservations(Invalid):
    """The target holds no observation, so that there is nothing to pack (capture `download_post_no_observation`)."""


class _Requested(msgspec.Struct, frozen=True):
    file_url: str | None = None
    task_status_url: str | None = None


class _Message(msgspec.Struct, frozen=True):
    message: str = ""


class Downloads:
    """The download protocol of one stack."""

    def __init__(self, session: Session, clock: Clock, build_timeout: timedelta) -> None:
        self._session = session
        self._clock = clock
        self._build_timeout = build_timeout

    async def request_download(self, name: str, tas: str, options: DownloadSettings) -> FileLink | BuildTask:
        """Ask for the archive of a target: a link, or a build to wait for. The same request again finds the same file.

        Raises Transient for "later" (208: being prepared for somebody else, 429: at capacity, 502 and 503: away);
        CannotBuild for any other 5xx; NotAMember, AuthFailure; NoObservations, NotFound and Invalid for other answers.
        """
        requested_at = self._clock.now()
        answer = await self._session.post(DOWNLOAD_PATH, payload(name, tas, options), operation="download_request")
        subject = f"the download of {name} ({tas})"
        if answer.status == 208:
            raise Transient(f"{subject} is being prepared for somebody else", retry_after=answer.retry_after)
        if (failure := self._session.failure(answer)) is not None:
            raise _refused(answer, failure, subject)
        requested = self._session.json(answer, _Requested)
        if requested.file_url:
            return FileLink(requested.file_url)
        if requested.task_status_url:
            return BuildTask(requested.task_status_url, requested_at)
        raise Invalid(f"{subject} was answered with neither a file nor a task")

    async def build_status(self, task: BuildTask) -> FileLink | Building | BuildFailed | BuildReady:
        """Look at a build; `watcher.fragalysis.builds` tells how a task page is read.

        Raises Transient for a 404 too, which passes when the server's workers restart.
        """
        answer = await self._session.get(task.path, operation="download_status", limit=SHORT)
        if answer.status == 404:
            raise _TaskMissing("Fragalysis does not find the task of a download at the moment")
        return self._session.json(answer, TaskStatus).read()

    @asynccontextmanager
    async def fetch(self, link: FileLink) -> AsyncIterator[tuple[int | None, AsyncIterator[bytes]]]:
        """Open a built file: its announced length in bytes, if any, and its bytes in pieces.

        Raises LinkExpired, and Transient when the transfer breaks off, within the iteration too.
        """
        params = {"file_url": link.path}
        async with self._session.stream(DOWNLOAD_PATH, operation="download_file", params=params) as (answer, chunks):
            if answer.status == 404:
                raise LinkExpired("the link of a download has expired; it is asked for again")
            if (failure := self._session.failure(answer)) is not None:
                failure.message = f"{answer.what} answered {answer.status}"  # the body may repeat the link
                failure.args = (failure.message,)
                raise failure
            length = answer.headers.get("Content-Length", "")
            encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
            yield (int(length) if length.isdecimal() and not encoded else None), chunks

    async def download_target(
        self,
        name: str,
        tas: str,
        options: DownloadSettings,
        *,
        resume: BuildTask | None = None,
        on_task: Callable[[BuildTask], Awaitable[None]] | None = None,
    ) -> FileLink:
        """Get the link of a target's archive, however long the server builds: ask, wait, look, and ask again.

        `on_task` is told each build before it is waited for, `resume` takes one up after a restart. After CannotBuild
        the task is of no more use, after any other Transient it may be resumed.
        """
        subject = f"the build of {name} ({tas})"
        task = resume
        for _ in range(_BUILDS):
            if task is None:
                asked = await self.request_download(name, tas, options)
                reach("download.requested")
                if isinstance(asked, FileLink):
                    return asked
                task = asked
                if on_task is not None:
                    await on_task(task)
            link = await self._wait_for(task, subject)
            if link is not None:
                return link
            task = None
        raise CannotBuild(f"{subject} ended {_BUILDS} times without a file; it is asked for again later")

    async def _wait_for(self, task: BuildTask, subject: str) -> FileLink | None:
        """Return the link when the build is ready; None when it has to be asked for by another request."""
        wait, failed_looks = _FIRST_WAIT, 0
        while True:
            pause = wait
            try:
                status = await self.build_status(task)
            except Transient as failure:
                failed_looks += 1
                pause = max(wait, failure.retry_after or wait)
                if failed_looks >= _FAILED_LOOKS or pause > _LONGEST_RETRY_AFTER:
                    if isinstance(failure, _TaskMissing):
                        raise CannotBuild(f"{subject} is not known to Fragalysis any more") from failure
                    raise
            else:
                failed_looks = 0
                if isinstance(status, FileLink):
                    return status
                if isinstance(status, BuildReady):
                    return None
                if isinstance(status, BuildFailed):
                    raise CannotBuild(f"{subject} failed on the server: {status.message or 'no reason was given'}")
            age = self._clock.now() - task.requested_at
            if age > self._build_timeout or age < -_CLOCK_STEP:
                raise CannotBuild(f"{subject} was not ready after {self._build_timeout}; it is asked for again later")
            await self._clock.sleep(pause)
            wait = min(wait * 1.5, _LONGEST_WAIT)


class _TaskMissing(Transient):
    """The task page answered 404."""


def payload(name: str, tas: str, options: DownloadSettings) -> dict[str, str]:
    """Return the form of a download request, field by field as the published `download_target` sends it.

    `file_url` must be present, and booleans must parse, else the server answers 500 (captures
    `download_post_no_file_url_key`, `download_post_bad_bool`).
    """
    return {
        "target_name": name,
        "target_access_string": tas,
        "all_aligned_structures": str(True),
        "cif_info": str(options.ligand_cifs),
        "diff_file": str(options.residual_maps),
        "event_file": str(options.event_maps),
        "map_info": str(options.real_space_maps),
        "metadata_info": str(options.metadata_file),
        "mtz_info": str(options.reflections_files),
        "pdb_info": str(options.unaligned_pdbs),
        "sigmaa_file": str(options.inspection_maps),
        "trans_matrix_info": str(options.transformation_files),
        "single_sdf_file": str(options.combined_sdf),
        "compound_sets": str(options.compound_set_sdfs),
        "file_url": "",
        "proteins": "",
        "static_link": str(False),
        "soakdb_files": str(options.soakdb_files),
    }


def _refused(answer: Answer, failure: Failure, subject: str) -> Failure:
    """Say what a refused download request means."""
    try:
        said = msgspec.json.decode(answer.body, type=_Message).message[:300]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = ""
    if answer.status == 404 and "is not a member of" in said:
        return NotAMember(f"{subject} was refused: {said}", action=failure.action or _MEMBERSHIP)
    if answer.status == 404 and "list of valid protein codes" in said and said.rstrip().endswith("[]"):
        return NoObservations(f"{subject} was refused because the target holds no observations yet")
    if answer.status == 429:
        return Transient(f"{subject} has to wait: the server builds as much as it can", retry_after=answer.retry_after)
    if answer.status >= 500 and answer.status not in _IS_DOWN:
        return CannotBuild(f"{subject} failed on the server with {answer.status}", retry_after=answer.retry_after)
    if answer.status == 404 and said:
        return NotFound(f"{subject} was refused with 404: {said}")
    if isinstance(failure, AuthFailure):
        return AuthFailure(f"{subject} was refused: {failure.message}", action=failure.action)
    return failure


_MEMBERSHIP = "sign in as a member of the proposal and set fragalysis.token, or exclude the target"
