"""Sends messages through Apprise, in a process of its own: the only module that imports Apprise.

`python -m watcher.notify` reads one `Request` from standard input, answers with one `Verdict` for each URL, and ends:
with all its services Apprise takes 20 MB, and its requests block. URLs are secrets. They come through standard input
only, and nothing of them is in an answer. `notify_process` is the parent's side.
"""

import logging
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

import msgspec

from watcher.child import confine
from watcher.redaction import redactor

if TYPE_CHECKING:
    from apprise import NotifyBase

_LONGEST_PROBLEM = 300


class Letter(msgspec.Struct, frozen=True):
    """What is to be sent."""

    subject: str
    body: str
    tone: Literal["info", "success", "warning"]


class Request(msgspec.Struct, frozen=True):
    """One call; without a letter the URLs are only looked at. `timeout` in seconds."""

    urls: tuple[str, ...]
    letter: Letter | None
    timeout: int


class Verdict(msgspec.Struct, frozen=True):
    """What became of one URL."""

    service: str
    """Name of the service; empty when Apprise cannot use the URL."""
    problem: str = ""
    """Why it was not sent; empty when it was."""


def main() -> None:
    """Answer one request; see the module's docstring."""
    confine()
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    signal.alarm(request.timeout)
    with replies:
        replies.write(msgspec.json.encode([deliver(url, request.letter) for url in request.urls]))


def deliver(url: str, letter: Letter | None) -> Verdict:
    """Send a letter to a URL, or only look whether Apprise can use it."""
    from apprise import Apprise, NotifyFormat, NotifyType

    said = _Listener()
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.handlers = [said]
    logger.setLevel(logging.WARNING)  # below that, it tells URLs
    server = _server(url)
    if server is None:
        return Verdict("")
    service = str(server.service_name)
    if letter is None:
        return Verdict(service)
    postman = Apprise()
    postman.add(server)
    try:
        sent = postman.notify(
            letter.body, title=letter.subject, notify_type=NotifyType(letter.tone), body_format=NotifyFormat.TEXT
        )
    except Exception as error:  # noqa: BLE001 - a plugin's fault is a reason like any other
        return Verdict(service, type(error).__name__)
    return Verdict(service, "" if sent else _without(url, said.words) or "Apprise gives no reason")


def _server(url: str) -> "NotifyBase | None":
    from apprise import Apprise, AppriseAsset, OverflowMode

    # Nothing is kept on the disk. One at a time: a thread would outlive its deadline.
    asset = AppriseAsset(secure_logging=True, storage_mode="memory", async_mode=False)
    server = Apprise.instantiate(url, asset=asset)
    if server is not None and "overflow=" not in url:
        server.overflow_mode = OverflowMode.SPLIT  # what a service finds too long would be refused forever
    return server


class _Listener(logging.Handler):
    """Keeps what Apprise warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.words = f"{self.words} {record.getMessage()}".strip()


def _without(url: str, words: str) -> str:
    """Take every part of a URL out of what Apprise says: any of them can be a token."""
    parts = re.split(r"[/:@?&=#,]+", url.partition("://")[2])
    scrub = redactor([url, *parts, *map(unquote, parts)])
    shown = str(scrub(words))
    return shown if len(shown) <= _LONGEST_PROBLEM else f"{shown[: _LONGEST_PROBLEM - 3]}..."


if __name__ == "__main__":
    main()
