"""A build on the server, as it is asked for and looked at: its task, its state, and the link in the end.

A link works for everybody who knows it (capture `download_get_private_anonymous`): it stands in no message, log or
repr, and neither does the task that leads to it.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec
from yarl import URL

from watcher.errors import Invalid

_LINK = re.compile(r"/code/media/downloads(?:/[^/?#\\\x00-\x1f\x7f]+)+\.(?:zip|tar\.gz|tgz)")
_TASK = re.compile(r"/viewer/task_status/(?P<id>[A-Za-z0-9_-]+)/?")


@dataclass(frozen=True, slots=True)
class FileLink:
    """Where a built file lies; good for 60 to 90 minutes. A secret. Raises Invalid for anything but a safe path."""

    path: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no path of a download, without repeating it."""
        if not _LINK.fullmatch(self.path) or not {".", ".."}.isdisjoint(self.path.split("/")):
            raise Invalid("Fragalysis answered the download request with a link that is no path of a download")

    @property
    def format(self) -> Literal["zip", "tar.gz"]:
        """What the link says the file is; the first bytes say what it is in truth."""
        return "zip" if self.path.endswith(".zip") else "tar.gz"


@dataclass(frozen=True, slots=True)
class BuildTask:
    """A build under way on the server, to be kept over a restart; its page holds the link in the end."""

    path: str = field(repr=False)
    requested_at: datetime

    def __post_init__(self) -> None:
        """Reduce an absolute URL to its path; raise Invalid when it is no task page."""
        try:
            found = _TASK.fullmatch(URL(self.path).path)
        except ValueError:
            found = None
        if found is None:
            raise Invalid("Fragalysis answered the download request with a link that is no task page")
        object.__setattr__(self, "path", f"/viewer/task_status/{found['id']}/")


@dataclass(frozen=True, slots=True)
class Building:
    """Not ready yet; the last message of the build."""

    message: str


@dataclass(frozen=True, slots=True)
class BuildFailed:
    """The build is over without a file; the last message of the build."""

    message: str


@dataclass(frozen=True, slots=True)
class BuildReady:
    """The build succeeded without naming its file: the same request, posted again, answers with the link."""


class TaskStatus(msgspec.Struct, frozen=True):
    """The page of a task, as it came."""

    status: str = ""
    finished: bool = False
    messages: list[object] | str | None = None

    def read(self) -> FileLink | Building | BuildFailed | BuildReady:
        """Say what it means. The path of the file is the last message, whatever the status (`2026/task_status_5`).

        UNKNOWN is Building: a queued task is not yet known, and neither is a lost one (`task_status_unknown_member`).
        """
        message = self._last_message()
        if _LINK.fullmatch(message):
            return FileLink(message)
        said = re.sub(r"/code/media/downloads\S*", "(link)", message)[:300]
        if self.status == "SUCCESS":
            return BuildReady()
        if self.finished or self.status in ("FAILED", "FAILURE"):
            return BuildFailed(said)
        return Building(said)

    def _last_message(self) -> str:
        """Return the last message, printable; a list of them, or on older stacks one string (published client)."""
        messages = [self.messages] if isinstance(self.messages, str) else self.messages or [""]
        last = messages[-1]
        return "".join(c if c.isprintable() else " " for c in last).strip() if isinstance(last, str) else ""
