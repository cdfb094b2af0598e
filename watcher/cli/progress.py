"""Runs a pass over the record, shows how far it is, and stops it cleanly when asked to."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from watcher.cli.output import on_terminal, say
from watcher.errors import Ours
from watcher.pipeline.settle import settle
from watcher.store.progress import Progress, progress

if TYPE_CHECKING:
    from watcher.program import Program

Ended = Literal["settled", "timeout", "interrupted"]
Show = Callable[[Progress], None]
_LOOK = 0.25
_LINE_EVERY = 2.0


async def run_pass(program: "Program", show: Show, *, timeout: timedelta | None = None) -> Ended:
    """Scan and settle; stop at the deadline, or at SIGINT and SIGTERM. Returns how it ended."""
    interrupted = asyncio.Event()
    runner = program.runner
    with _signals(interrupted):
        await runner.scan.request()
        settling = asyncio.create_task(settle(runner))
        watching = asyncio.create_task(_watch(program, show))
        waiting = asyncio.create_task(interrupted.wait())
        try:
            limit = timeout.total_seconds() if timeout else None
            await asyncio.wait({settling, waiting}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if settling.done():
                await settling
                await _look(program, show)
                return "settled"
            await runner.stop(program.context.settings.daemon.shutdown_timeout)
            return "interrupted" if interrupted.is_set() else "timeout"
        finally:
            for task in (settling, watching, waiting):
                task.cancel()
            await asyncio.gather(settling, watching, waiting, return_exceptions=True)


async def _watch(program: "Program", show: Show) -> None:
    while True:
        await asyncio.sleep(_LOOK)
        await _look(program, show)


async def _look(program: "Program", show: Show) -> None:
    try:
        async with program.context.store.read() as session:
            now = await progress(session)
    except Ours:
        return  # the runner says it
    show(now)


@contextmanager
def _signals(interrupted: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    wanted = (signal.SIGINT, signal.SIGTERM)
    for number in wanted:
        loop.add_signal_handler(number, interrupted.set)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


@dataclass
class _Start:
    """What was done before this pass: it is not counted again."""

    archived: int | None = None
    scored: int = 0

    def since(self, now: Progress) -> Progress:
        if self.archived is None:
            self.archived, self.scored = now.archived, now.scored
        return Progress(
            now.archived - self.archived,
            now.archives - self.archived,
            now.scored - self.scored,
            now.compounds - self.scored,
        )


@contextmanager
def bars() -> Iterator[Show]:
    """Show two bars on the terminal, on standard error; lines printed meanwhile stand above them."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = _Start()
    with Bars(*columns, console=Console(stderr=True)) as shown:
        archives = shown.add_task("Uploads archived", total=None)
        compounds = shown.add_task("Compounds scored", total=None)

        def show(now: Progress) -> None:
            done = start.since(now)
            shown.update(archives, completed=done.archived, total=done.archives)
            shown.update(compounds, completed=done.scored, total=done.compounds)

        yield show


@contextmanager
def lines() -> Iterator[Show]:
    """Show a line whenever something has changed, at most every two seconds."""
    start, last_at, last = _Start(), 0.0, ""

    def show(now: Progress) -> None:
        nonlocal last_at, last
        done = start.since(now)
        text = f"  uploads archived {done.archived}/{done.archives}, compounds scored {done.scored}/{done.compounds}"
        complete = done.archived == done.archives and done.scored == done.compounds
        if text != last and (complete or time.monotonic() - last_at >= _LINE_EVERY):
            last_at, last = time.monotonic(), text
            say(text)

    yield show


@contextmanager
def nothing() -> Iterator[Show]:
    """Show nothing: the log says it."""
    yield lambda _: None


def wants_bars() -> bool:
    """Say whether somebody looks at standard error."""
    return on_terminal(sys.stderr)
