"""The runner: gives each due unit its turn, within each stage's width, and writes down what its failure leads to."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

import structlog
from structlog.contextvars import bind_contextvars

from watcher import metrics
from watcher.errors import Failure, Ours, Transient
from watcher.pipeline.backup import Backup
from watcher.pipeline.clock_watch import ClockWatch
from watcher.pipeline.collect import Collect
from watcher.pipeline.download import Download
from watcher.pipeline.extract import Extract
from watcher.pipeline.finish import Finish
from watcher.pipeline.health import ALL_UNITS, Health, Key
from watcher.pipeline.notify import Notify
from watcher.pipeline.outage import Outage
from watcher.pipeline.profile import adopt_settings
from watcher.pipeline.prune import Prune
from watcher.pipeline.reconcile import Reconcile
from watcher.pipeline.scan import Scan
from watcher.pipeline.sending import Sending
from watcher.pipeline.stage import Context, Deferred, Stage
from watcher.pipeline.submit import Submit
from watcher.pipeline.uploads import take_up_quarantined, take_up_rejected
from watcher.pipeline.verify import Verify
from watcher.store.engine import RecordUnavailable, is_trouble

_log = structlog.get_logger(__name__)
_ASIDE = timedelta(minutes=5)
"""How long a unit is left alone that shows a fault of the program."""
_QUIET = ("reconcile", "collect", "prune", "backup")


class Runner:
    """Runs the stages over the record. What it keeps in memory may be lost: a restart finds all work in the record."""

    def __init__(self, context: Context, *, new_record: bool = False) -> None:
        """Make the stages; a `new_record` was made by this start."""
        self._context = context
        self._sending = Sending()
        self._health = Health(context)
        self._outage = Outage(context.clock, context.random)
        self.scan = Scan(context)
        self.download = Download(context)
        self._verify = Verify(context)
        self._prune, self._backup = Prune(context), Backup(context)
        self._reconcile = Reconcile(context, self._sending, new_record=new_record)
        self._notify = Notify(context)
        self.stages: Sequence[Stage] = (
            self.scan,
            self._reconcile,
            self.download,
            self._verify,
            Extract(context),
            Submit(
                context,
                self._sending,
                reading=lambda: self._is_under_way("extract"),
                record_away=self._outage.note,
            ),
            Collect(context),
            Finish(context),
            self._prune,
            self._backup,
            self._notify,
        )
        self._under_way: dict[Key, asyncio.Task[None]] = {}
        self._aside: dict[Key, float] = {}
        """Units that show a fault of the program, and until when each is left alone, on the monotonic clock."""
        self._turning = asyncio.Lock()
        self._stopped = False
        self._clock_watch = ClockWatch(context.clock)
        self._scan_asked = False
        self.changed = asyncio.Event()
        """Set whenever a unit ends."""
        self.turned_at = context.clock.monotonic()
        """When a turn last came to its end, on the monotonic clock: a program that hangs has no turns."""

    async def start(self) -> None:
        """Take up what the record holds: the profile in force, open conditions, stored archives to be verified."""
        await self._clock_watch.look_at_record(self._context.store, self._context.settings)
        await adopt_settings(self._context)
        await take_up_quarantined(self._context)
        await take_up_rejected(self._context)
        await self._verify.verify_all(everything=True)
        await self._health.load()
        await self._notify.take_up()
        self._prune.ask()
        self._backup.ask()

    async def request_scan(self) -> None:
        """Ask for a scan and give it its turn; while the record is away, in the turn that finds it again."""
        self._scan_asked = True
        await self.turn()

    async def keep_house(self) -> None:
        """Let stored archives be checked once a week, what is old be let go of, and the record be copied once a day.

        And end what has been said of units that never came back.
        """
        self._prune.ask()
        self._backup.ask()
        try:
            await self._verify.verify_all(everything=False)
            if self._outage.wait is None:  # else nothing had a chance to fail again
                await self._health.forget()
        except RecordUnavailable as failure:
            self._outage.note(failure)

    async def turn(self) -> bool:
        """Start every unit that is due and has room; returns whether any was started."""
        started = await self._turn()
        self.turned_at = self._context.clock.monotonic()
        return started

    async def _turn(self) -> bool:
        if self._stopped or self._outage.lasts():
            return False
        started = False
        async with self._turning:
            if self._outage.lasts():  # the turn that this one waited for has found out
                return False
            try:
                await self._outage.end(self._context.store)
                await self._clock_watch.look(self._context.store)
                if self._scan_asked:
                    await self.scan.request()
                    self._scan_asked = False
                await self._drop_passed_over()
                started = await self._start_due(self.stages)
            except RecordUnavailable as failure:
                self._outage.note(failure)
        return started

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way.values())

    async def stop(self, grace: timedelta) -> None:
        """Start nothing more; let payments under way be answered and recorded, cancel the rest.

        What is cancelled is taken up from the record by the next start. Returns within `grace` and a second.
        """
        self._stopped = self._sending.stopping = True
        self.changed.set()
        finishing = {stage.name for stage in self.stages if stage.finishes_on_stop}
        for (name, _), task in self._under_way.items():
            if name not in finishing:
                task.cancel()
        if tasks := {*self._under_way.values()}:
            _, tasks = await asyncio.wait(tasks, timeout=grace.total_seconds())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    @property
    def context(self) -> Context:
        """What the stages work with."""
        return self._context

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._under_way)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is started."""
        return self._stopped

    @property
    def record_away(self) -> timedelta | None:
        """How long until the record is tried again; None when it is not away."""
        return self._outage.wait

    def note_record_away(self, failure: RecordUnavailable) -> None:
        """Take down that the record did not answer somebody beside the stages."""
        self._outage.note(failure)

    @property
    def first_look_at(self) -> datetime | None:
        """When the look is due that sending waits for; None when none is, or at once."""
        return self._reconcile.first_look_at

    @property
    def is_paying(self) -> bool:
        """Whether a purchase is under way, or its answer waits for the record."""
        return bool(self._sending.now)

    def _is_under_way(self, stage: str) -> bool:
        return any(name == stage for name, _ in self._under_way)

    def _awaits_scan(self, stage: Stage) -> bool:
        """Say whether a purchase waits for the first scan since the start, or for one under way.

        It may tell that a project has closed.
        """
        return stage.name == "submit" and (not self.scan.has_told or self._is_under_way(self.scan.name))

    async def _drop_passed_over(self) -> None:
        """Cancel downloads of uploads that were superseded: a build can hold the only place for hours."""
        units = [unit for name, unit in self._under_way if name == self.download.name]
        for unit in await self.download.passed_over(units) if units else ():
            if task := self._under_way.get((self.download.name, unit)):
                task.cancel()

    async def _start_due(self, stages: Sequence[Stage]) -> bool:
        """Start what one snapshot of the record says to be due, stage by stage. Raises RecordUnavailable."""
        started, asked, broken, sound = False, None, None, []
        # What ends while this is read may look due in the snapshot still: the next turn sees to it.
        busy = set(self._under_way)
        try:
            async with self._context.store.read() as session:
                paused = await self._health.paused(session)
                for stage in stages:
                    if (
                        {stage.service, stage.name} & paused
                        or self._is_full(stage)
                        or self._is_aside((stage.name, ALL_UNITS))
                        or self._awaits_scan(stage)
                    ):
                        continue
                    asked = stage
                    try:
                        units = await stage.due(session)
                    except Exception as error:
                        if isinstance(error, Failure) or is_trouble(error):
                            raise
                        broken = stage, error
                        break
                    asked = None
                    sound.append(stage)
                    for unit in units:
                        started |= (stage.name, unit) not in busy and self._start(stage, unit)
        except RecordUnavailable as failure:
            if asked is None:
                raise
            await self._refused(asked, ALL_UNITS, failure)
        for stage in sound:
            self._outage.succeeded((stage.name, ALL_UNITS))
            await self._health.asks_again(stage)
        if broken is not None:
            # One broken stage stops no other, but the snapshot may be broken too: the rest gets a new one.
            self.changed.set()
            await self._unexpected(broken[0], ALL_UNITS, broken[1])
        return started

    def _start(self, stage: Stage, unit: int) -> bool:
        key = (stage.name, unit)
        if self._stopped or self._is_full(stage) or self._is_aside(key):
            return False
        task = asyncio.create_task(self._run(stage, unit), name=f"{stage.name} {unit}")
        self._under_way[key] = task
        task.add_done_callback(partial(self._ended, key))
        return True

    def _is_full(self, stage: Stage) -> bool:
        return sum(name == stage.name for name, _ in self._under_way) >= stage.width

    def _set_aside(self, key: Key) -> None:
        self._aside[key] = self._context.clock.monotonic() + _ASIDE.total_seconds()

    def _is_aside(self, key: Key) -> bool:
        if self._aside.get(key, float("inf")) <= self._context.clock.monotonic():
            del self._aside[key]
        return key in self._aside

    def _ended(self, key: Key, _: asyncio.Task[None]) -> None:
        del self._under_way[key]
        self.changed.set()

    async def _run(self, stage: Stage, unit: int) -> None:
        bind_contextvars(stage=stage.name)
        started, outcome, level = self._context.clock.monotonic(), "ok", logging.INFO
        try:
            await stage.step(unit)
            self._outage.succeeded((stage.name, unit))
            await self._health.succeeded(stage, unit)
            if stage.name in _QUIET:  # a look that found nothing is a tick, not a change; what it does find logs itself
                level = logging.DEBUG
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Deferred:
            outcome, level = "deferred", logging.DEBUG
            self._outage.succeeded((stage.name, unit))
        except Failure as failure:
            outcome, level = failure.kind, logging.DEBUG  # a condition tells of it, once; this is one try of many
            await self._failed(stage, unit, failure)
        except OSError as error:  # of the network too it is a kind of failure by now: this is the machine
            outcome, level = Ours.kind, logging.DEBUG
            await self._failed(stage, unit, Ours(f"{stage.name} failed: {error!r}"))
        except Exception as error:  # noqa: BLE001 - one poisoned unit stops nobody
            outcome = "unexpected"
            await self._unexpected(stage, unit, error)
        finally:
            took = self._context.clock.monotonic() - started
            metrics.STAGE_DURATION.labels(stage.name, outcome).observe(took)
            _log.log(level, "stage_run", unit=unit, outcome=outcome, seconds=round(took, 3))

    async def _failed(self, stage: Stage, unit: int, failure: Failure) -> None:
        """Write down what the failure leads to. When even that fails, the unit is simply still due."""
        if isinstance(failure, RecordUnavailable):
            await self._refused(stage, unit, failure)
            return
        failure.message = self._health.hide(failure.message)
        try:
            await self._health.failed(stage, unit, failure)
            await stage.put_off(unit, failure)
        except Ours as worse:
            self._outage.note(worse)
        except Exception as error:  # noqa: BLE001 - else the unit would be due at once, forever
            await self._unexpected(stage, unit, error)

    async def _refused(self, stage: Stage, unit: int, failure: RecordUnavailable) -> None:
        """Take down that the record is away; whom alone it refuses is set aside, and the others go on."""
        key = (stage.name, unit)
        if not self._outage.refuses_alone(key):
            self._outage.note(failure, key)
            return
        self._set_aside(key)
        self.changed.set()
        try:
            await self._health.refused(stage, unit, failure)
        except Ours as worse:
            self._outage.note(worse)

    async def _unexpected(self, stage: Stage, unit: int, error: Exception) -> None:
        """Set a unit aside that shows a fault of the program; the others go on."""
        self._set_aside((stage.name, unit))
        # A condition tells of it then, once; this is one try of many.
        level = logging.DEBUG if self._health.is_told(stage, unit) else logging.ERROR
        if unit == ALL_UNITS:
            _log.log(level, "stage_failed_unexpectedly", stage=stage.name, exc_info=error)
        else:
            _log.log(level, "unit_failed_unexpectedly", unit=unit, exc_info=error)
        failure = Transient(self._health.hide(f"unexpected {type(error).__name__}: {error}"), retry_after=_ASIDE)
        try:
            await self._health.unexpected(stage, unit, failure)
            if unit != ALL_UNITS:
                await stage.put_off(unit, failure)
        except Ours as worse:
            self._outage.note(worse)
        except Exception:  # noqa: BLE001 - it is set aside in memory all the same
            _log.log(level, "unit_not_put_off", unit=unit, exc_info=True)
