"""A program over a sandbox, on a record of its own and in a time of its own: nothing waits.

`world` starts the two servers; `Job.run()` opens the program on the record, as often as a test likes, and `once` scans
and settles. Time moves only when every unit under way waits for it, so that what happens does not depend on how fast
the machine is.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa
from aiolimiter import AsyncLimiter
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.support.clock import FakeClock
from watcher import chemistry as rdkit
from watcher.chemistry_process import Chemistry
from watcher.chemistry_records import Identity, Rejection
from watcher.molecule_one import profile_of
from watcher.pipeline.runner import Runner
from watcher.pipeline.settle import settle
from watcher.program import Program, opened
from watcher.sandbox import Fault, Sandbox
from watcher.settings import Settings
from watcher.store import export
from watcher.store.conditions import all_open
from watcher.store.export import Row
from watcher.store.schema import Alias, Batch, Claim, Compound, Condition, Observation, Profile, Score, Target, Upload

A, B = ("A71EV2A", "lb32627-66"), ("Mpro", "lb18145-1")
PRIVATE = ("Secret", "lb99999-1")
ROWS_A = (("A0310a", "CCO", "Z1"), ("A0311a", "CCN", "Z2"), ("A0312a", "CCO", "Z3"))
ROWS_B = (("P0001a", "c1ccccc1", "Z4"), ("P0002a", "CCN", "Z5"))
Version = Literal["v1", "v2"]
_LOOK = 0.002  # real seconds between two looks whether anybody is at work


class JobClock(FakeClock):
    """Moves to the next moment that somebody waits for, once nobody is at work."""

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__(*([start] if start else []))
        self.runner: Runner | None = None
        self._waiting: list[tuple[datetime, int, asyncio.Event]] = []
        self._asleep: set[asyncio.Task[Any] | None] = set()
        self._number = 0
        self._quiet = 0

    async def sleep(self, duration: timedelta) -> None:
        self.slept.append(duration)
        self._number += 1
        entry = (self.now() + duration, self._number, asyncio.Event())
        task = asyncio.current_task()
        heapq.heappush(self._waiting, entry)
        self._asleep.add(task)
        try:
            while not entry[2].is_set():
                self._move()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await entry[2].wait()
        finally:
            self._asleep.discard(task)
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)

    def _move(self) -> None:
        under_way = self.runner._under_way.values() if self.runner else ()
        quiet = all(task in self._asleep for task in under_way) and not (self.runner and self.runner._turning.locked())
        self._quiet = self._quiet + 1 if quiet else 0
        if self._waiting and self._quiet > len(self._waiting):  # not in the moment between two units
            self._quiet = 0
            moment, _, event = heapq.heappop(self._waiting)
            self.advance(moment - self.now())
            event.set()


class QuickChemistry(Chemistry):
    """The same answers without a process, which takes a second to start."""

    async def identify(self, raws: Sequence[str]) -> list[Identity | Rejection]:
        return await asyncio.to_thread(lambda: [rdkit.identify(raw) for raw in raws])

    async def canonical(self, smiles: Sequence[str]) -> list[str | None]:
        return await asyncio.to_thread(lambda: [rdkit.canonical(one) for one in smiles])

    async def version(self) -> str:
        return "in the process of the tests"


@dataclass
class Job:
    """One record, and what a test does with it."""

    sandbox: Sandbox
    settings: Settings
    clock: JobClock = field(default_factory=JobClock)
    program: Program | None = None

    def set(self, section: str, **values: object) -> None:
        """Change settings; for the next opening."""
        self.settings = self.settings.replace(section, **values)

    @asynccontextmanager
    async def run(self, *, crash: bool = False) -> AsyncIterator[Runner]:
        """Open the program; with `crash` nothing is finished at the end, as after a kill."""
        async with opened(self.settings, "once", clock=self.clock, chemistry=QuickChemistry()) as self.program:
            runner = self.clock.runner = self.program.runner
            try:
                yield runner
            finally:
                if crash:
                    tasks = list(runner._under_way.values())
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)

    async def once(self) -> None:
        """Do what `watcher once` does."""
        async with self.run() as runner:
            await self.again(runner)

    async def again(self, runner: Runner) -> None:
        """Scan and settle within an opening."""
        await runner.scan.request()
        async with asyncio.timeout(90):
            await settle(runner)

    async def later(self, runner: Runner, **wait: float) -> None:
        """Let time pass, then settle."""
        self.clock.advance(timedelta(**wait))
        async with asyncio.timeout(90):
            await settle(runner)

    async def all(self, model: type[Any]) -> list[Any]:
        """Return the rows of a table, also while no program is open."""
        rows = sa.select(model).order_by(*sa.inspect(model).primary_key)
        url = self.settings.database.url.get_secret_value()
        if not url.startswith("sqlite"):
            async with create_async_engine(url, poolclass=sa.NullPool).connect() as connection:
                return list(await AsyncSession(connection, expire_on_commit=False).scalars(rows))
        engine = sa.create_engine(f"sqlite:///{self.file}")
        try:
            with sa.orm.Session(engine, expire_on_commit=False) as session:
                return list(session.scalars(rows))
        finally:
            engine.dispose()

    @property
    def file(self) -> str:
        return self.settings.database.url.get_secret_value().partition("///")[2]

    @property
    def downloads(self) -> Path:
        return self.settings.download.directory

    async def targets(self) -> list[Target]:
        return await self.all(Target)

    async def uploads(self) -> list[Upload]:
        return await self.all(Upload)

    async def batches(self) -> list[Batch]:
        return await self.all(Batch)

    async def scores(self) -> list[Score]:
        return await self.all(Score)

    async def claims(self) -> dict[str, tuple[str, str | None]]:
        """State and reason by SMILES; under several profiles, the newest one's."""
        claims = await self.all(Claim)  # first: their compounds were there before them
        compounds = {one.id: one.smiles for one in await self.all(Compound)}
        return {compounds[one.compound_id]: (one.state, one.reason) for one in claims}

    async def conditions(self) -> dict[str, str]:
        """What is open, as reason by `subject: kind`."""
        return {f"{one.subject}: {one.kind}": one.reason for one in await self.all(Condition) if one.until is None}

    async def ever(self, kind: str) -> list[Condition]:
        """All conditions of a kind, the closed ones too."""
        return [one for one in await self.all(Condition) if one.kind == kind]

    async def rows(self) -> list[Row]:
        """The export."""
        assert self.program is not None
        key = profile_of(self.settings.molecule_one).key
        store = self.program.context.store
        async with store.read() as session:
            found = [row async for row in export.rows(session, profile_key=key)]
        await store.engine.dispose()
        return found

    async def open_conditions(self) -> list[Condition]:
        assert self.program is not None
        async with self.program.context.store.read() as session:
            return list(await all_open(session))

    @property
    def bought(self) -> dict[str, int]:
        """How often each molecule was bought."""
        return dict(self.sandbox.molecule_one.ledger.purchases)

    def asked(self, path: str, method: str = "GET", *, of: str = "fragalysis") -> int:
        """How often a path was asked for."""
        server = self.sandbox.fragalysis if of == "fragalysis" else self.sandbox.molecule_one
        return sum(method == how and path in what for how, what in server.requests)

    def posts(self) -> int:
        """How many purchases were sent."""
        return self.asked("batch-search", "POST", of="molecule_one")

    def fault(self, where: Literal["fragalysis", "molecule_one"], action: str, path: str = "", **more: Any) -> Fault:
        """Put a rule in force; `method` and `path` say which requests it meets."""
        match = {"path": path} | ({"method": more.pop("method")} if "method" in more else {})
        return self.sandbox.add_fault(Fault(where, action, match=match, **more))


async def until(holds: Callable[[], object | Awaitable[object]]) -> None:
    """Return when something is so; the only waiting there is, for what another task does."""
    async with asyncio.timeout(20):
        while not (await found if isinstance(found := holds(), Awaitable) else found):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_LOOK)


def populate(sandbox: Sandbox) -> None:
    """Two public targets with two and two distinct compounds, one of which they share."""
    for (name, tas), rows in ((A, ROWS_A), (B, ROWS_B)):
        sandbox.fragalysis.add_target(name, tas)
        sandbox.fragalysis.add_upload(name, tas, rows)


@asynccontextmanager
async def world(
    folder: Path,
    *,
    age: Literal["2024", "2026"] = "2026",
    version: Version = "v2",
    empty: bool = False,
    database: str = "",
) -> AsyncIterator[Job]:
    """Start a sandbox, with the two targets unless `empty`, and the settings for it; a SQLite record by default."""
    clock = JobClock()
    async with Sandbox(age=age, catalogue=None, clock=clock.monotonic) as sandbox:
        if not empty:
            populate(sandbox)
        settings = (
            Settings()
            .replace("fragalysis", stack=sandbox.fragalysis.url)
            .replace(
                "molecule_one",
                base_url=sandbox.molecule_one.url,
                token=sandbox.molecule_one.token,
                api_version=version,
            )
            .replace("database", url=database or f"sqlite+aiosqlite:///{folder}/watcher.db")
            .replace("download", directory=folder / "downloads")
        )
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("watcher.http.AsyncLimiter", lambda *_: AsyncLimiter(10_000, 1))  # it waits in real time
                yield Job(sandbox, settings, clock)
        finally:
            clock.runner = None  # aiohttp remembers the servers, and so the clock, for many tests


__all__ = [
    "PRIVATE",
    "ROWS_A",
    "ROWS_B",
    "A",
    "Alias",
    "B",
    "Job",
    "JobClock",
    "Observation",
    "Profile",
    "until",
    "world",
]
