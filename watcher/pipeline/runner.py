"""The runner: gives each due unit its turn, within each stage's width, and writes down what its failure leads to."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog
from structlog.contextvars import bind_contextvars

from watcher import metrics
from watcher.errors import AuthFailure, Failure, Ours, Transient
from watcher.fragalysis import CannotBuild, NotAMember
from watcher.pipeline.collect import Collect
from watcher.pipeline.download import Download
from watcher.pipeline.extract import Extract
from watcher.pipeline.failures import (
    LONGEST_MACHINE_PAUSE,
    LONGEST_SERVICE_PAUSE,
    MACHINE_PAUSE,
    SERVICE_PAUSE,
    backoff,
)
from watcher.pipeline.finish import Finish
from watcher.pipeline.profile import adopt_settings
from watcher.pipeline.reconcile import Reconcile
from watcher.pipeline.scan import Scan
from watcher.pipeline.stage import Context, Stage
from watcher.pipeline.submit import Sending, Submit
from watcher.store import overview
from watcher.store.conditions import all_open, close_condition, open_condition
from watcher.store.engine import RecordUnavailable

_log = structlog.get_logger(__name__)
PATIENCE = timedelta(minutes=1)
"""Longest wait that `watcher once` sits out."""
_SHORTEST_SLEEP = timedelta(milliseconds=50)


class Runner:
    """Runs the stages over the record. Nothing but what is under way is kept in memory."""

    def __init__(self, context: Context) -> None:
        self._context = context
        sending = Sending()
        self.scan = Scan(context)
        self.download = Download(context)
        self.stages: Sequence[Stage] = (
            self.scan,
            Reconcile(context, sending),
            self.download,
            Extract(context),
            Submit(context, sending),
            Collect(context),
            Finish(context),
        )
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._turning = asyncio.Lock()
        self._stopped = False
        self._record_lost = 0
        self._record_retry_at: datetime | None = None
        self._ill: set[str] = set()
        """Subjects with an open condition that a success of a stage may close; saves a look at each success."""
        self.changed = asyncio.Event()
        """Set whenever a unit ends."""

    async def start(self) -> None:
        """Take up what the record holds: the profile in force, open conditions, stored archives to be verified."""
        await adopt_settings(self._context)
        await self.download.verify_all(everything=True)
        async with self._context.store.read() as session:
            self._ill = {condition.subject for condition in await all_open(session)}

    async def request_scan(self) -> None:
        """Ask for a scan, however long the record does not answer, and give it its turn."""
        while not self._stopped:
            try:
                await self.scan.request()
            except RecordUnavailable as failure:
                self._lose_record(failure)
                await self._context.clock.sleep(timedelta(seconds=5))
            else:
                break
        await self.turn()

    async def keep_house(self) -> None:
        """Make stored archives due for a check of their digest once a week."""
        try:
            await self.download.verify_all(everything=False)
        except RecordUnavailable as failure:
            self._lose_record(failure)

    async def turn(self) -> bool:
        """Start every unit that is due and has room; returns whether any was started."""
        if self._stopped or self._is_record_lost():
            return False
        started = False
        async with self._turning:
            try:
                paused = await self._paused()
                for stage in self.stages:
                    if stage.service not in paused and stage.name not in paused:
                        started |= await self._start_due(stage)
            except RecordUnavailable as failure:
                self._lose_record(failure)
            else:
                self._find_record()
        return started

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def settle(self) -> None:
        """Give turns until nothing can move without a person or a wait of more than a minute."""
        while not self._stopped:
            self.changed.clear()
            if await self.turn():
                continue
            wait = await self._next_wait()
            if self._under_way:
                await self._wait_for_change(wait)
            elif wait is None:
                return
            else:
                await self._context.clock.sleep(max(wait, _SHORTEST_SLEEP))

    async def _wait_for_change(self, wait: timedelta | None) -> None:
        """Return when a unit ends, or when the next one is due."""
        sleeping = asyncio.create_task(self._context.clock.sleep(max(wait or PATIENCE, _SHORTEST_SLEEP)))
        changing = asyncio.create_task(self.changed.wait())
        try:
            await asyncio.wait((sleeping, changing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            changing.cancel()

    async def stop(self, grace: timedelta) -> None:
        """Start nothing more; let payments under way be answered and recorded, cancel the rest.

        What is cancelled is taken up from the record by the next start. Returns within `grace`.
        """
        self._stopped = True
        self.changed.set()
        finishing = {stage.name for stage in self.stages if stage.finishes_on_stop}
        for (name, _), task in self._under_way.items():
            if name not in finishing:
                task.cancel()
        tasks = set(self._under_way.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace.total_seconds())
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)

    async def _start_due(self, stage: Stage) -> bool:
        busy = sum(name == stage.name for name, _ in self._under_way)
        if busy >= stage.width:
            return False
        started = False
        for unit in await stage.due():
            key = (stage.name, unit)
            if busy >= stage.width:
                break
            if key in self._under_way:
                continue
            task = asyncio.create_task(self._run(stage, unit), name=f"{stage.name} {unit}")
            self._under_way[key] = task
            task.add_done_callback(partial(self._ended, key))
            busy += 1
            started = True
        return started

    def _ended(self, key: tuple[str, int], _: asyncio.Task[None]) -> None:
        del self._under_way[key]
        self.changed.set()

    async def _run(self, stage: Stage, unit: int) -> None:
        bind_contextvars(stage=stage.name)
        started, outcome = self._context.clock.monotonic(), "ok"
        try:
            await stage.step(unit)
            await self._succeeded(stage, unit)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Failure as failure:
            outcome = failure.kind
            await self._failed(stage, unit, failure)
        except Exception as error:  # noqa: BLE001 - one poisoned unit stops nobody
            outcome = "unexpected"
            _log.exception("unit_failed_unexpectedly", unit=unit)
            await self._unexpected(stage, unit, error)
        finally:
            took = self._context.clock.monotonic() - started
            metrics.STAGE_DURATION.labels(stage.name, outcome).observe(took)
            _log.debug("stage_run", unit=unit, outcome=outcome, seconds=round(took, 3))

    async def _succeeded(self, stage: Stage, unit: int) -> None:
        healed = {str(stage.service), stage.name, f"{stage.name} {unit}"} & self._ill
        if not healed:
            return
        async with self._context.store.write() as session:
            now = self._context.clock.now()
            for subject in healed:
                await close_condition(session, subject, "unreachable", "credentials", "machine", "unexpected", now=now)
        self._ill -= healed

    async def _failed(self, stage: Stage, unit: int, failure: Failure) -> None:
        """Write down what the failure leads to. When even that fails, the unit is simply still due."""
        try:
            if isinstance(failure, RecordUnavailable):
                self._lose_record(failure)
                return
            await self._open_condition(stage, failure)
            await stage.put_off(unit, failure)
        except Ours as worse:
            self._lose_record(worse)

    async def _open_condition(self, stage: Stage, failure: Failure) -> None:
        if isinstance(failure, CannotBuild | NotAMember):
            return  # about one archive, which its leg says itself
        if isinstance(failure, AuthFailure):
            subject, kind = str(stage.service), "credentials"
            first, longest = SERVICE_PAUSE, LONGEST_SERVICE_PAUSE
        elif isinstance(failure, Ours):
            subject, kind = stage.name, "machine"
            first, longest = MACHINE_PAUSE, LONGEST_MACHINE_PAUSE
        elif isinstance(failure, Transient) and stage.service is not None:
            subject, kind = stage.service, "unreachable"
            first = longest = timedelta()
        else:
            return
        now = self._context.clock.now()
        asked = failure.retry_after if isinstance(failure, Transient) else None
        async with self._context.store.write() as session:
            condition = await open_condition(
                session,
                subject,
                kind,
                reason=failure.message,
                action=failure.action or _ACTIONS[kind],
                now=now,
            )
            if first:
                asked = asked or backoff(condition.attempts, self._context.random, first=first, longest=longest)
            condition.retry_at = now + asked if asked else None
        self._ill.add(subject)

    async def _unexpected(self, stage: Stage, unit: int, error: Exception) -> None:
        """Set a unit aside that shows a fault of the program; the others go on."""
        failure = Transient(f"unexpected {type(error).__name__}: {error}", retry_after=timedelta(minutes=5))
        try:
            async with self._context.store.write() as session:
                await open_condition(
                    session,
                    f"{stage.name} {unit}",
                    "unexpected",
                    reason=failure.message,
                    action="this is a fault of the program: please report it with the log; the unit is tried again",
                    now=self._context.clock.now(),
                )
            self._ill.add(f"{stage.name} {unit}")
            await stage.put_off(unit, failure)
        except Ours as worse:
            self._lose_record(worse)

    async def _paused(self) -> set[str | None]:
        """Return the services and stages that are to be left alone now."""
        now = self._context.clock.now()
        async with self._context.store.read() as session:
            return {c.subject for c in await all_open(session) if c.retry_at is not None and c.retry_at > now}

    async def _next_wait(self) -> timedelta | None:
        """Return how long nothing can move; None when only a person, or a longer wait, can move anything.

        A batch that the service works on is waited for however long it takes.
        """
        now = self._context.clock.now()
        if self._record_retry_at is not None:
            return self._record_retry_at - now
        try:
            async with self._context.store.read() as session:
                waits = await overview.waits(session, archives=self._context.settings.download.enabled)
        except RecordUnavailable as failure:
            self._lose_record(failure)
            return timedelta(seconds=1)
        wait = waits.next_at - now if waits.next_at else None
        if waits.at_work:
            return min(wait or PATIENCE, PATIENCE)
        return wait if wait is not None and wait <= PATIENCE else None

    def _is_record_lost(self) -> bool:
        return self._record_retry_at is not None and self._context.clock.now() < self._record_retry_at

    def _lose_record(self, failure: Failure) -> None:
        """Without the record nothing new is started; said once, and once when it is back."""
        self._record_lost += 1
        wait = backoff(self._record_lost, self._context.random, longest=timedelta(seconds=30))
        self._record_retry_at = self._context.clock.now() + wait
        if self._record_lost == 1:
            _log.error("record_unavailable", reason=failure.message, action=failure.action)

    def _find_record(self) -> None:
        if self._record_lost:
            _log.info("record_available_again", failed_tries=self._record_lost)
        self._record_lost, self._record_retry_at = 0, None


_ACTIONS = {
    "credentials": "renew the token in the settings and start again; until then the service is asked now and then",
    "machine": "look at the disk and the database; the program goes on by itself",
    "unreachable": "nothing: it is tried again by itself; if it lasts, look at the network and the service",
}
