"""Results: stored as they come, once, and the claims that they end; batches that were forgotten or turn up late."""

import asyncio
from unittest.mock import Mock

import pytest
from sqlalchemy import func, select

from tests.support.clock import START
from tests.support.record import CHEMISTRY, World, result, verdict
from watcher.settings import DatabaseSettings
from watcher.store import batches, compounds, forgotten, results
from watcher.store.engine import Store
from watcher.store.schema import Batch, BatchItem, Claim, Compound, Score, Transition

pytest_plugins = ("tests.support.store",)


async def scores(world: World) -> list[tuple[str, str, int | None]]:
    async with world.store.read() as session:
        rows = await session.execute(select(Score.smiles, Score.kind, Score.claim_id).order_by(Score.id))
        return [(smiles, kind, claim_id) for smiles, kind, claim_id in rows]


async def bought(world: World, *raws: str) -> int:
    await world.upload(await world.target(), raws)
    batch_id = await world.buy()
    assert batch_id is not None
    return batch_id


async def test_each_result_ends_its_claim_and_is_stored_as_it_came(world: World) -> None:
    batch_id = await bought(world, "C", "N", "O")
    raw = '{"odd" : [1.0,  2e0], "\\ud800": "\x00 \ue000"}'
    came = [result("C", raw=raw), result("N", "no_route", 10.0), result("O", "failed", -1.0)]
    assert await world.results(batch_id, *came) == 3
    assert await world.claims() == {
        "C": ("scored", None), "N": ("no_route", None), "O": ("failed", "the service answered error"),
    }  # fmt: skip
    async with world.store.read() as session:
        score = (await session.scalars(select(Score).where(Score.smiles == "C"))).one()
        assert score.raw == raw
        assert (score.result, score.certainty, score.price_usd, score.reaction_count) == (3.5, 0.75, 12.5, 2)
        assert (score.timed_out, score.route, score.status, score.received_at) == (False, '{"step":1}', "ok", world.now)
        assert await results.missing(session, batch_id) == []
    assert await world.reserve() is None


async def test_results_that_come_again_are_stored_once(world: World) -> None:
    batch_id = await bought(world, "C", "N")
    assert await world.results(batch_id, result("C"), result("C")) == 1
    assert await world.results(batch_id, result("C"), result("N")) == 1
    assert len(await scores(world)) == 2


async def test_a_changed_result_is_added_and_what_ended_stays_ended(world: World) -> None:
    batch_id = await bought(world, "C")
    await world.results(batch_id, result("C", value=3.5))
    assert await world.results(batch_id, result("C", "failed", -1.0)) == 1
    assert [kind for _, kind, _ in await scores(world)] == ["scored", "failed"]
    assert await world.claims() == {"C": ("scored", None)}


async def test_only_the_very_string_counts(world: World) -> None:
    batch_id = await bought(world, "CO")
    assert await world.results(batch_id, result("OC"), result("CO "), result(""), result("co")) == 4
    assert [claim_id for *_, claim_id in await scores(world)] == [None] * 4
    assert await world.claims() == {"CO": ("reserved", None)}
    async with world.store.read() as session:
        assert len(await results.missing(session, batch_id)) == 1


async def test_a_result_of_another_batch_does_not_count_here(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    first, second = await world.buy(1) or 0, await world.buy(1) or 0
    await world.results(second, result("C"), result("N"))
    assert await world.claims() == {"C": ("reserved", None), "N": ("scored", None)}
    await world.results(first, result("C"))
    assert (await world.claims())["C"] == ("scored", None)


async def test_what_is_missing_at_the_end_is_known_in_the_order_of_sending(world: World) -> None:
    batch_id = await bought(world, "P", "C", "N")
    await world.results(batch_id, result("C"))
    async with world.store.read() as session:
        missing = [claim.compound_id for claim in await results.missing(session, batch_id)]
        order = list(await session.scalars(select(Compound.id).where(Compound.smiles.in_(["P", "N"])).order_by("id")))
    assert missing == order


# What turns up after it was given up


async def given_up(world: World, *raws: str) -> int:
    await world.upload(await world.target(), raws)
    batch_id = await world.reserve() or 0
    await world.doubt(batch_id)
    assert await world.release(batch_id) == len(raws)
    return batch_id


async def test_a_released_batch_that_turns_up_takes_its_claims_back(world: World) -> None:
    batch_id = await given_up(world, "C", "N")
    await world.accept(batch_id)
    assert await world.claims() == {"C": ("reserved", None), "N": ("reserved", None)}
    assert await world.reserve() is None
    assert await world.broken() == []
    await world.results(batch_id, result("C"), result("N"))
    assert {state for state, _ in (await world.claims()).values()} == {"scored"}


async def test_one_that_turns_up_after_all_was_bought_again_makes_no_second_live_item(world: World) -> None:
    first = await given_up(world, "C", "N")
    second = await world.buy() or 0
    await world.accept(first)
    assert await world.broken() == []
    async with world.store.read() as session:
        live = await session.execute(select(BatchItem.batch_id, BatchItem.live).order_by(BatchItem.id))
        assert [(batch_id, is_live) for batch_id, is_live in live] == [(first, False)] * 2 + [(second, True)] * 2
    await world.results(first, result("C"))  # the first answer counts, whoever gives it
    assert await world.claims() == {"C": ("scored", None), "N": ("reserved", None)}
    await world.results(second, result("C", value=4.0), result("N"))
    assert len(await scores(world)) == 3


async def test_one_that_turns_up_after_some_were_bought_again_takes_the_others(world: World) -> None:
    first = await given_up(world, "C", "N", "O")
    await world.buy(1)
    await world.accept(first)
    assert await world.broken() == []
    assert await world.reserve() is None


async def test_releasing_a_lost_batch_keeps_what_has_its_result(world: World) -> None:
    batch_id = await bought(world, "C", "N")
    await world.results(batch_id, result("C"))
    await world.lose(batch_id)
    assert await world.release(batch_id) == 1
    assert await world.claims() == {"C": ("scored", None), "N": ("wanted", None)}
    async with world.store.read() as session:
        live = await session.scalar(select(func.count()).select_from(BatchItem).where(BatchItem.live))
    assert live == 1


async def test_a_person_and_the_program_cannot_both_decide(database: DatabaseSettings) -> None:
    """The program finds a batch in the moment in which a person, in another process, gives it up."""
    async with Store(database) as one, Store(database) as other:
        program = await World.begin(one)
        person = World(other)
        await program.upload(await program.target(), ["C"])
        for _ in range(5):
            batch_id = await program.reserve() or 0
            await program.doubt(batch_id)
            done = await asyncio.gather(
                program.accept(batch_id), person.release(batch_id), person.release(batch_id), return_exceptions=True
            )
            refused = [one for one in done if isinstance(one, ValueError)]
            assert len(refused) + sum(not isinstance(one, Exception) for one in done) == 3
            assert await program.broken() == []
            if (await program.batch(batch_id)).state == "submitted":
                assert await person.reserve() is None
                break
            assert len(refused) == 2 or (await program.batch(batch_id)).remote_id is not None


@pytest.mark.parametrize(
    ("state", "to"),
    [(state, to) for state in batches.MOVES for to in [*batches.MOVES, "nonsense"] if to not in batches.MOVES[state]],
)
def test_only_the_moves_of_the_drawing_happen(state: str, to: str) -> None:
    session = Mock()
    with pytest.raises(ValueError, match="cannot go"):
        batches.move(session, Batch(id=1, state=state), to, why="", now=START)
    session.add.assert_not_called()


async def test_each_move_is_written_down_with_who_and_why(world: World) -> None:
    batch_id = await given_up(world, "C")
    async with world.store.read() as session:
        rows = await session.execute(
            select(Transition.old, Transition.new, Transition.who, Transition.why)
            .where(Transition.entity == "batch", Transition.entity_id == batch_id)
            .order_by(Transition.id)
        )
        assert [tuple(row) for row in rows] == [
            (None, "submitting", "watcher", "1 compounds are due"),
            ("submitting", "unconfirmed", "watcher", "no answer"),
            ("unconfirmed", "released", "someone", "gave it up"),
        ]


# Batches that the record has forgotten


async def read_back(world: World, *strings: str, size: int = 3) -> int:
    async with world.store.write() as session:
        profile = await world.profile(session)
        batch = await forgotten.read_back(
            session, profile, token=f"old-{next(world.numbers)}", remote_id=f"r-{next(world.numbers)}", size=size,
            now=world.now,
        )  # fmt: skip
        batch_id = batch.id
    await attach(world, batch_id, *strings)
    return batch_id


async def attach(world: World, batch_id: int, *strings: str) -> None:
    async with world.store.write() as session:
        await compounds.record_verdicts(session, [verdict(one) for one in strings], chemistry=CHEMISTRY, now=world.now)
        ids = await compounds.by_smiles(session, strings)
        batch = await batches.get(session, batch_id)
        await forgotten.attach(session, batch, sorted(ids.values()), scan_no=1, now=world.now)


async def test_what_a_forgotten_batch_shows_is_not_bought_again(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    batch_id = await read_back(world, "C", "O")
    async with world.store.read() as session:
        assert await forgotten.reading_back(session)
    await attach(world, batch_id, "C", "O", "P")  # more of its results show
    await world.results(batch_id, result("C"), result("O"))
    assert await world.sent(await world.reserve()) == ["N"]
    assert await world.claims() == {
        "C": ("scored", None), "N": ("reserved", None), "O": ("scored", None), "P": ("reserved", None),
    }  # fmt: skip
    assert await world.broken() == []
    async with world.store.write() as session:
        batch = await batches.get(session, batch_id)
        batches.move(session, batch, "finished", why="done", now=world.now)
        batch.size = 4
        await session.flush()
        assert await forgotten.reading_back(session), "it holds one more than it shows"
        batch.size = 3
        await session.flush()
        assert not await forgotten.reading_back(session), "all that it holds is known"
        batches.move(session, batch, "collected", why="done", now=world.now)
        batch.size = 4
        await session.flush()
        assert not await forgotten.reading_back(session)


async def test_what_is_bought_or_ended_stays_so_when_a_forgotten_batch_shows_it(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    first = await world.buy(1) or 0
    await world.results(first, result("C"))
    second = await world.buy(1) or 0
    old = await read_back(world, "C", "N")
    async with world.store.read() as session:
        rows = await session.execute(select(BatchItem.batch_id, BatchItem.live).order_by(BatchItem.id))
        assert [tuple(row) for row in rows] == [(first, True), (second, True), (old, False), (old, False)]
    assert await world.claims() == {"C": ("scored", None), "N": ("reserved", None)}
    assert await world.broken() == []


async def test_a_large_forgotten_batch_is_attached_at_once(world: World) -> None:
    raws = [f"C{n}" for n in range(1500)]
    batch_id = await read_back(world, *raws, size=1500)
    async with world.store.read() as session:
        assert await session.scalar(select(func.count()).select_from(Claim).where(Claim.state == "reserved")) == 1500
        assert len(await results.sent_smiles(session, batch_id)) == 1500
