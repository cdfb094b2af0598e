"""The way to Apprise: a child process for each message, so that nothing blocks the loop and no memory stays taken.

    await Notifier(settings.http).send(url, letter)

The child gets URLs and message through its standard input. It is killed at a deadline, or when nobody waits for it any
more, and ends with this process.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec

from watcher.child import environment
from watcher.errors import Ours, SettingsError, Transient
from watcher.notify import Letter, Request, Verdict
from watcher.settings import HttpSettings, NotifySettings

DEADLINE = timedelta(seconds=30)
"""Of one message to one address. A service that is silent is given up by Apprise itself after some seconds."""
_REPLY = msgspec.json.Decoder(list[Verdict])
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class NotSent(Transient):
    """A message was not sent, or nobody knows; it is tried again."""


class Notifier:
    """Sends messages. `[http]` says which proxies and which certificates count; `command` replaces the child's."""

    def __init__(
        self, http: HttpSettings, *, deadline: timedelta = DEADLINE, command: Sequence[str] | None = None
    ) -> None:
        self._http = http
        self._deadline = deadline.total_seconds()
        self._command = tuple(command or (sys.executable, "-P", "-m", "watcher.notify"))

    async def send(self, url: str, letter: Letter) -> None:
        """Send a message to one address. Raises NotSent, or Ours when the child cannot work."""
        (verdict,) = await self._ask((url,), letter)
        if not verdict.service:
            raise NotSent("Apprise cannot use this URL")
        if verdict.problem:
            raise NotSent(verdict.problem)

    async def unusable(self, urls: Sequence[str]) -> list[int]:
        """Return the entries, counted from 1, that Apprise cannot use. Raises NotSent or Ours."""
        verdicts = await self._ask(urls, None)
        return [number for number, verdict in enumerate(verdicts, start=1) if not verdict.service]

    async def _ask(self, urls: Sequence[str], letter: Letter | None) -> list[Verdict]:
        request = msgspec.json.encode(Request(tuple(urls), letter, round(self._deadline) + 5))
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,  # a traceback could show a URL
                env=self._environment(),
            )
        except OSError as error:
            raise Ours(f"the process that sends notifications does not start: {error}") from None
        try:
            async with asyncio.timeout(self._deadline):
                answer, _ = await child.communicate(request)
        except TimeoutError:
            raise NotSent(f"no answer in {self._deadline:g} s") from None
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                await child.wait()
        try:
            verdicts = _REPLY.decode(answer)
        except msgspec.MsgspecError:
            verdicts = []
        if len(verdicts) != len(urls):
            raise Ours(f"the process that sends notifications ended without an answer, exit status {child.returncode}")
        return verdicts

    def _environment(self) -> dict[str, str]:
        names = [name for upper in _PROXIES for name in (upper, upper.lower())] if self._http.trust_env else []
        found = environment() | {name: os.environ[name] for name in names if name in os.environ}
        if self._http.ca_file is not None:
            found["REQUESTS_CA_BUNDLE"] = str(self._http.ca_file.absolute())
        return found


def label_of(number: int, url: str) -> str:
    """Name an entry of `notify.urls` to people: its number and what stands before `://`, which is no secret."""
    scheme = re.match(r"[A-Za-z0-9]{1,20}(?=://)", url)
    return f"entry {number} ({scheme[0].lower() if scheme else '?'}://...)"


async def check(settings: NotifySettings, notifier: Notifier) -> None:
    """Make sure that Apprise can use every URL. Raises SettingsError that names those it cannot, NotSent, Ours."""
    urls = [url.get_secret_value() for url in settings.urls]
    if not urls:
        return
    key = "notify.urls_file" if settings.urls_file else "notify.urls"
    if problems := await notifier.unusable(urls):
        raise SettingsError(
            "\n".join(
                f"{key}: {label_of(number, urls[number - 1])} is no URL that Apprise can use; "
                'it must be of a form that it documents, such as "slack://TOKEN_A/TOKEN_B/TOKEN_C"'
                for number in problems
            )
        )
