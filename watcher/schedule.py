"""When the stages get their turns: scans by interval or cron expression, and what comes round every few seconds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    JobEvent,
)
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from watcher import metrics
from watcher.clock import Clock
from watcher.cron import cron_trigger
from watcher.errors import Ours
from watcher.pipeline.clock_watch import ClockWatch
from watcher.pipeline.runner import Runner
from watcher.program import Program
from watcher.settings import Settings

_log = structlog.get_logger(__name__)

OnFailure = Callable[[BaseException], None]
POLL = timedelta(seconds=10)
"""Longest time for which something that has come due waits for its turn."""
CHECK_LOCK = timedelta(seconds=30)
KEEP_HOUSE = timedelta(hours=1)
JITTER = 0.1
"""Part of the scan interval by which scans are spread, so that many watchers do not knock at once."""
CRON_JITTER_S = 30
JOB_DEADLINE = timedelta(minutes=10)
_SCANS = 3


@asynccontextmanager
async def working(settings: Settings, program: Program, on_failure: OnFailure) -> AsyncIterator["Schedule"]:
    """Give the stages their turns, on time and whenever a unit ends, while the block runs."""
    runner = program.runner
    scheduler = AsyncIOScheduler(
        timezone=UTC,
        # The library's defaults skip what is a second late; nothing here may be skipped.
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
    scheduler.add_listener(lambda event: on_failure(event.exception), EVENT_JOB_ERROR)
    misses = Misses()
    scheduler.add_listener(misses.missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
    scheduler.add_listener(misses.executed, EVENT_JOB_EXECUTED)
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
        metrics.SCHEDULER_MISSES.labels(name)  # a rate needs a zero to begin with
    scheduler.start()
    keep_time = partial(_keep_time, scheduler, ClockWatch(program.context.clock))
    turning = asyncio.create_task(_turn_on_change(runner, program.context.clock, keep_time), name="turn on change")
    turning.add_done_callback(lambda task: None if task.cancelled() else on_failure(_reason(task)))
    try:
        yield Schedule(scheduler)
    finally:
        scheduler.shutdown(wait=False)
        for task in (turning, *jobs):
            task.cancel()
        await asyncio.wait((turning, *jobs), timeout=1)


class Schedule:
    """What others may know of the scheduler."""

    def __init__(self, scheduler: AsyncIOScheduler) -> None:
        self._scheduler = scheduler

    @property
    def running(self) -> bool:
        """Whether jobs come round."""
        return bool(self._scheduler.running)

    @property
    def next_scan_at(self) -> datetime | None:
        """When the next scan begins."""
        job = self._scheduler.get_job("scan")
        return job.next_run_time if job else None


def scan_interval(settings: Settings, last: datetime) -> timedelta:
    """Return the time between two scans.

    By a cron expression it is the mean over the three that follow `last`, so that three intervals are over exactly when
    three scans should have come, also after a night or a weekend without any.
    """
    if not settings.fragalysis.scan_cron:
        return settings.fragalysis.scan_interval
    trigger = cron_trigger(settings.fragalysis.scan_cron)
    fires = last + timedelta(seconds=CRON_JITTER_S)  # the last one may have come a little early
    for _ in range(_SCANS):
        fires = trigger.get_next_fire_time(fires, fires)
    return (fires - last) / _SCANS


def scan_trigger(settings: Settings) -> BaseTrigger:
    """Return when to scan: by cron expression if one is set, else by interval, both a little spread."""
    own = settings.fragalysis
    if own.scan_cron:
        trigger = cron_trigger(own.scan_cron)
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


async def _turn_on_change(runner: Runner, clock: Clock, keep_time: Callable[[], None]) -> None:
    """Give turns as soon as a unit has ended: what it did may be what another stage waits for.

    Also when none was given for a while, by the clock that nobody sets, and with a look at the one that people set.
    """
    longest = 2 * POLL.total_seconds()
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest):
                await runner.changed.wait()
        keep_time()
        if runner.changed.is_set() or clock.monotonic() - runner.turned_at >= longest:
            runner.changed.clear()
            await runner.turn()


def _keep_time(scheduler: AsyncIOScheduler, watch: ClockWatch) -> None:
    """Let the jobs come when they would have come: the scheduler stands still when the time of day is set back."""
    if back := watch.set_back():
        for job in scheduler.get_jobs():
            job.modify(next_run_time=job.next_run_time - back)


class Misses:
    """Jobs that were left out because they were still under way: counted each time, told until they end again."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def missed(self, event: JobEvent) -> None:
        """Count it; tell it once."""
        metrics.SCHEDULER_MISSES.labels(event.job_id).inc()
        if event.job_id not in self._told:
            self._told.add(event.job_id)
            _log.warning("job_left_out", job=event.job_id)

    def executed(self, event: JobEvent) -> None:
        """Tell the next one again."""
        self._told.discard(event.job_id)


def _reason(task: asyncio.Task[None]) -> BaseException:
    return task.exception() or RuntimeError(f"the task {task.get_name()!r} ended by itself")


async def _with_deadline(job: Callable[[], Awaitable[object]], jobs: set[asyncio.Task[None]]) -> None:
    """Run a job as one of `jobs`; one that hangs is a failure like any other."""
    if (task := asyncio.current_task()) is not None:
        jobs.add(task)
        task.add_done_callback(jobs.discard)
    async with asyncio.timeout(JOB_DEADLINE.total_seconds()):
        await job()
