"""The whole pipeline in any order, with kills, doubt and restores: nothing is bought twice, lost, or stuck."""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal, TypeVar

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.killable import Killable, Killed, canonical, quickly
from tests.support.pipeline import JobClock
from tests.support.record import DRAWN
from tests.support.vendor import ANSWERS, Sale, Shelf, Stack, Vendor
from watcher import points
from watcher.cli import approve, batches, retry
from watcher.errors import AuthFailure, Failure, Invalid, Transient, WatcherError
from watcher.fragalysis import Target as RemoteTarget
from watcher.molecule_one import profile_of
from watcher.settings import Settings
from watcher.store import forgotten, invariants
from watcher.store.engine import Session
from watcher.store.schema import (
    Batch,
    BatchItem,
    Claim,
    Compound,
    Condition,
    Instance,
    Profile,
    Score,
    Target,
    Transition,
    Upload,
)
from watcher.store.standing import DAILY_LIMIT

pytest_plugins = ("tests.support.store", "tests.support.at_once")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")
T = TypeVar("T")
DAY = timedelta(hours=24)
PERSON = "a person"
ENDED = ("scored", "no_route", "failed")
STAGES = ("scan", "extract", "submit", "reconcile", "collect", "finish")
POINTS = {
    stage: [*(point for point in points.POINTS if point.startswith(f"{stage}.")), "store.committing", "store.committed"]
    for stage in STAGES
}
POOL = [*("C" * n + end for n in range(1, 13) for end in "ON"), "OCC", "no molecule"]
RAWS = st.lists(st.sampled_from(POOL), min_size=1, max_size=6, unique=True)
TROUBLE: tuple[Failure, ...] = (
    Transient("it does not answer"),
    Transient("not now", retry_after=timedelta(minutes=2)),
    AuthFailure("who are you?"),
    Invalid("not like that"),
)
FRANK = ("whole", "cut", "none")
"""Lists that do not hide that they are not whole."""
WITHDRAWN = ("the index went down", "no upload is listed any more")
"""Why an upload counts no more, as transitions say."""
RARE = (
    "approved",
    "withdrawn",
    "restores",
)
"""What must have taken effect in a long run: each takes several actions."""
WAITS_S = (1, 20, 300, 1900, 7200, 90_000)
ACTIONS = (
    *("an upload appears",) * 4, "an upload goes", "a target changes", "rows appear late",
    *("scan",) * 3, *("extract",) * 3, *("submit",) * 4, *("reconcile",) * 3, *("collect",) * 4, "finish",
    *("turns",) * 14, "all settles", *("the answer comes",) * 2,
    *("results come",) * 4, *("a batch ends",) * 2, "a batch is forgotten", *("the list changes",) * 2,
    "a release", "an adoption", "an approval", "a profile is approved", "a retry",
    *("a service fails",) * 2, *("time passes",) * 4,
    "a kill", "a stop", "other settings", *("a backup",) * 2, "a restore",
)  # fmt: skip


class Pipeline(RuleBasedStateMachine):
    """The program over two services in memory, a person who types commands, and a ledger of what was really taken."""

    template: ClassVar[Path]
    folder: ClassVar[Path]
    engine: ClassVar[AsyncEngine]
    clock: ClassVar[JobClock]
    totals: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.file = self.folder / "watcher.db"
        shutil.copyfile(self.template, self.file)
        Pipeline.clock = JobClock()
        self.stack, self.vendor = Stack(), Vendor()
        self.sound = False
        """Whether all that must hold was seen to hold after the last action."""
        self.violations: list[str] = []
        """What was wrong with a purchase at the moment it was sent."""
        self.given_up: set[str] = set()
        """Tokens of batches that were released, in a record that is gone."""
        self.approved: set[str] = set()
        """Compounds that a person approved, likewise."""
        self.honest = False
        """After a restore the service hides nothing until its list was read, or says that it is not whole."""
        self.backup: tuple[int, dict[int, bool | None]] | None = None
        self.scan_no, self.scanned = 0, dict[int, bool | None]()
        """The last scan, and how public each target was in it."""
        self.forget()

    def forget(self) -> None:
        """Expect nothing of the record that comes next."""
        self.checked = -1
        self.moves = 0
        self.ended: dict[int, str] = {}
        self.final: dict[int, str] = {}
        self.scores: set[tuple[str, str]] = set()

    @initialize(
        version=st.sampled_from(["v1", "v2"]), on_unconfirmed=st.sampled_from(["hold", "resubmit"]),
        a_day=st.sampled_from([0, 0, 3, 6]), a_scan=st.sampled_from([0, 0, 0, 3]), size=st.integers(1, 3),
        private=st.booleans(), first=st.sampled_from(["process"] * 4 + ["baseline"]), delete=st.booleans(),
        poison=st.sampled_from(["", "", "CCO"]), raws=st.tuples(RAWS, RAWS),
    )  # fmt: skip
    def begins(self, version: Literal["v1", "v2"], on_unconfirmed: str, a_day: int, a_scan: int, size: int,
               private: bool, first: str, delete: bool, poison: str, raws: tuple[list[str], ...]) -> None:  # fmt: skip
        self.named = version == "v2"
        self.resubmits = on_unconfirmed == "resubmit"
        own = (
            Settings()
            .replace("fragalysis", stack="https://fragalysis.example", first_seen=first)
            .replace("download", enabled=False)
            .replace("database", url=f"sqlite+aiosqlite:///{self.file}", backup_keep=0)
            .replace("limits", compounds_per_day=a_day, new_compounds_per_scan=a_scan, submit_private=private)
            .replace(
                "molecule_one", token="a-token", api_version=version, on_unconfirmed=on_unconfirmed, batch_size=size,
                delete_after_collect=delete,
            )
        )  # fmt: skip
        self.vendor.poison = poison
        for number, name in enumerate("AB", start=1):
            self.stack.shelves[number] = Shelf(RemoteTarget(number, name, "lb1", True))
            self.upload_appears(self.stack.shelves[number], 1, raws[number - 1])
        self.program = Killable(self.engine, own, self.clock, self.stack, self.vendor, self.at_the_till)
        self.run(self.program.open())
        self.turns(2, after_s=0, scan=True)
        self.totals["examples"] += 1

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def teardown(self) -> None:
        try:
            if self.sound:
                self.run(self.calm())
        finally:
            points.hook = None
            self.totals["taken"] += len(self.vendor.taken)
            self.totals.update({f"killed: {where}": number for where, number in self.program.killed.items()})
            self.run(self.program.close())
            self.loop.close()

    # Fragalysis

    def upload_appears(self, shelf: Shelf, index: int, raws: list[str]) -> None:
        self.clock.advance(60)
        shelf.failed[index, self.clock.now()] = False
        shelf.brought[index, self.clock.now()] = list(raws)

    def upload_goes(self, shelf: Shelf, choice: int, failed: bool) -> None:
        if keys := sorted(shelf.failed):
            key = keys[choice % len(keys)]
            if failed:
                shelf.failed[key] = True
            else:
                del shelf.failed[key]

    def target_changes(self, shelf: Shelf, choice: int) -> None:
        shelf.listed = choice % 5 != 0
        shelf.target = replace(shelf.target, open_to_public=(True, True, False, None)[choice % 4])

    def rows_appear_late(self, shelf: Shelf, raws: list[str]) -> None:
        if shelf.newest:
            shelf.brought[shelf.newest] += raws

    # Molecule.one

    def results_come(self, choice: int, number: int, kind: str, hidden: int) -> None:
        if found := [sale for sale in self.vendor.known() if len(sale.done) < len(sale.smiles)]:
            found[choice % len(found)].work(number, kind)
            found[choice % len(found)].hidden = hidden

    def batch_is_forgotten(self, choice: int) -> None:
        if not self.honest and (found := self.vendor.known()):
            found[choice % len(found)].known = False

    def list_changes(self, how: str, lags: bool) -> None:
        if not self.honest:
            self.vendor.catch_up()
            self.vendor.listing, self.vendor.lags = how, lags
        elif how in FRANK:
            self.vendor.listing = how

    async def look_at_gate(self) -> None:
        """Once sending may begin after a restore: what opened without the whole list may have forgotten anything."""
        if not self.honest or not self.program.runner._sending.allowed:
            return
        self.honest = False
        if self.vendor.listed != "whole":
            self.totals["went on without the list"] += 1
            waited = timedelta(seconds=self.clock.monotonic() - self.program.opened_at)
            if self.named and waited < self.program.settings.molecule_one.unconfirmed_window:
                self.violations.append(f"sending began without the list after {waited}")
            await self.forgive(self.vendor.known())

    async def at_the_till(self, sale: Sale) -> None:
        """Look at a purchase before the vendor does: it must be intended, allowed, and the first of each molecule."""
        self.totals["sent"] += 1
        self.totals[f"answer: {self.vendor.answer}"] += 1
        await self.look_at_gate()
        limits, told = self.program.settings.limits, self.violations
        key = profile_of(self.program.settings.molecule_one).key
        async with self.program.store.read() as session:
            intent = await session.scalar(select(Batch).where(Batch.token == sale.token))
            profiles = (await session.scalars(select(Profile).order_by(Profile.id))).all()
            given_up = self.given_up | await released_tokens(session)
            approved = self.approved | await approved_compounds(session)
            most = await most_of_a_scan(session)
            uncounted = await sent_uncounted(session, sale.token)
        if intent is None or (intent.state, intent.payload) != ("submitting", sale.body):
            told.append("sent before the intent was committed")
        counts = [one for one in self.vendor.taken if not one.forgiven and one.token not in given_up]
        if not any(one.key == key and (one is profiles[0] or one.approved_by == PERSON) for one in profiles):
            told.append(f"sent under {sale.detail_level}, which nobody approved")
        for one in counts:
            if one.detail_level == sale.detail_level and (twice := {*one.smiles} & {*sale.smiles}):
                told.append(f"bought twice: {twice}")
        today = [*(one for one in counts if one.at > sale.at - DAY), sale]
        number = sum(smiles not in approved for one in today for smiles in one.smiles)
        limited = not approved.issuperset(sale.smiles)  # the limit may be lower than when the others were sent
        if limits.compounds_per_day and limited and number > limits.compounds_per_day:
            told.append(f"{number} compounds in a day")
        if limits.new_compounds_per_scan and most > limits.new_compounds_per_scan:
            told.append(f"{most} compounds of one scan")
        if uncounted:
            told.append(f"over the limit of a scan, or not counted: {uncounted}")
        public = [one for n, one in self.stack.shelves.items() if self.scanned.get(n) or one.target.open_to_public]
        hidden = {*sale.smiles} - canonical({smiles for shelf in public for smiles in shelf.ever})
        if hidden and not limits.submit_private:
            told.append(f"left the house: {hidden}")

    # People, and what they do with the program

    def types(self, command: Callable[[Settings], Coroutine[Any, Any, object]]) -> None:
        """Type a command beside the program; it may be refused, or killed on its way."""
        with suppress(WatcherError, Killed):
            self.run(command(self.program.settings))

    def releases(self, choice: int) -> None:
        if found := self.run(self.in_state(*batches.RELEASABLE)):
            self.totals["releases"] += 1
            self.types(lambda settings: batches._release(settings, found[choice % len(found)].id))

    def adopts(self, choice: int) -> None:
        """Adopt what the vendor really has."""
        there = {sale.token: sale.remote_id for sale in self.vendor.known()}
        if found := [one for one in self.run(self.in_state(*batches.ADOPTABLE)) if one.token in there]:
            one = found[choice % len(found)]
            self.totals["adoptions"] += 1
            self.types(lambda settings: batches._adopt(settings, one.id, there[one.token]))

    async def in_state(self, *states: str) -> list[Batch]:
        async with self.program.store.read() as session:
            return list(await session.scalars(select(Batch).where(Batch.state.in_(states)).order_by(Batch.id)))

    def turns(self, number: int, *, after_s: int, scan: bool) -> None:
        self.clock.advance(after_s)
        if scan:
            self.run(self.program.ask_for_scan())
        for _ in range(number):
            self.run(self.program.turn())

    async def settles(self) -> None:
        try:
            await self.program.settle()
        finally:
            assert self.violations == []

    def step(self, stage: str) -> None:
        if stage == "scan":
            self.run(self.program.ask_for_scan())
        self.run(self.program.step(stage))

    def changes_settings(self, a_day: int, level: bool) -> None:
        settings = self.program.settings.replace("limits", compounds_per_day=a_day)
        if level and not self.honest:
            other = "synthesis" if settings.molecule_one.detail_level == "score" else "score"
            settings = settings.replace("molecule_one", detail_level=other)
        self.program.settings = settings
        self.run(self.program.reopen())

    async def back_up(self) -> None:
        await self.engine.dispose()
        shutil.copyfile(self.file, self.folder / "backup.db")
        self.backup = self.scan_no, self.scanned

    async def restore(self, listing: str) -> None:
        """Put the older record in place; the service lists all it has, or says that it does not."""
        if self.backup is None:
            return
        self.totals["restores"] += 1
        async with self.program.store.read() as session:
            self.given_up |= await released_tokens(session)
            self.approved |= await approved_compounds(session)
        await self.program.close()
        shutil.copyfile(self.folder / "backup.db", self.file)
        self.scan_no, self.scanned = self.backup
        self.forget()
        self.honest, self.vendor.listing = True, listing
        self.vendor.catch_up()
        await self.program.open()
        level = self.program.settings.molecule_one.detail_level
        await self.forgive(
            sale for sale in self.vendor.taken if not (self.named and sale.known and sale.detail_level == level)
        )

    async def forgive(self, sales: Iterable[Sale]) -> None:
        """Expect no memory of purchases that the record does not know."""
        async with self.program.store.read() as session:
            tokens = set(await session.scalars(select(Batch.token)))
        for sale in sales:
            sale.forgiven |= sale.token not in tokens

    # One rule: Hypothesis leaves rules out at random, and then what takes several of them hardly ever happens. Its
    # draws repeat each other on purpose, so that details are left to chance.

    @rule(what=st.sampled_from(ACTIONS), seed=st.integers(0, 2**32 - 1))
    def something_happens(self, what: str, seed: int) -> None:
        self.sound = False
        self.totals["actions"] += 1
        chance = Random(seed)
        choice, number, yes = chance.randrange(1000), chance.randrange(4), chance.random() < 0.5
        raws, kind = chance.sample(POOL, chance.randint(1, 6)), chance.choice(ENDED)
        shelf = self.stack.shelves[1 + choice % 2]
        name, service = shelf.target.name, self.stack if yes else self.vendor
        self.vendor.answer = chance.choice(["accepted"] * 4 + list(ANSWERS))
        self.vendor.slow = chance.random() < 0.2
        listing = chance.choice(["whole", "whole", "cut", "short", "nameless", "none"])
        reachable = POINTS.get(what, [point for stage in STAGES for point in POINTS[stage]])
        self.program.deadly = chance.choice(reachable) if chance.random() < 0.2 else None
        note(f"{choice=} {number=} {yes=} {raws=} {kind=} {listing=} {self.vendor.answer=} {self.vendor.slow=} "
             f"{self.program.deadly=}")  # fmt: skip
        happen: dict[str, Callable[[], object]] = {
            "an upload appears": lambda: self.upload_appears(shelf, 1 + choice // 2 % 3, raws),
            "an upload goes": lambda: self.upload_goes(shelf, choice // 2, failed=yes),
            "a target changes": lambda: self.target_changes(shelf, choice // 2),
            "rows appear late": lambda: self.rows_appear_late(shelf, raws),
            "turns": lambda: self.turns(1 + choice % 3, after_s=(0, 20, 90, 600)[number], scan=yes),
            "all settles": lambda: self.run(self.settles()),
            "the answer comes": self.vendor.go_on,
            "results come": lambda: self.results_come(choice, 1, kind, number),
            "a batch ends": lambda: self.results_come(choice, 9, kind, number),
            "a batch is forgotten": lambda: self.batch_is_forgotten(choice),
            "the list changes": lambda: self.list_changes(listing, lags=yes),
            "a release": lambda: self.releases(choice),
            "an adoption": lambda: self.adopts(choice),
            "an approval": lambda: self.types(lambda settings: approve._approve(settings, name)),
            "a profile is approved": lambda: self.types(approve._approve_profile),
            "a retry": lambda: self.types(lambda settings: retry._retry(settings, None)),
            "a service fails": lambda: setattr(service, "trouble", TROUBLE[choice % len(TROUBLE)]),
            "time passes": lambda: self.clock.advance(WAITS_S[choice % len(WAITS_S)]),
            "a kill": lambda: self.run(self.program.reopen()),
            "a stop": lambda: self.run(self.program.reopen(stop=True)),
            "other settings": lambda: self.changes_settings((0, 3, 6)[choice % 3], level=yes),
            "a backup": lambda: self.run(self.back_up()),
            "a restore": lambda: self.run(self.restore(listing if listing in FRANK else "whole")),
        }
        happen.get(what, lambda: self.step(what))()
        self.run(self.program.rest())

    # What must hold

    @invariant()
    def the_promises_hold(self) -> None:
        assert self.violations == []
        assert not self.program.runner._aside
        if self.checked != self.program.committed:
            self.run(self.check())
        self.run(self.look_at_gate())
        self.sound = True

    async def check(self) -> None:
        self.checked = self.program.committed
        async with self.program.store.read() as session:
            assert await invariants.broken(session) == []
            assert list(await session.scalars(select(Condition.reason).where(Condition.kind == "unexpected"))) == []
            assert list(await session.scalars(select(Claim.id).where(Claim.round > 1))) == [], "nobody asked for it"
            await self.check_moves(session)
            batches_now = dict((await session.execute(select(Batch.id, Batch.state))).all())
            left = {one: batches_now[one] for one, state in self.final.items() if batches_now[one] != state}
            assert not left, "a batch that had ended has changed"
            self.final = {one: state for one, state in batches_now.items() if state in ("collected", "closed")}
            states = dict((await session.execute(select(Claim.id, Claim.state))).all())
            changed = {one: states[one] for one, state in self.ended.items() if states[one] != state}
            assert not changed, "what ended has changed"
            self.ended = {one: state for one, state in states.items() if state in ENDED}
            rows = await session.execute(select(Batch.token, Score.raw).join(Batch, Batch.id == Score.batch_id))
            scores = {(token, raw) for token, raw in rows}
            assert scores >= self.scores, "results are gone"
            self.scores = scores
            await self.check_scan(session)

    async def check_moves(self, session: Session) -> None:
        """Compare what batches did with the drawing, and each release with who may do it."""
        rows = await session.execute(
            select(Transition.id, Transition.old, Transition.new, Transition.who)
            .where(Transition.entity == "batch", Transition.field == "state", Transition.id > self.moves)
            .order_by(Transition.id)
        )
        for number, old, new, who in rows:
            self.moves = number
            assert new in DRAWN[old], f"from {old} to {new}"
            assert old is not None or new == "submitting" or self.named
            assert old != "closed", "what was certainly not bought turned up"
            self.totals[f"{old} -> {new}{' by a person' if who == PERSON else ''}"] += 1
            assert new != "released" or who == PERSON or (who == "settings" and self.resubmits), f"released by {who}"

        left = select(Transition.entity_id).where(
            Transition.field == "scoring", Transition.old == "quarantined",
            Transition.new != "history", Transition.who != PERSON,
        )  # fmt: skip
        assert list(await session.scalars(left)) == [], "what is set aside waits for a person"

    async def check_scan(self, session: Session) -> None:
        """After a scan, the record points at what was newest in it."""
        scan_no = (await session.scalars(select(Instance.scan_no))).one()
        if scan_no == self.scan_no:
            return
        self.scan_no = scan_no
        self.scanned = {n: shelf.target.open_to_public for n, shelf in self.stack.shelves.items() if shelf.listed}
        query = select(Target.remote_id, Upload.upload_index, Upload.committed_at)
        for number, index, at in await session.execute(query.outerjoin(Upload, Upload.id == Target.current_upload_id)):
            shelf = self.stack.shelves[number]
            assert not shelf.listed or (index, at) == (shelf.newest or (None, None)), "the index does not follow"

    # The end

    async def calm(self) -> None:
        """All faults are over and time passes: what waits for no person ends."""
        self.vendor.trouble = self.stack.trouble = self.program.deadly = None
        self.vendor.listing, self.vendor.slow = "whole", False
        self.vendor.catch_up()
        self.vendor.go_on()
        await self.program.rest()
        await self.program.reopen()
        for wait in (timedelta(), timedelta(minutes=45), timedelta(minutes=75), timedelta(minutes=75), *[DAY] * 8):
            if wait == DAY and not await self.held_for_today():
                break
            self.clock.advance(wait)
            await self.program.ask_for_scan()
            await self.settles()
        await self.check()
        async with self.program.store.read() as session:
            await self.count(session)
            assert await invariants.integrity(session, sqlite=True) == []
            await self.check_end(session)

    async def count(self, session: Session) -> None:
        """Count what seldom takes effect and no batch tells."""
        changes = select(func.count()).select_from(Transition)
        taken_up = Transition.field == "scoring", Transition.old == "quarantined", Transition.who == PERSON
        gone = Transition.field == "current_upload_index", Transition.why.in_(WITHDRAWN)
        self.totals["retried"] += await session.scalar(changes.where(*taken_up)) or 0
        self.totals["withdrawn"] += await session.scalar(changes.where(*gone)) or 0
        approved = select(func.count()).where(Claim.approved_at.is_not(None))
        self.totals["approved"] += await session.scalar(approved) or 0

    async def held_for_today(self) -> bool:
        async with self.program.store.read() as session:
            return bool(await session.scalar(select(func.count()).where(Claim.reason == DAILY_LIMIT)))

    async def check_end(self, session: Session) -> None:
        found = (await session.scalars(select(Batch))).all()
        there = {sale.remote_id: sale for sale in self.vendor.known()}
        open_ones = [one for one in found if one.state not in ("collected", "closed", "released")]
        for one in open_ones:
            assert one.state in ("unconfirmed", "lost"), f"batch {one.id} is {one.state} for ever"
            assert one.remote_id not in there, "lost, but the service has it"
            assert one.state == "lost" or not (self.named and self.resubmits), "unconfirmed for ever"
        assert not self.named or there.keys() <= {one.remote_id for one in found}, "a batch of ours is not known"
        theirs = [(one.token, there[one.remote_id]) for one in found if one.remote_id in there]
        owed = {(token, item.decode()) for token, sale in theirs for item in sale.done.values()}
        assert owed <= self.scores, "results are lost"
        asks = set(await session.scalars(select(Condition.kind).where(Condition.until.is_(None))))
        states = set(await session.scalars(select(Claim.state).distinct()))
        held = "submissions_refused" in asks or await forgotten.reading_back(session)
        assert "wanted" not in states or held, "never sent"
        doubtful = select(BatchItem.claim_id).where(
            BatchItem.live, BatchItem.batch_id.in_([one.id for one in open_ones])
        )
        stuck = select(Claim.id).where(Claim.state == "reserved", Claim.id.not_in(doubtful))
        assert list(await session.scalars(stuck)) == [], "reserved for ever"
        uploads = select(Target.remote_id, Upload.scoring_state).join(Upload, Upload.id == Target.current_upload_id)
        for number, state in await session.execute(uploads):
            waits = state == "extracted" and states & {"wanted", "withheld", "reserved"}
            assert state in ("scored", "quarantined") or waits or not self.stack.shelves[number].listed, state


async def released_tokens(session: Session) -> set[str]:
    """Tokens of the batches that were given up; not of those that turned up and whose results are waited for."""
    released = select(Transition.entity_id).where(Transition.entity == "batch", Transition.new == "released")
    back = Batch.state.in_(("submitted", "finished", "lost"))
    return set(await session.scalars(select(Batch.token).where(Batch.id.in_(released), ~back)))


async def approved_compounds(session: Session) -> set[str]:
    query = select(Compound.smiles).join(Claim, Claim.compound_id == Compound.id)
    return set(await session.scalars(query.where(Claim.approved_at.is_not(None))))


async def most_of_a_scan(session: Session) -> int:
    """How many compounds were let through for one scan, at most; the record says which scan each one counts for.

    Nobody outside can tell: late rows count for the scan that saw their upload, others for the last scan.
    """
    free = select(func.count()).where(Claim.counted_in.is_not(None), ~Claim.over_scan_limit)
    return max(await session.scalars(free.group_by(Claim.profile_id, Claim.counted_in)), default=0)


async def sent_uncounted(session: Session, token: str) -> list[int]:
    """Claims of a batch that no person approved, and that no scan had room for."""
    query = (
        select(Claim.id)
        .join(BatchItem, BatchItem.claim_id == Claim.id)
        .join(Batch, Batch.id == BatchItem.batch_id)
        .where(Batch.token == token, Claim.approved_at.is_(None))
    )
    return list(await session.scalars(query.where(or_(Claim.counted_in.is_(None), Claim.over_scan_limit))))


def run_machine(template: Path, folder: Path, *, examples: int, steps: int) -> None:
    canonical(POOL)  # reads the data of the chemistry, which no loop may wait for
    Pipeline.template, Pipeline.folder = template, folder
    Pipeline.totals.clear()
    with quickly(folder) as Pipeline.engine, pytest.MonkeyPatch.context() as patch:
        for command in (approve, batches, retry):
            patch.setattr(command, "now", lambda: Pipeline.clock.now())
            patch.setattr(command, "who", lambda: PERSON)
        run_state_machine_as_test(
            Pipeline,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                phases=(Phase.explicit, Phase.reuse, Phase.generate),  # making a finding small takes minutes
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(dict(sorted(Pipeline.totals.items())))  # noqa: T201 - shown with -s


@pytest.fixture(autouse=True)
def _commands_look_for_the_record(blockbuster: BlockBuster) -> None:
    """They have a process of their own elsewhere."""
    blockbuster.functions["os.stat"].can_block_in("watcher/cli/common.py", "record")


def test_the_pipeline_keeps_its_promises(sqlite_template: Path, tmp_path: Path) -> None:
    run_machine(sqlite_template, tmp_path, examples=2, steps=25)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_pipeline_keeps_its_promises_for_long(sqlite_template: Path, tmp_path: Path) -> None:
    run_machine(sqlite_template, tmp_path, examples=30, steps=60)
    done = Pipeline.totals
    assert sum(number for what, number in done.items() if what.startswith("killed")) >= 10
    assert sum(number for what, number in done.items() if what.startswith("answer: taken")) >= 5
    assert min(done[what] for what in RARE) >= 1
