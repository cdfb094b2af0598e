"""The outbox and what is counted of an upload, on each database."""

from datetime import timedelta

from tests.support.record import World, result
from watcher.notices import GATHERING, Notice, Subscription, settled
from watcher.settings import DatabaseSettings
from watcher.store import outbox, targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Store
from watcher.store.schema import Outbox
from watcher.store.settlement import settlement

pytest_plugins = ("tests.support.store",)

ALL = frozenset(("settled", "attention", "recovered"))
TWO = Subscription(2, ALL, timedelta(minutes=15), include_structures=False)


async def trouble(store: Store, world: World, kind: str, *, over: bool = False) -> None:
    async with store.write() as session:
        if over:
            await close_condition(session, "x", kind, now=world.now)
        else:
            await open_condition(session, "x", kind, reason="why", action="what", now=world.now)


async def test_from_the_change_to_the_end(database: DatabaseSettings, world: World) -> None:
    now, later = world.now, world.now + timedelta(hours=1)
    async with Store(database, subscription=TWO) as store:
        await trouble(store, world, "unreachable")
        await trouble(store, world, "unreachable", over=True)
        async with store.read() as session:
            assert await outbox.pending(session) == {}, "nobody was told, nobody is told that it is over"

        await trouble(store, world, "lost")
        await trouble(store, world, "unreachable")
        async with store.write() as session:
            assert await outbox.due_addresses(session, now) == [1, 2]
            (lost,) = await outbox.due_for(session, 1, now)
            assert (lost.event, lost.subject) == ("attention", "Needs attention: x: lost")
            lost.begun_at = now
        async with store.write() as session:
            assert await outbox.record_failure(session, 1, "no", failures=3, due_at=later) == 1
        async with store.read() as session:
            assert await outbox.failures(session, 1) == 3
            assert await outbox.due_addresses(session, now) == [2]
            (again,) = [one for one in await outbox.due_for(session, 1, later) if one.attempts]
            assert (again.attempts, again.error, again.begun_at) == (3, "no", None)
        async with store.write() as session:
            (other,) = await outbox.due_for(session, 2, now)
            await outbox.record_sent(session, 2, [other.id], now)
        await trouble(store, world, "lost", over=True)
        async with store.read() as session:
            assert [one.event for one in await outbox.due_for(session, 1, now)] == [], "it was not sent: neither is"
            assert [one.event for one in await outbox.due_for(session, 2, now)] == ["recovered"]
            assert await outbox.pending(session) == {1: 1, 2: 2}, "with the trouble that has its time"

        only_one = Subscription(1, ALL, timedelta(), include_structures=False)
        async with store.write() as session:
            assert await outbox.take_up(session, only_one, now=later, soon=timedelta(seconds=30)) == 2
            assert await outbox.due_for(session, 1, later) == []
            assert len(await outbox.due_for(session, 1, later + timedelta(seconds=30))) == 1


async def test_a_failure_that_is_taken_back_with_the_rest(database: DatabaseSettings, world: World) -> None:
    """A message stands and falls with the change that it tells of."""
    async with Store(database, subscription=TWO) as store:
        async with store.write() as session:
            await open_condition(session, "x", "lost", reason="why", action="what", now=world.now)
            assert (await outbox.pending(session)) == {1: 1, 2: 1}
            await session.rollback()
        async with store.read() as session:
            assert await outbox.pending(session) == {}


async def test_commands_without_a_subscription_still_drop_what_is_over(
    database: DatabaseSettings, world: World
) -> None:
    async with Store(database, subscription=TWO) as store:
        await trouble(store, world, "lost")
    async with Store(database) as store:
        await trouble(store, world, "lost", over=True)
        async with store.read() as session:
            assert (await session.get(Outbox, 1)) is None


async def buy_and_score(world: World) -> None:
    batch = await world.buy()
    assert batch is not None
    await world.results(batch, *(result(smiles, value=len(smiles) + 0.25) for smiles in await world.sent(batch)))


async def test_what_an_upload_brought(world: World) -> None:
    await world.scan()
    first, second = await world.target("A"), await world.target("B", public=False)
    mine = await world.upload(first, ["C", "CC", "bad:1", "CC"])
    private = await world.upload(second, ["CC", "CCC"])
    await buy_and_score(world)

    async def said(upload_id: int) -> str:
        async with world.store.read() as session:
            upload, target = await targets.upload_with_target(session, upload_id)
            facts = await settlement(session, target, upload, world.profile_key)
        return settled(facts, include_structures=True).body

    assert await said(mine) == "2 new compounds, 2 scored, 2 easy, 1 rejected; best 1.25 (code-1, C)"
    assert "1 not bought: seen in private targets only" in await said(private)
    assert "nothing new was bought" in await said(private), "the shared one counts for the first upload"

    world.now += timedelta(hours=1)
    await world.scan()
    more = await world.upload(first, ["C", "CC", "bad:1", "CCCC"])
    await buy_and_score(world)
    assert await said(more) == "1 new compound, 1 scored; best 4.25 (code-4, CCCC)", "what is rejected was seen before"


async def test_what_is_settled_while_another_waits_goes_along(database: DatabaseSettings, world: World) -> None:
    now, second = world.now, timedelta(seconds=1)
    async with Store(database, subscription=TWO) as store:
        async with store.write() as session:
            outbox.add(session, "settled", Notice("first", ""), [1], now=now, wait=GATHERING)
            outbox.add(session, "settled", Notice("second", ""), [1], now=now + second, wait=GATHERING)
            outbox.add(session, "attention", Notice("other", ""), [1], now=now, wait=GATHERING + second)
        async with store.read() as session:
            assert await outbox.due_for(session, 1, now + 4 * second) == []
            due = await outbox.due_for(session, 1, now + GATHERING)
            assert [one.subject for one in due] == ["first", "second"]
        async with store.write() as session:
            await outbox.record_sent(session, 1, [one.id for one in due], now + GATHERING)
            outbox.add(session, "settled", Notice("third", ""), [1], now=now + GATHERING, wait=GATHERING)
        async with store.read() as session:
            due = await outbox.due_for(session, 1, now + GATHERING + second)
            assert [one.subject for one in due] == ["other"], "the third waits for others still"
