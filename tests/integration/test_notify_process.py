"""The process that sends: what arrives, what is said of what does not, and that it outlives nobody."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.pipeline import until
from watcher.errors import Ours, SettingsError
from watcher.notify import Letter
from watcher.notify_process import Notifier, NotSent, check
from watcher.settings import HttpSettings, NotifySettings

TOKEN = "t0ken-9fQ2"
LETTER = Letter("The subject: ü", "first line\nsecond <line> & more", "warning")
HTTP = HttpSettings(trust_env=False)


@dataclass
class Receiver:
    """A service of the user: keeps what is posted to it, and answers as it is told."""

    url: str = ""
    status: int = 200
    held: asyncio.Event | None = None
    posts: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Command line and environment of the children of this process while something arrives."""

    async def answer(self, request: web.Request) -> web.Response:
        self.posts.append(await request.json())
        self.seen += [((place / "cmdline").read_bytes(), (place / "environ").read_bytes()) for place in children()]
        if self.held is not None:
            await self.held.wait()
        return web.Response(status=self.status)


def children(of: int | None = None) -> Iterator[Path]:
    """The children of a process that send messages."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == (of or os.getpid()) and b"watcher.notify" in (place / "cmdline").read_bytes():
                yield place


@pytest.fixture
async def receiver(blockbuster: Any) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post(f"/{TOKEN}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"json://127.0.0.1:{runner.addresses[0][1]}/{TOKEN}"
    yield receiver
    if receiver.held is not None:
        receiver.held.set()
    await runner.cleanup()
    assert not list(children())


async def test_a_message_arrives_as_it_is(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHER_MOLECULE_ONE__TOKEN", "a-secret")
    await Notifier(HTTP).send(receiver.url, LETTER)
    (post,) = receiver.posts
    assert (post["title"], post["message"], post["type"]) == (LETTER.subject, LETTER.body, "warning")
    ((command, environment),) = receiver.seen
    assert b"watcher.notify" in command
    assert TOKEN.encode() not in command + environment
    assert b"a-secret" not in environment


@pytest.mark.slow
async def test_what_is_not_taken_is_said_without_secrets(receiver: Receiver) -> None:
    receiver.status = 500
    with pytest.raises(NotSent, match="500") as refused:
        await Notifier(HTTP).send(receiver.url, LETTER)
    assert TOKEN not in str(refused.value)
    with pytest.raises(NotSent, match="onnection") as unreachable:
        await Notifier(HTTP).send(f"json://127.0.0.1:9/{TOKEN}", LETTER)
    assert TOKEN not in str(unreachable.value)
    with pytest.raises(NotSent, match="cannot use"):
        await Notifier(HTTP).send(f"slack://{TOKEN}", LETTER)


@pytest.mark.slow
async def test_a_service_that_is_silent_is_given_up(receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    with pytest.raises(NotSent, match="no answer in 3 s"):
        await Notifier(HTTP, deadline=timedelta(seconds=3)).send(f"{receiver.url}?rto=60", LETTER)
    assert not list(children()), "the child is killed"
    await asyncio.wait_for(_given_up(receiver), 25)


async def _given_up(receiver: Receiver) -> None:
    with pytest.raises(NotSent):
        await Notifier(HTTP).send(receiver.url, LETTER)


@pytest.mark.slow
async def test_who_is_cancelled_leaves_no_child(receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    sending = asyncio.create_task(Notifier(HTTP).send(f"{receiver.url}?rto=60", LETTER))
    await until(lambda: receiver.posts)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert not list(children())


@pytest.mark.slow
async def test_the_child_ends_with_its_parent(receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    script = (
        "import asyncio\nfrom watcher.notify import Letter\nfrom watcher.notify_process import Notifier\n"
        "from watcher.settings import HttpSettings\n"
        f"asyncio.run(Notifier(HttpSettings()).send({receiver.url + '?rto=60'!r}, Letter('s', 'b', 'info')))"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await until(lambda: receiver.posts)
    (child,) = children(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await until(lambda: not (child / "exe").exists() or "(zombie)" in (child / "status").read_text())


@pytest.mark.parametrize(
    "command", [["/nowhere/python"], [sys.executable, "-c", "raise SystemExit(3)"], [sys.executable, "-c", "print(7)"]]
)
async def test_a_child_that_cannot_work_is_this_machine(command: list[str]) -> None:
    with pytest.raises(Ours, match="the process that sends notifications"):
        await Notifier(HTTP, command=command).send("json://127.0.0.1:9/", LETTER)


async def test_urls_that_cannot_be_used_are_named_by_their_number() -> None:
    settings = NotifySettings(urls=["json://127.0.0.1/x", f"slack://{TOKEN}", "mailto://me:pass@example.org", TOKEN])
    with pytest.raises(SettingsError) as refused:
        await check(settings, Notifier(HTTP))
    said = str(refused.value).splitlines()
    assert [line.partition(" is no URL")[0] for line in said] == [
        "notify.urls: entry 2 (slack://...)",
        "notify.urls: entry 4 (?://...)",
    ]
    assert TOKEN not in str(refused.value)
    from_file = NotifySettings(urls=["x"], urls_file="urls.txt")
    with pytest.raises(SettingsError, match=r"notify\.urls_file: entry 1"):
        await check(from_file, Notifier(HTTP))
    await check(NotifySettings(), Notifier(HTTP, command=["/nowhere"]))  # nothing to ask


def test_proxies_and_certificates_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    with_both = Notifier(HttpSettings(ca_file=tmp_path / "ca.pem"))._environment()
    assert with_both["https_proxy"] == "http://proxy.example:3128"
    assert with_both["REQUESTS_CA_BUNDLE"] == str(tmp_path / "ca.pem")
    assert not {"https_proxy", "REQUESTS_CA_BUNDLE"} & Notifier(HTTP)._environment().keys()
