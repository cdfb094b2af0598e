"""What comes back over HTTP, and what kind of failure it is."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import TypeVar

import msgspec
from multidict import CIMultiDictProxy

from watcher.errors import AuthFailure, Failure, Invalid, NotFound, Transient

T = TypeVar("T")
MAX_RETRY_AFTER = timedelta(days=1)
_MOST_VALUES = 8_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers, cookies set, body."""

    status: int
    headers: CIMultiDictProxy[str]
    cookies: SimpleCookie
    body: bytes
    what: str
    """Method and path, for messages; never the query, which can hold a link that works as a secret."""
    received_at: datetime

    @property
    def is_html(self) -> bool:
        """Whether a web page came."""
        kind = self.headers.get("Content-Type", "").strip().lower()
        return kind.startswith(("text/html", "application/xhtml")) or self.body[:200].lstrip().lower().startswith(
            (b"<!doctype html", b"<html")
        )

    @property
    def text(self) -> str:
        """The first 500 characters of the body, printable, for messages."""
        return "".join(c if c.isprintable() else " " for c in self.body[:2000].decode("utf-8", "replace"))[:500].strip()

    @property
    def retry_after(self) -> timedelta | None:
        """What the server asked us to wait: seconds or a date (RFC 9110, 10.2.3), at most a day."""
        return parse_retry_after(self.headers.get("Retry-After"), self.received_at)

    def json(self, type_: type[T]) -> T:
        """Decode the body; only the fields that `type_` names are kept in memory.

        Raises Transient when it is no JSON (a page, a cut answer), Invalid when it is JSON of another shape.
        """
        if self.is_html:
            raise Transient(f"{self.what} answered with a web page where JSON belongs{_page_title(self.body)}")
        try:
            return msgspec.json.decode(self.body, type=type_)
        except msgspec.ValidationError as error:
            raise Invalid(f"{self.what} answered with JSON of an unknown shape: {error}") from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Transient(f"{self.what} answered with JSON that cannot be read: {error}") from None

    def failure(self) -> Failure | None:
        """Say what kind of failure the status is; None for 2xx."""
        if 200 <= self.status < 300:
            return None
        said = f": {self.text}" if self.text and not self.is_html else ""
        if self.status in (401, 403):
            return AuthFailure(f"{self.what} was refused with {self.status}{said}")
        if self.status < 400 or self.status in (408, 425, 429) or self.status >= 500:
            return Transient(f"{self.what} answered {self.status}{said}", retry_after=self.retry_after)
        kind = NotFound if self.status == 404 else Invalid
        return kind(f"{self.what} answered {self.status}{said}")


@dataclass(frozen=True, slots=True)
class NotSent:
    """A request that certainly did not reach the service: no connection came about."""

    reason: str
    ours: bool = False
    """The fault is on this machine."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request that may have reached the service, without an answer that can be read."""

    reason: str


def is_crowded(body: bytes) -> bool:
    """Say whether JSON may hold more values than can be told apart: each takes 70 bytes, however short its text is."""
    return body.count(b",") > _MOST_VALUES


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header, seconds or a date; None when absent or unreadable."""
    if not value:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", value):
        wait = timedelta(seconds=int(value.strip()[:9]))
    else:
        try:
            wait = parsedate_to_datetime(value) - now
        except (TypeError, ValueError, OverflowError):
            return None
    return max(timedelta(), min(wait, MAX_RETRY_AFTER))


def _page_title(body: bytes) -> str:
    head = body[:4000].decode("utf-8", "replace")
    _, found, rest = head.partition("<title>")
    title = " ".join(rest.partition("</title>")[0].split())[:80]
    return f" (titled {title!r})" if found and title else ""
