"""The daemon's whole life on one page: start, ready, watch, drain."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, timedelta

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from watcher import __version__
from watcher.errors import Ours
from watcher.log import handle_loop_exception
from watcher.pipeline.runner import Runner
from watcher.program import Program, opened
from watcher.settings import Settings
from watcher.web.server import Health, serving

_log = structlog.get_logger(__name__)

POLL = timedelta(seconds=5)
"""Longest time for which something that has come due waits for its turn."""
CHECK_LOCK = timedelta(seconds=30)
KEEP_HOUSE = timedelta(hours=1)
JITTER = 0.1
"""Part of the scan interval by which scans are spread, so that many watchers do not knock at once."""
CRON_JITTER_S = 30
JOB_DEADLINE = timedelta(minutes=10)
DRAIN_RESERVE = timedelta(seconds=2)
"""Kept of `daemon.shutdown_timeout` for closing connections and the record."""


class Ending:
    """Why the daemon ends: a signal, or the first background task that failed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.signal: str | None = None
        self.failure: BaseException | None = None

    def on_signal(self, name: str) -> None:
        """End in order."""
        self.signal = self.signal or name
        self._event.set()

    def on_failure(self, failure: BaseException) -> None:
        """End with a reason: no silent half-life. What fails while the daemon ends is no reason."""
        if not self._event.is_set():
            self.failure = failure
            self._event.set()

    async def wait(self) -> None:
        """Return when there is a reason to end."""
        await self._event.wait()


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT (returns 0), or until a background task fails (returns 1).

    Raises AlreadyRunning, NewerRecord or Ours when it cannot start.
    """
    ending = Ending()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handle_loop_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.on_signal, number.name)

    # Start
    async with opened(settings, "run") as program:
        health = Health(program.context.store, program.context.policy, program.context.clock)
        async with serving(settings.server, health) as address, working(settings, program, ending):
            # Ready
            health.ready = True
            _log.info("daemon_ready", version=__version__, record=program.context.store.label, listen=address)

            # Watch
            await ending.wait()

            # Drain
            health.ready = False
            _log.info("daemon_stopping", signal=ending.signal, failure=repr(ending.failure) if ending.failure else None)
            await program.runner.stop(settings.daemon.shutdown_timeout - DRAIN_RESERVE)
    if ending.failure is not None:
        _log.error("daemon_failed", reason=str(ending.failure), exc_info=ending.failure)
        return 1
    _log.info("daemon_stopped")
    return 0


@asynccontextmanager
async def working(settings: Settings, program: Program, ending: Ending) -> AsyncIterator[None]:
    """Give the stages their turns, on time and whenever a unit ends, while the block runs."""
    runner = program.runner
    scheduler = AsyncIOScheduler(
        timezone=UTC,
        # The library's defaults skip what is a second late; nothing here may be skipped.
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    scheduler.add_listener(lambda event: _job_failed(event, ending), EVENT_JOB_ERROR)
    scheduler.add_listener(
        lambda event: _log.warning("job_left_out", job=event.job_id), EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
    )
    jobs: set[asyncio.Task[None]] = set()
    poll = min(POLL, settings.molecule_one.poll_interval)
    now = program.context.clock.now()
    for name, job, trigger, first in (
        ("scan", runner.request_scan, scan_trigger(settings), now),
        ("poll", runner.turn, _every(poll), now + poll),
        ("check_lock", LockWatch(program).check, _every(CHECK_LOCK), now + CHECK_LOCK),
        ("keep_house", runner.keep_house, _every(KEEP_HOUSE), now + KEEP_HOUSE),
    ):
        scheduler.add_job(_with_deadline, trigger, args=[job, jobs], id=name, name=name, next_run_time=first)
    scheduler.start()
    turning = asyncio.create_task(_turn_on_change(runner), name="turn on change")
    turning.add_done_callback(lambda task: None if task.cancelled() else ending.on_failure(_reason(task)))
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)
        for task in (turning, *jobs):
            task.cancel()
        await asyncio.wait((turning, *jobs), timeout=1)


def scan_trigger(settings: Settings) -> BaseTrigger:
    """Return when to scan: by cron expression if one is set, else by interval, both a little spread."""
    own = settings.fragalysis
    if own.scan_cron:
        trigger = CronTrigger.from_crontab(own.scan_cron, timezone=UTC)
        trigger.jitter = CRON_JITTER_S
        return trigger
    seconds = own.scan_interval.total_seconds()
    return IntervalTrigger(seconds=seconds, jitter=seconds * JITTER, timezone=UTC)


def _every(interval: timedelta) -> BaseTrigger:
    return IntervalTrigger(seconds=interval.total_seconds(), timezone=UTC)


class LockWatch:
    """Makes sure that the record is still ours alone; a database that is away is waited for, and said once."""

    def __init__(self, program: Program) -> None:
        self._lock = program.lock
        self._away = False

    async def check(self) -> None:
        """Raise AlreadyRunning when someone else took the lock while the database was away."""
        try:
            await self._lock.check()
        except Ours as failure:
            if not self._away:
                _log.warning("lock_unchecked", reason=failure.message, action=failure.action)
            self._away = True
        else:
            if self._away:
                _log.info("lock_checked_again")
            self._away = False


async def _turn_on_change(runner: Runner) -> None:
    """Give turns as soon as a unit has ended: what it did may be what another stage waits for.

    Also after a while without an end, by a clock that nobody sets: the scheduler stands still when the time of day is
    set back.
    """
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * POLL.total_seconds()):
                await runner.changed.wait()
        runner.changed.clear()
        await runner.turn()


def _reason(task: asyncio.Task[None]) -> BaseException:
    return task.exception() or RuntimeError(f"the task {task.get_name()!r} ended by itself")


async def _with_deadline(job: Callable[[], Awaitable[object]], jobs: set[asyncio.Task[None]]) -> None:
    """Run a job as one of `jobs`; one that hangs is a failure like any other."""
    if (task := asyncio.current_task()) is not None:
        jobs.add(task)
        task.add_done_callback(jobs.discard)
    async with asyncio.timeout(JOB_DEADLINE.total_seconds()):
        await job()


def _job_failed(event: JobExecutionEvent, ending: Ending) -> None:
    ending.on_failure(event.exception)
