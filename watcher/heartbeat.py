"""Whether the daemon lives, and what it tells the service manager of itself."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from watcher.errors import Failure
from watcher.program import Program
from watcher.schedule import Schedule
from watcher.store import overview
from watcher.store.overview import Pending
from watcher.store.schema import Condition
from watcher.systemd import ServiceManager

_log = structlog.get_logger(__name__)

BEAT = timedelta(seconds=10)
"""Longest time between two looks."""
_START = timedelta(minutes=1)
"""What a start asks for, again and again: bringing an old record up to date may take long."""
_DEADLINE_S = 5.0
SERVICES = {"fragalysis": "Fragalysis", "molecule_one": "Molecule.one"}
ILL = {"unreachable": "unreachable", "credentials": "refuses us", "unreadable": "gives unreadable answers"}
"""Kinds of condition that make a service count as down, in words."""
_WORK = {
    "extract": ("reading 1 upload", "reading {} uploads"),
    "download": ("1 archive to fetch", "{} archives to fetch"),
    "submit": ("1 compound to send", "{} compounds to send"),
    "reconcile": ("1 batch in doubt", "{} batches in doubt"),
    "collect": ("waiting for 1 batch", "waiting for {} batches"),
}


class Pulse:
    """Says whether the daemon lives: the stages are given turns, and the database answers.

    A service that is away changes nothing about it.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        # A turn asks the database several times, and each may wait so long before it gives up.
        timeout = program.context.settings.database.timeout
        self._patience_s = max(60.0, 3 * timeout.total_seconds())

    async def trouble(self) -> str:
        """Return what stands still; empty when all is well."""
        context = self._program.context
        silence = context.clock.monotonic() - self._program.runner.turned_at
        if silence > self._patience_s:
            return f"the stages have had no turn for {silence:.0f} s"
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await context.store.ping()
        except TimeoutError:
            return f"the database {context.store.label} is silent"
        except Failure as failure:
            return failure.message
        return ""


@asynccontextmanager
async def starting(manager: ServiceManager) -> AsyncIterator[None]:
    """Ask the service manager for more time while the block runs."""

    async def ask() -> None:
        while True:
            manager.tell(STATUS="starting", EXTEND_TIMEOUT_USEC=_START // timedelta(microseconds=1))
            await asyncio.sleep(BEAT.total_seconds())

    async with _beside(ask(), name="starting"):
        yield


@asynccontextmanager
async def beating(
    manager: ServiceManager, heart: "Heart", grace: timedelta, on_failure: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Say that the daemon is ready; that it lives, and what it does, while the block runs; then that it ends.

    The end takes `grace` at most.
    """
    if not manager.listens:
        yield
        return
    heart.shown = await heart.line()
    manager.tell(READY=1, STATUS=heart.shown)
    try:
        async with _beside(heart.beat_on(), name="heartbeat", on_failure=on_failure):
            yield
    finally:
        manager.tell(STOPPING=1, STATUS="stopping", EXTEND_TIMEOUT_USEC=grace // timedelta(microseconds=1))


class Heart:
    """Beats while the daemon lives: the service manager hears of it, and reads in one line what the daemon does."""

    def __init__(self, manager: ServiceManager, program: Program, pulse: Pulse, schedule: Schedule) -> None:
        self._manager = manager
        self._context = program.context
        self._pulse = pulse
        self._schedule = schedule
        self._runner = program.runner
        self._stopped = False
        self.shown = ""
        """The line that the service manager has."""

    async def beat_on(self) -> None:
        """Beat forever, twice as often as the service manager asks for at least."""
        watchdog = self._manager.watchdog
        interval = BEAT if watchdog is None else min(BEAT, watchdog / 2)
        while True:
            await self.beat()
            await asyncio.sleep(interval.total_seconds())

    async def beat(self) -> None:
        """Say that the daemon lives, if it does; and what it does, if that is another thing than before."""
        trouble = await self._pulse.trouble()
        starves = bool(trouble) and not self._runner.is_paying
        if not starves:  # an answer to a purchase waits for the record, and would be lost with this process
            self._manager.tell(WATCHDOG=1)
        if self._manager.watchdog is not None and starves is not self._stopped:
            self._stopped = starves
            if starves:
                _log.warning(
                    "watchdog_not_fed", reason=trouble, killed_after_seconds=self._manager.watchdog.total_seconds()
                )
            else:
                _log.info("watchdog_fed_again")
        line = trouble or await self.line()
        if line != self.shown:
            self._manager.tell(STATUS=line)
            self.shown = line

    async def line(self) -> str:
        """Return in a line what the daemon does, from the record."""
        try:
            async with asyncio.timeout(_DEADLINE_S), self._context.store.read() as session:
                return status_line(
                    await overview.followed(session),
                    await overview.pending(session, archives=self._context.settings.download.enabled),
                    await overview.needs_attention(session),
                    next_scan=self._schedule.next_scan_at,
                    now=self._context.clock.now(),
                )
        except TimeoutError:
            return f"the database {self._context.store.label} is silent"
        except Failure as failure:
            return failure.message


def status_line(
    followed: int,
    pending: Mapping[str, Pending],
    conditions: Sequence[Condition],
    *,
    next_scan: datetime | None,
    now: datetime,
) -> str:
    """Say in one line what is going on. It names no target: every user of the machine can read it."""
    parts = [f"{followed} {'target' if followed == 1 else 'targets'} followed, {_work(pending)}"]
    ill = [one for one in conditions if one.subject in SERVICES and one.kind in ILL]
    parts += [f"{SERVICES[one.subject]} {ILL[one.kind]} since {_time(one.since, now)}" for one in ill]
    if more := len(conditions) - len(ill):
        parts.append(f"{more} {'thing needs' if more == 1 else 'things need'} attention, see `watcher status`")
    if next_scan is not None:
        parts.append(f"next scan {_time(next_scan, now)}")
    return "; ".join(parts)


def _work(pending: Mapping[str, Pending]) -> str:
    units = {stage: queue.units for stage, queue in pending.items() if queue.units}
    work = [words[units[stage] > 1].format(units[stage]) for stage, words in _WORK.items() if stage in units]
    if not work and (unscored := units.get("finish")):  # held back by a limit, for example
        return f"{unscored} {'upload' if unscored == 1 else 'uploads'} not scored yet"
    return ", ".join(work) or "all settled"


def _time(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M} UTC" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M} UTC"


@asynccontextmanager
async def _beside(
    work: Coroutine[None, None, None], *, name: str, on_failure: Callable[[BaseException], None] | None = None
) -> AsyncIterator[None]:
    """Do something beside the block, until it ends."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) and on_failure:
            on_failure(failure)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,), timeout=1)
