"""The program over services in memory: stepped by hand, killed at a point, opened again on what the record holds."""

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.pipeline import JobClock, QuickChemistry
from tests.support.record import settings_for_file
from tests.support.vendor import FragalysisInMemory, MoleculeOneInMemory, Sale, Stack, Vendor
from watcher import chemistry as rdkit
from watcher import points
from watcher.chemistry_records import Identity, Rejection
from watcher.notify_process import Notifier
from watcher.pipeline.runner import Runner
from watcher.pipeline.settle import settle
from watcher.pipeline.stage import Context
from watcher.settings import Settings
from watcher.store.engine import Store


class Killed(BaseException):
    """The program ends here and now."""


@contextmanager
def quickly(folder: Path) -> Iterator[AsyncEngine]:
    """Log nothing, and keep one engine for all records, which follow each other in one file.

    What an engine has compiled is most of its worth.
    """
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield Store(settings_for_file(folder / "watcher.db")).engine
    finally:
        structlog.configure(**before)


@functools.cache
def identify(raw: str) -> Identity | Rejection:
    return rdkit.identify(raw)


def canonical(raws: Collection[str]) -> set[str]:
    """What is submitted of these strings, as far as they are molecules."""
    return {one.smiles for one in map(identify, raws) if isinstance(one, Identity)}


class CachedChemistry(QuickChemistry):
    async def identify(self, raws: Sequence[str]) -> list[Identity | Rejection]:
        return [identify(raw) for raw in raws]


class Killable:
    """The program. A kill throws away all that it has in memory; the services, the record and the time go on."""

    runner: Runner
    store: Store

    def __init__(
        self,
        engine: AsyncEngine,
        settings: Settings,
        clock: JobClock,
        stack: Stack,
        vendor: Vendor,
        at_the_till: Callable[[Sale], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.deadly: str | None = None
        """The point at which it is killed next."""
        self.opened_at = 0.0
        """When it last started, on the monotonic clock."""
        self.committed = 0
        self.killed: Counter[str] = Counter()
        self._engine = engine
        self._stack = stack
        self._vendor = vendor
        self._at_the_till = at_the_till
        self._dead = False
        vendor.kill = self.kill
        points.hook = self._at_point

    async def open(self) -> None:
        """Start on the record, as often as it is killed while it starts."""
        while True:
            self.opened_at = self.clock.monotonic()
            self.store = Store(self.settings.database)
            self.store.engine = self._engine
            own, clock = self.settings, self.clock
            fragalysis = FragalysisInMemory(own, clock=clock, stack=self._stack)
            service = MoleculeOneInMemory(own, clock=clock, vendor=self._vendor, at_the_till=self._at_the_till)
            context = Context(
                own, self.store, clock, fragalysis, service, CachedChemistry(), Notifier(own.http), Random(1)
            )
            self.runner = clock.runner = Runner(context)
            for stage in self.runner.stages:
                stage.width = 1
            try:
                return await self.runner.start()
            except Killed:
                await self.close()

    async def close(self) -> None:
        """End without finishing anything, as after a kill."""
        tasks = list(self.runner._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.dispose()
        self._dead = False

    async def reopen(self, *, stop: bool = False) -> None:
        """End, in order with `stop`, and start again."""
        if stop:
            await self.runner.stop(timedelta())
        await self.close()
        await self.open()

    def _at_point(self, name: str) -> None:
        self.committed += name == "store.committed"
        if name == self.deadly:
            self.deadly = None
            self.kill(name)

    def kill(self, where: str) -> None:
        self._dead = True
        self.killed[where] += 1
        raise Killed(where)

    async def step(self, name: str) -> None:
        """Let one stage do its most urgent unit."""
        stage = next(one for one in self.runner.stages if one.name == name)
        with suppress(Killed):
            await self.runner._start_due([stage])
        await self.rest()

    async def turn(self) -> None:
        """Let every stage do its most urgent unit."""
        with suppress(Killed):
            await self.runner.turn()
        await self.rest()

    async def ask_for_scan(self) -> None:
        with suppress(Killed):
            await self.runner.scan.request()
        await self.rest()

    async def rest(self) -> None:
        """Return when nothing is under way but a purchase that waits for its answer; start again after a kill."""
        under_way = self.runner._under_way
        while not self._dead and (
            tasks := [task for (name, _), task in under_way.items() if name != "submit" or not self._vendor.waiting]
        ):
            await asyncio.wait(tasks, timeout=0.01)
        if self._dead:
            await self.reopen()

    async def settle(self) -> None:
        """Let the runner settle, with a service that takes everything and works at once. Raises TimeoutError."""
        vendor = self._vendor
        vendor.answer, vendor.slow, vendor.quick, self.deadly = "accepted", False, True, None
        for sale in vendor.taken:
            sale.work(len(sale.smiles), "scored")
        vendor.go_on()
        async with asyncio.timeout(30):
            await settle(self.runner)
        vendor.quick = False
