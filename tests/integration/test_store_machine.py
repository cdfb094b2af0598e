"""Whatever happens in whatever order: nothing is bought twice, nothing is lost, nothing that ended begins again."""

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import func, select, update

from tests.support.record import DRAWN, World, result, settings_for_file
from watcher.fragalysis import Target as RemoteTarget
from watcher.fragalysis import TargetUploads
from watcher.fragalysis import Upload as RemoteUpload
from watcher.pipeline.scan import compare
from watcher.store import batches, legs, results, targets
from watcher.store.engine import Store
from watcher.store.invariants import broken_rules
from watcher.store.schema import Batch, BatchItem, Claim, Compound, Score, Target, Transition
from watcher.store.standing import OPEN, Policy

pytest_plugins = ("tests.support.store", "tests.support.at_once")
pytestmark = pytest.mark.usefixtures("sqlite_at_once")
T = TypeVar("T")
ENDED = ("scored", "no_route", "failed")
POOL = [f"C{n}" for n in range(6)]
RAWS = st.lists(st.sampled_from(POOL), max_size=5, unique=True)
ANSWERS = (
    "accepted",
    "accepted",
    "accepted",
    "not sent",
    "refused",
    "lost on the way",
    "lost on the way back",
    "none yet",
)
ACTIONS = (
    "an upload appears", "an upload appears", "an upload goes", "a target opens or closes", "a purchase", "a purchase",
    "a purchase", "a purchase", "a late answer", "a batch is found", "a release", "a batch is forgotten", "results",
    "results", "results", "an end", "an approval", "other settings", "time", "a start",
)  # fmt: skip
CHOICE = st.integers(min_value=0, max_value=1000)


RARE = (
    "unconfirmed -> released",
    "lost -> released",
    "unconfirmed -> submitted",
    "lost -> submitted",
    "released -> submitted",
    "submitted -> lost",
    "finished -> collected",
    "approved",
    "withdrawn",
)
"""What must have taken effect in a long run: each takes several actions."""


class Purchases(RuleBasedStateMachine):
    """A record, a vendor that remembers what it really took, and a person."""

    template: ClassVar[Path]
    totals: ClassVar[Counter[str]] = Counter()
    """How often what is drawn seldom took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copyfile(self.template, self.folder / "watcher.db")
        self.open()
        self.world = self.run(World.begin(self.store))
        self.targets = [self.run(self.world.target(name)) for name in "AB"]
        self.listed: dict[int, dict[tuple[int, datetime], bool]] = {target: {} for target in self.targets}
        self.holds: dict[tuple[int, int, datetime], list[str]] = {}
        self.taken: set[int] = set()
        """Batches that the vendor really took."""
        self.given_up: Counter[str] = Counter()
        """How often a person let a compound go that may have been bought."""
        self.items: dict[int, list[str]] = {}
        self.raw: set[tuple[int, str]] = set()
        self.ended: dict[int, str] = {}
        self.final: dict[int, str] = {}
        """Batches that nothing changes any more."""
        self.moves = 0
        for target in range(2):
            self.upload_appears(target, 1, POOL[target : target + 3])

    def open(self) -> None:
        self.store = Store(settings_for_file(self.folder / "watcher.db"))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.engine.dispose())
        self.runner.close()
        shutil.rmtree(self.folder)

    def pick(self, choice: int, *states: str) -> Batch | None:
        async def find() -> list[Batch]:
            async with self.store.read() as session:
                return list(await batches.in_state(session, *states))

        found = self.run(find())
        return found[choice % len(found)] if found else None

    # Fragalysis

    def upload_appears(self, which: int, index: int, raws: list[str]) -> None:
        target_id = self.targets[which % 2]
        self.world.now += timedelta(minutes=1)
        self.listed[target_id][index, self.world.now] = False
        self.holds[target_id, index, self.world.now] = raws
        self.scan(target_id)

    def upload_goes(self, which: int, choice: int, failed: bool) -> None:
        target_id = self.targets[which % 2]
        if keys := sorted(self.listed[target_id]):
            key = keys[choice % len(keys)]
            if failed:
                self.listed[target_id][key] = True
            else:
                self.totals["withdrawn"] += key == max(keys, key=lambda one: one[1])
                del self.listed[target_id][key]
            self.scan(target_id)

    def target_opens_or_closes(self, which: int, public: bool | None) -> None:
        self.run(self.world.change(self.targets[which % 2], open_to_public=public))

    def scan(self, target_id: int) -> None:
        self.run(self.world.scan())
        current = self.run(self._scan(target_id))
        if current is not None:
            upload_id, key = current
            self.run(self.world.read(upload_id, self.holds[target_id, *key]))

    async def _scan(self, target_id: int) -> tuple[int, tuple[int, datetime]] | None:
        remote = TargetUploads(
            RemoteTarget(target_id, "A", "lb1", True),
            tuple(
                RemoteUpload(target_id, index, at, failed)
                for (index, at), failed in sorted(self.listed[target_id].items(), key=lambda item: item[0][1])
            ),
        )
        async with self.store.write() as session:
            target = await session.get_one(Target, target_id)
            known = await targets.uploads_of(session, target_id)
            before = next((key for key, upload in known.items() if upload.id == target.current_upload_id), None)
            said = compare(known, before, remote)
            for key in said.new:
                known[key] = await targets.add_upload(session, target, key, scan_no=1, now=self.world.now)
            upload = known[said.current] if said.current else None
            if said.why:
                await legs.make_current(session, target, upload, keep_archive=True, now=self.world.now, why=said.why)
            newest = remote.last_upload
            assert (newest is None) == (target.current_upload_id is None)
            if newest is None or upload is None:
                return None
            assert upload.id == target.current_upload_id
            assert (upload.upload_index, upload.committed_at) == (newest.upload_index, newest.committed_at)
            return upload.id, (upload.upload_index, upload.committed_at)

    # Molecule.one

    def buy(self, size: int, answer: str) -> None:
        batch_id = self.run(self.world.reserve(size))
        if batch_id is not None:
            self.items[batch_id] = self.run(self.world.sent(batch_id))
            assert 1 <= len(self.items[batch_id]) <= size
            self.answer(batch_id, answer)

    def the_answer_comes(self, choice: int, answer: str) -> None:
        if batch := self.pick(choice, "submitting"):
            self.answer(batch.id, answer)

    def answer(self, batch_id: int, answer: str) -> None:
        if answer in ("accepted", "lost on the way back"):
            self.taken.add(batch_id)
        if answer == "accepted":
            self.run(self.world.accept(batch_id))
        elif answer == "not sent":
            self.run(self.world.close_unsent(batch_id))
        elif answer == "refused":
            self.run(self.world.refuse(batch_id))
        elif answer != "none yet":
            self.run(self.world.doubt(batch_id))

    def found_or_turns_up_late(self, choice: int) -> None:
        batch = self.pick(choice, "unconfirmed", "lost", "released")
        if batch and batch.id in self.taken:
            before = self.run(self.world.claims())
            self.run(self.world.accept(batch.id))
            if batch.state == "released":  # what was not bought again meanwhile is not to be bought again now
                self.given_up.subtract(s for s in self.items[batch.id] if before[s][0] in OPEN)

    def a_person_releases(self, choice: int, then_it_turns_up: bool) -> None:
        if batch := self.pick(choice, "unconfirmed", "lost"):
            before = self.run(self.world.claims())
            self.run(self.world.release(batch.id))
            self.given_up.update(smiles for smiles in self.items[batch.id] if before[smiles][0] == "reserved")
            if then_it_turns_up:
                self.found_or_turns_up_late(choice)

    def the_service_forgets(self, choice: int, and_a_person_releases: bool) -> None:
        if batch := self.pick(choice, "submitted", "finished"):
            self.run(self.world.lose(batch.id))
            if and_a_person_releases:
                self.a_person_releases(choice, then_it_turns_up=False)

    def results_come(self, choice: int, kinds: list[str], foreign: bool, value: int) -> None:
        if batch := self.pick(choice, "submitted", "finished"):
            pairs = zip(self.items[batch.id], kinds, strict=False)
            came = [result(smiles, kind, float(value)) for smiles, kind in pairs if kind != "missing"]
            if foreign:
                came.append(result("never asked for", "scored", float(value)))
            new = {(batch.id, one.raw) for one in came} - self.raw
            assert self.run(self.world.results(batch.id, *came)) == len(new)
            self.raw |= new

    def the_batch_ends(self, choice: int) -> None:
        if batch := self.pick(choice, "submitted"):
            self.run(self._end(batch.id))

    async def _end(self, batch_id: int) -> None:
        async with self.store.write() as session:
            batch = await batches.get(session, batch_id)
            batches.move(session, batch, "finished", why="done", now=self.world.now)
            for claim in await results.missing(session, batch_id):
                batches.fail(session, claim, "no_result", self.world.now)
            batches.move(session, batch, "collected", why="done", now=self.world.now)
            batch.finished_at = batch.collected_at = self.world.now

    # People and time

    def a_person_approves(self, which: int) -> None:
        self.totals["approved"] += self.run(self.world.approve(self.targets[which % 2]))

    def limits_change(self, a_day: int, a_scan: int) -> None:
        self.world.policy = Policy(compounds_per_day=a_day, new_compounds_per_scan=a_scan)

    def time_passes(self, hours: int) -> None:
        self.world.now += timedelta(hours=hours)

    def the_program_starts_again(self) -> None:
        self.run(self.store.engine.dispose())
        self.open()
        self.world.store = self.store

    # One rule: Hypothesis leaves rules out at random, and then what takes several of them hardly ever happens.

    @rule(
        what=st.sampled_from(ACTIONS), which=CHOICE, choice=CHOICE, raws=RAWS, size=st.integers(1, 5),
        public=st.sampled_from([True, True, False, None]), answer=st.sampled_from(ANSWERS), yes=st.booleans(),
        kinds=st.lists(st.sampled_from([*ENDED, "missing"]), min_size=1, max_size=5), value=st.integers(1, 3),
        limits=st.sampled_from([(0, 0), (0, 2), (3, 0), (30, 2)]), hours=st.integers(1, 30),
    )  # fmt: skip
    def something_happens(self, what: str, which: int, choice: int, raws: list[str], size: int, public: bool | None,
                          answer: str, yes: bool, kinds: list[str], value: int, limits: tuple[int, int],
                          hours: int) -> None:  # fmt: skip
        happen: dict[str, Callable[[], None]] = {
            "an upload appears": lambda: self.upload_appears(which, 1 + choice % 3, raws),
            "an upload goes": lambda: self.upload_goes(which, choice, failed=yes),
            "a target opens or closes": lambda: self.target_opens_or_closes(which, public),
            "a purchase": lambda: self.buy(size, answer),
            "a late answer": lambda: self.the_answer_comes(choice, answer),
            "a batch is found": lambda: self.found_or_turns_up_late(choice),
            "a release": lambda: self.a_person_releases(choice, yes),
            "a batch is forgotten": lambda: self.the_service_forgets(choice, yes),
            "results": lambda: self.results_come(choice, kinds, yes, value),
            "an end": lambda: self.the_batch_ends(choice),
            "an approval": lambda: self.a_person_approves(which),
            "other settings": lambda: self.limits_change(*limits),
            "time": lambda: self.time_passes(hours),
            "a start": self.the_program_starts_again,
        }
        happen[what]()

    # What must hold

    @invariant()
    def the_promises_hold(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        async with self.store.read() as session:
            assert await broken_rules(session) == []
            states = {
                claim_id: (smiles, state)
                for claim_id, smiles, state in await session.execute(
                    select(Claim.id, Compound.smiles, Claim.state).join(Compound, Compound.id == Claim.compound_id)
                )
            }
            for claim_id, state in self.ended.items():
                assert states[claim_id][1] == state, "what ended has changed"
            self.ended = {claim_id: state for claim_id, (_, state) in states.items() if state in ENDED}

            bought = Counter(smiles for batch_id in self.taken for smiles in self.items[batch_id])
            for smiles, times in bought.items():
                assert times <= 1 + self.given_up[smiles], f"{smiles} was bought {times} times"

            scores = await session.execute(select(Score.batch_id, Score.raw))
            assert {(batch_id, raw) for batch_id, raw in scores} == self.raw

            live = await session.scalar(select(func.count()).select_from(BatchItem).where(BatchItem.live))
            assert (live or 0) <= sum(map(len, self.items.values()))

            moved = await session.execute(
                select(Transition.id, Transition.old, Transition.new)
                .where(Transition.entity == "batch", Transition.id > self.moves)
                .order_by(Transition.id)
            )
            for number, old, new in moved:
                self.moves = number
                assert new in DRAWN[old], f"from {old} to {new}"
                assert old is not None or new == "submitting", "nothing is read back here"
                self.totals[f"{old} -> {new}"] += 1
            found = dict((await session.execute(select(Batch.id, Batch.state))).all())
            changed = {one: found[one] for one, state in self.final.items() if found[one] != state}
            assert not changed, "a batch that had ended has changed"
            self.final = {one: state for one, state in found.items() if state in ("collected", "closed")}


def run_machine(template: Path, *, examples: int, steps: int) -> None:
    Purchases.template = template
    Purchases.totals.clear()
    run_state_machine_as_test(
        Purchases,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # making a finding small takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_promises_hold_in_any_order(sqlite_template: Path) -> None:
    run_machine(sqlite_template, examples=6, steps=50)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_promises_hold_in_any_order_for_long(sqlite_template: Path) -> None:
    run_machine(sqlite_template, examples=20, steps=80)
    done = Purchases.totals
    print(dict(sorted(done.items())))  # noqa: T201 - shown with -s
    assert min(done[what] for what in RARE) >= 1


MISTAKES = {
    "claims are taken again": lambda: update(Claim).where(Claim.state == "reserved").values(state="wanted"),
    "items end too early": lambda: update(BatchItem).values(live=False),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
async def test_the_promises_are_seen_to_break(mistake: str, store: Store) -> None:
    """The checks of this module find what they are there for."""
    world = await World.begin(store)
    await world.upload(await world.target(), ["C"])
    await world.buy()
    assert await world.broken() == []
    async with store.write() as session:
        await session.execute(MISTAKES[mistake]())
    assert await world.broken() != []
