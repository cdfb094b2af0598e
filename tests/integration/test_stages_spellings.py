"""Compounds that are stored under another spelling than today's, as when another RDKit reads a restored record."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.batches import restored
from tests.support.pipeline import A, Job, world
from watcher import chemistry as rdkit
from watcher.chemistry_records import Identity
from watcher.store import compounds
from watcher.store.compounds import Verdict
from watcher.store.schema import Compound

pytest_plugins = ("tests.support.at_once",)
pytestmark = pytest.mark.usefixtures("sqlite_at_once")

OTHER = {"CCC": "C(C)C", "CCCC": "C(CC)C"}
"""Spellings of another RDKit."""


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("download", enabled=False)
        job.set("fragalysis", targets=["A71*"])
        yield job


async def restored_under_another(job: Job) -> None:
    """What the record has forgotten was bought under the spellings of another RDKit."""
    await restored(job)
    forgotten = job.sandbox.molecule_one.batches.all()[-1]
    forgotten.targets = tuple(OTHER[smiles] for smiles in forgotten.targets)


async def stored(job: Job) -> set[str]:
    return {one.smiles for one in await job.all(Compound)}


async def all_is_scored_once(job: Job) -> None:
    assert (job.posts(), set(job.bought.values())) == (2, {1})
    assert {row.disposition for row in await job.rows()} == {"scored"}
    assert {state for state, _ in (await job.claims()).values()} == {"scored"}
    assert await job.conditions() == {}


@pytest.mark.parametrize("first", ["extraction", "results"])
async def test_what_was_bought_under_another_spelling_is_not_bought_again(job: Job, first: str) -> None:
    await restored_under_another(job)
    where, path = ("molecule_one", "search-status") if first == "extraction" else ("fragalysis", "site_observations")
    late = job.fault(where, "status", path, status=503, times=4)  # type: ignore[arg-type]
    await job.once()
    assert late.hits == 4
    assert await stored(job) == {"CCO", "CCN", *(OTHER if first == "extraction" else OTHER.values())}
    await all_is_scored_once(job)


def add_while_the_chemistry_looks(job: Job, smiles: str, *, at: str) -> None:
    """Somebody else stores a molecule between the look at the record and the change that rests on it."""
    assert job.program is not None
    context = job.program.context
    identify, canonical = context.chemistry.identify, context.chemistry.canonical
    asked: list[str] = []

    async def identify_and_remember(raws: Sequence[str]) -> list[object]:
        asked.extend(raws)
        return await identify(raws)  # type: ignore[return-value]

    async def add_and_answer(stored: Sequence[str]) -> list[str | None]:
        if at in asked:
            asked.clear()
            one = rdkit.identify(smiles)
            assert isinstance(one, Identity)
            known = Verdict(smiles, smiles=smiles, inchikey=one.inchikey, heavy_atoms=one.heavy_atoms)
            async with context.store.write() as session:
                await compounds.add_compounds(session, [known], now=job.clock.now())
        return await canonical(stored)

    context.chemistry.identify = identify_and_remember  # type: ignore[method-assign, assignment]
    context.chemistry.canonical = add_and_answer  # type: ignore[method-assign, assignment]


async def test_an_upload_finds_a_spelling_that_was_stored_while_it_was_judged(job: Job) -> None:
    job.sandbox.fragalysis.add_upload(*A, [("A0400a", "CCC", "Z9")])
    async with job.run() as runner:
        add_while_the_chemistry_looks(job, "C(C)C", at="CCC")
        await job.again(runner)
    assert await stored(job) == {"CCO", "CCN", "C(C)C"}
    assert job.bought == {"CCO": 1, "CCN": 1, "C(C)C": 1}


async def test_a_forgotten_batch_finds_a_spelling_that_was_stored_while_it_was_judged(job: Job) -> None:
    await restored_under_another(job)
    job.fault("fragalysis", "status", "site_observations", status=503, times=None)
    async with job.run() as runner:
        add_while_the_chemistry_looks(job, "CCC", at="C(C)C")
        await job.again(runner)
        assert await stored(job) == {"CCO", "CCN", "CCC", OTHER["CCCC"]}
        job.sandbox.clear_faults()
        await job.later(runner, minutes=20)
    await all_is_scored_once(job)
