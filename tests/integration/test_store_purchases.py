"""What may be bought, and that nothing is bought twice: limits, privacy, baseline, profiles."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from tests.support.record import DAY, World, result
from watcher.store import allowance, batches, claims, legs, purchases, standing
from watcher.store.engine import Conflict, Store
from watcher.store.schema import Batch, BatchItem, Claim, Observation, Target, Upload
from watcher.store.standing import Policy

pytest_plugins = ("tests.support.store",)


async def test_a_second_live_item_is_refused_by_the_database(world: World) -> None:
    await world.upload(await world.target(), ["C"])
    first = await world.buy()
    async with world.store.read() as session:
        item = (await session.scalars(select(BatchItem))).one()
        original = await batches.get(session, first or 0)

    async def misbehave() -> None:
        async with world.store.write() as session:
            copy = Batch(
                token="other", profile_id=original.profile_id, state="submitting", size=1, payload="C",
                payload_digest="x", created_at=world.now, sent_at=world.now,
            )  # fmt: skip
            session.add(copy)
            await session.flush()
            await session.execute(
                insert(BatchItem).values(batch_id=copy.id, position=0, claim_id=item.claim_id, live=True)
            )

    with pytest.raises(Conflict):
        await misbehave()
    async with world.store.read() as session:
        assert len((await session.scalars(select(Batch))).all()) == 1


async def test_code_that_forgets_a_purchase_cannot_repeat_it(world: World) -> None:
    await world.upload(await world.target(), ["C"])
    await world.buy()
    async with world.store.write() as session:
        await session.execute(update(Claim).values(state="wanted"))
    with pytest.raises(Conflict):
        await world.reserve()
    assert len(await world.claims()) == 1


async def test_the_intent_is_frozen_in_the_order_of_the_claims(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["N", "C", "O"])
    batch = await world.batch(await world.reserve() or 0)
    assert (batch.state, batch.size, batch.payload) == ("submitting", 3, "N\nC\nO")
    assert await world.sent(batch.id) == ["N", "C", "O"]
    assert {state for state, _ in (await world.claims()).values()} == {"reserved"}
    assert await world.reserve() is None
    assert not await world.broken()


async def test_a_purchase_is_cut_into_batches(world: World) -> None:
    await world.upload(await world.target(), list("CNOSP"))
    cut = [await world.sent(await world.reserve(2)) for _ in range(3)]
    assert cut == [["C", "N"], ["O", "S"], ["P"]]
    assert await world.reserve(2) is None


async def test_equal_compounds_of_several_targets_are_bought_once(world: World) -> None:
    await world.upload(await world.target("A"), ["C", "N", "C"])
    await world.upload(await world.target("B"), ["N", "O"])
    assert await world.sent(await world.buy()) == ["C", "N", "O"]


async def test_what_the_chemistry_rejects_is_never_claimed(world: World) -> None:
    await world.upload(await world.target(), ["bad1", "C"])
    assert await world.claims() == {"C": ("wanted", None)}


# The daily limit


async def test_the_daily_limit_holds_the_rest_back_until_a_day_has_passed(world: World) -> None:
    world.policy = Policy(compounds_per_day=3)
    await world.upload(await world.target(), list("CNOSP"))
    assert await world.sent(await world.buy()) == ["C", "N", "O"]
    assert await world.reserve() is None
    assert await world.reasons() == {standing.DAILY_LIMIT: 2}
    async with world.store.read() as session:
        assert await allowance.sendable(session, world.profile_key) == (False, True)
    world.now += DAY - timedelta(seconds=1)
    assert await world.reserve() is None
    world.now += timedelta(seconds=1)
    assert await world.sent(await world.buy()) == ["S", "P"]


async def test_the_day_rolls_rather_than_begins_at_midnight(world: World) -> None:
    world.policy = Policy(compounds_per_day=2)
    await world.upload(await world.target(), list("CNO"))
    assert await world.sent(await world.buy(1)) == ["C"]
    world.now += timedelta(hours=13)  # past midnight
    assert await world.sent(await world.buy(1)) == ["N"]
    assert await world.reserve() is None
    world.now += timedelta(hours=11)
    assert await world.sent(await world.buy()) == ["O"]


async def test_no_daily_limit_without_a_number(world: World) -> None:
    await world.upload(await world.target(), list("CNOSP"))
    assert len(await world.sent(await world.buy())) == 5
    async with world.store.read() as session:
        assert await allowance.daily_allowance(session, world.policy, world.now) is None


async def test_taking_the_daily_limit_away_frees_what_it_held(world: World) -> None:
    world.policy = Policy(compounds_per_day=1)
    await world.upload(await world.target(), ["C", "N"])
    await world.buy()
    assert await world.reserve() is None
    world.policy = Policy()
    assert await world.sent(await world.reserve()) == ["N"]


@pytest.mark.parametrize(
    ("fate", "left"),
    [("unconfirmed", 0), ("closed", 2), ("released", 2), ("turned up", 0), ("lost", 0), ("lost and released", 0),
     ("collected", 0)],
)  # fmt: skip
async def test_what_counts_as_sent_today(world: World, fate: str, left: int) -> None:
    world.policy = Policy(compounds_per_day=2)
    await world.upload(await world.target(), ["C", "N"])
    batch_id = await world.reserve() or 0
    if fate == "closed":
        await world.close_unsent(batch_id)
    elif fate in ("unconfirmed", "released", "turned up"):
        await world.doubt(batch_id)
        if fate != "unconfirmed":
            await world.release(batch_id)
        if fate == "turned up":
            await world.accept(batch_id)
    else:
        await world.accept(batch_id)
        if fate == "collected":
            await world.results(batch_id, result("C"), result("N"))
        else:
            await world.lose(batch_id)
        if fate == "lost and released":
            await world.release(batch_id)
    async with world.store.read() as session:
        assert await allowance.daily_allowance(session, world.policy, world.now) == left


async def test_a_batch_that_turned_up_counts_beside_what_was_bought_again(world: World) -> None:
    world.policy = Policy(compounds_per_day=10)
    await world.upload(await world.target(), ["C", "N"])
    first = await world.reserve() or 0
    await world.doubt(first)
    await world.release(first)
    await world.buy()
    await world.accept(first)
    async with world.store.read() as session:
        assert await allowance.sent_within_a_day(session, world.now) == 4
    assert not await world.broken()


async def test_what_is_at_work_is_told_by_the_version_that_bought_it(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    first, second = await world.buy(1), await world.buy(1)
    await world.results(second or 0, result("N"))
    async with world.store.read() as session:
        assert await batches.at_work(session, "v1") == {f"remote-{first}", f"remote-{second}"}
        assert await batches.at_work(session, "v2") == set()


@pytest.mark.parametrize("end", ["released", "closed", "refused"])
@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_batch_that_turned_up_holds_is_not_bought_a_third_time(world: World, end: str, lost: bool) -> None:
    """A was given up and B bought its compounds again; A turns up, and then B proves to be no purchase."""
    await world.upload(await world.target(), ["C", "N"])
    a = await world.reserve() or 0
    await world.doubt(a)
    await world.release(a)
    b = await world.reserve(batch_size=1) or 0
    await world.accept(a)
    if lost:
        await world.lose(a)
    if end == "released":
        await world.doubt(b)
        assert await world.release(b) == 0, "nothing may be bought again"
    else:
        await (world.close_unsent(b) if end == "closed" else world.refuse(b))
    assert await world.reserve() is None
    assert await world.claims() == {"C": ("reserved", None), "N": ("reserved", None)}
    assert not await world.broken()
    if not lost:
        await world.results(a, result("C"), result("N"))
        assert {state for state, _ in (await world.claims()).values()} == {"scored"}


async def test_approval_goes_past_the_daily_limit_and_first(world: World) -> None:
    world.policy = Policy(compounds_per_day=1)
    await world.upload(await world.target("A"), ["C", "N"])
    target_id = await world.target("B")
    await world.upload(target_id, ["O", "S"])
    await world.buy()
    assert await world.reserve() is None
    assert await world.approve(target_id) == 2
    assert await world.sent(await world.buy()) == ["O", "S"]
    assert await world.reasons() == {standing.DAILY_LIMIT: 1}


# The limit of a scan


async def test_new_compounds_of_one_scan_share_its_limit(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=3)
    await world.scan()
    await world.upload(await world.target("A"), ["C", "N"])
    second = await world.target("B")
    await world.upload(second, ["N", "O", "S", "P"])
    assert await world.reasons() == {None: 3, standing.SCAN_LIMIT: 2}
    assert await world.sent(await world.buy()) == ["C", "N", "O"]
    world.now += 2 * DAY
    assert await world.reserve() is None  # time alone lets nothing through
    await world.scan()
    await world.review()
    assert await world.reserve() is None  # nor does another scan
    assert await world.approve(second) == 2
    assert await world.sent(await world.buy()) == ["S", "P"]


async def test_a_late_reading_shares_the_limit_of_its_scan(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=3)
    await world.scan()
    upload_id = await world.upload(await world.target(), ["C", "N"])
    await world.buy()
    await world.scan()
    assert await world.read(upload_id, ["C", "N", "O", "S"]) == 2
    assert await world.reasons() == {None: 1, standing.SCAN_LIMIT: 1}


async def test_each_scan_has_a_limit_of_its_own(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=1)
    target_id = await world.target()
    await world.scan()
    await world.upload(target_id, ["C"])
    await world.scan()
    await world.upload(target_id, ["C", "N"])
    assert await world.reasons() == {None: 2}


async def test_compounds_that_stay_anyway_do_not_use_the_limit_up(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=2)
    await world.scan()
    await world.upload(await world.target("A", public=False), ["C", "N"])
    await world.upload(await world.target("B"), ["B"], baseline=True)
    await world.upload(await world.target("D"), ["O", "S", "P"])
    assert await world.reasons() == {standing.PRIVATE: 2, standing.BASELINE: 1, None: 2, standing.SCAN_LIMIT: 1}


async def test_a_target_that_opens_comes_under_the_limit_of_the_scan_that_sees_it(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=2)
    await world.scan()
    target_id = await world.target(public=False)
    await world.upload(target_id, list("CNOSP"))
    await world.scan()
    await world.change(target_id, open_to_public=True)
    assert await world.reasons() == {None: 2, standing.SCAN_LIMIT: 3}
    assert await world.approve(target_id) == 3


async def test_a_closing_target_does_not_give_its_share_of_the_limit_back(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=2)
    await world.scan()
    target_id = await world.target("A")
    await world.upload(target_id, ["C", "N"])
    await world.change(target_id, open_to_public=False)
    await world.upload(await world.target("B"), ["O"])
    await world.change(target_id, open_to_public=True)
    assert await world.reasons() == {None: 2, standing.SCAN_LIMIT: 1}


async def test_the_limit_of_a_scan_holds_for_a_profile_that_waits(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=2)
    await world.upload(await world.target("0"), ["F"])
    world.profile_key = "profile-2"
    await world.scan()
    await world.upload(await world.target("A"), ["C", "N"])
    await world.upload(await world.target("B"), ["O", "S"])
    assert await world.reasons() == {standing.PROFILE: 4}
    await world.approve_profile()
    assert await world.reasons() == {None: 2, standing.SCAN_LIMIT: 2}


# Privacy


@pytest.mark.parametrize("public", [False, None])
async def test_compounds_of_private_targets_stay(world: World, public: bool | None) -> None:
    target_id = await world.target(public=public)
    await world.upload(target_id, ["C"])
    assert await world.claims() == {"C": ("withheld", standing.PRIVATE)}
    assert await world.reserve() is None
    assert await world.approve(target_id) == 0
    assert await world.reserve() is None
    world.policy = Policy(submit_private=True)
    assert await world.sent(await world.reserve()) == ["C"]


async def test_a_compound_goes_out_if_any_current_target_lets_it(world: World) -> None:
    await world.upload(await world.target("A", public=False), ["C", "N"])
    open_target = await world.target("B")
    await world.upload(open_target, ["N"])
    assert await world.claims() == {"C": ("withheld", standing.PRIVATE), "N": ("wanted", None)}
    await world.upload(open_target, ["O"])  # N is not in its current upload any more
    assert (await world.claims())["N"] == ("withheld", standing.PRIVATE)


async def test_turning_private_between_recording_and_buying_holds_it_back(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["C"])
    assert await world.claims() == {"C": ("wanted", None)}
    async with world.store.write() as session:  # as another process would, without a review
        await session.execute(update(Target).values(open_to_public=False))
    assert await world.reserve() is None
    assert await world.claims() == {"C": ("withheld", standing.PRIVATE)}
    await world.change(target_id, open_to_public=True)
    assert await world.sent(await world.reserve()) == ["C"]


# Size


@pytest.mark.parametrize("waits", ["for nothing", "for tomorrow", "for a person", "as baseline"])
async def test_what_is_larger_than_a_limit_lowered_since_stays_until_it_is_raised(world: World, waits: str) -> None:
    world.policy = {
        "for tomorrow": Policy(compounds_per_day=1),
        "for a person": Policy(new_compounds_per_scan=1),
    }.get(waits, Policy())
    target_id = await world.target()
    raws = ["B", "CCCCCC", "N"]
    await world.upload(target_id, raws, baseline=waits == "as baseline")
    if waits in ("for tomorrow", "for a person"):
        assert await world.sent(await world.buy()) == ["B"]
    world.policy = replace(world.policy, max_heavy_atoms=5)
    assert await world.approve(target_id) == {"for nothing": 0, "as baseline": 2}.get(waits, 1), "for what is small"
    assert await world.sent(await world.buy()) == ([*raws[::2]] if waits in ("for nothing", "as baseline") else ["N"])
    assert (await world.claims())["CCCCCC"] == ("withheld", standing.TOO_LARGE)
    world.policy = replace(world.policy, max_heavy_atoms=6)
    world.now += DAY
    assert await world.sent(await world.buy()) == ["CCCCCC"]
    assert await world.buy() is None
    assert not await world.broken()


async def test_what_is_too_large_does_not_use_the_limit_of_a_scan_up(world: World) -> None:
    world.policy = Policy(new_compounds_per_scan=1, max_heavy_atoms=5)
    await world.upload(await world.target(), ["CCCCCC", "N", "O"])
    assert await world.claims() == {
        "CCCCCC": ("withheld", standing.TOO_LARGE),
        "N": ("wanted", None),
        "O": ("withheld", standing.SCAN_LIMIT),
    }


# Baseline


async def test_the_baseline_is_recorded_and_only_what_comes_later_is_bought(world: World) -> None:
    target_id = await world.target()
    first = await world.upload(target_id, ["C", "N"], baseline=True)
    assert await world.reasons() == {standing.BASELINE: 2}
    await world.read(first, ["C", "N", "B"])  # a late row of the first upload was there from the start
    assert await world.reasons() == {standing.BASELINE: 3}
    await world.upload(target_id, ["C", "N", "O"])
    assert await world.sent(await world.buy()) == ["O"]
    assert await world.approve(target_id) == 2
    assert await world.sent(await world.buy()) == ["C", "N"]


@pytest.mark.parametrize("between", [True, False], ids=["nothing is listed for a while", "at once"])
async def test_a_baseline_that_is_passed_over_unread_reaches_to_the_next_upload(world: World, between: bool) -> None:
    target_id = await world.target()
    await world.upload(target_id, [], extracted=False, baseline=True)
    if between:
        async with world.store.write() as session:
            target = await session.get_one(Target, target_id)
            await legs.make_current(session, target, None, keep_archive=False, now=world.now, why="gone")
    await world.upload(target_id, ["C", "N"])
    assert await world.reasons() == {standing.BASELINE: 2}
    await world.upload(target_id, ["C", "N", "O"])
    assert await world.sent(await world.buy()) == ["O"]


@pytest.mark.parametrize(
    ("age", "bought"), [(timedelta(), ["B"]), (timedelta(days=1), ["O", "B"])], ids=["just uploaded", "long there"]
)
async def test_a_baseline_that_late_rows_are_waited_for_reaches_to_the_next_upload(
    world: World, age: timedelta, bought: list[str]
) -> None:
    """A late row of it cannot be told from a new one; an upload that was long there has none."""
    target_id = await world.target()
    first = await world.upload(target_id, ["C", "N"], baseline=True)
    async with world.store.write() as session:
        upload = await session.get_one(Upload, first)
        upload.committed_at -= age
        upload.settle_due_at = world.now + timedelta(minutes=10)
    await world.upload(target_id, ["N", "O"])
    await world.upload(target_id, ["C", "N", "O", "B"])
    assert await world.sent(await world.buy()) == bought


async def test_what_an_upload_before_the_baseline_holds_was_there_too(world: World) -> None:
    target_id = await world.target()
    first = await world.upload(target_id, [], extracted=False)
    await world.upload(target_id, ["C"], baseline=True)
    async with world.store.write() as session:
        target, upload = await session.get_one(Target, target_id), await session.get_one(Upload, first)
        await legs.make_current(session, target, upload, keep_archive=False, now=world.now, why="down")
    await world.read(first, ["C", "N"])
    assert await world.reasons() == {standing.BASELINE: 2}
    await world.upload(target_id, ["C", "N", "O"])
    assert await world.sent(await world.buy()) == ["O"]


async def test_a_compound_of_one_baseline_is_new_in_another_target(world: World) -> None:
    await world.upload(await world.target("A"), ["C", "N"], baseline=True)
    await world.upload(await world.target("B"), ["N"])
    await world.upload(await world.target("P", public=False), ["C"])  # which may not leave from there
    assert await world.claims() == {"C": ("withheld", standing.BASELINE), "N": ("wanted", None)}


# What is current


async def test_only_current_uploads_of_followed_targets_are_bought(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["C", "N"])
    await world.upload(target_id, ["N", "O"])
    assert (await world.claims())["C"] == ("withheld", standing.NOT_CURRENT)
    assert await world.sent(await world.buy()) == ["N", "O"]
    await world.change(target_id, followed=False)
    await world.upload(await world.target("B"), ["C"])
    assert await world.sent(await world.buy()) == ["C"]


async def test_a_target_that_is_no_longer_followed_buys_nothing(world: World) -> None:
    target_id = await world.target()
    await world.upload(target_id, ["C"])
    await world.change(target_id, followed=False)
    assert await world.reserve() is None
    assert await world.approve(target_id) == 0
    assert await world.reserve() is None


# Profiles


async def test_nothing_leaves_under_a_profile_that_nobody_approved(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    await world.buy(1)
    world.profile_key = "profile-2"
    async with world.store.write() as session:
        profile = await world.profile(session)
        await claims.add_missing(session, profile, world.policy, upload=None, scan_no=1, now=world.now)
    assert await world.reasons() == {standing.PROFILE: 2}
    assert await world.reserve() is None
    await world.approve_profile()
    assert await world.sent(await world.buy()) == ["C", "N"]


async def test_claims_of_another_profile_wait_for_its_return(world: World) -> None:
    upload_id = await world.upload(await world.target(), ["C", "N"])
    batch_id = await world.buy(1)
    world.profile_key = "profile-2"
    await world.review()
    async with world.store.read() as session:
        assert await allowance.sendable(session, "profile-1") == (False, False)
    await world.results(batch_id or 0, result("C"))
    async with world.store.read() as session:
        assert await claims.settled_uploads(session) == [upload_id]  # nothing is on its way any more
    world.profile_key = "profile-1"  # approved before: going back needs nobody
    assert await world.claims() == {"C": ("scored", None), "N": ("withheld", standing.OTHER_PROFILE)}
    assert await world.sent(await world.reserve()) == ["N"]


async def test_a_first_profile_needs_no_approval(world: World) -> None:
    world.profile_key = "another-before-anything-was-claimed"
    await world.upload(await world.target(), ["C"])
    assert await world.sent(await world.reserve()) == ["C"]


# Refusals


async def test_the_halves_of_a_refused_batch_go_by_themselves_until_the_culprit_stands_alone(world: World) -> None:
    await world.upload(await world.target(), list("CNOSP"))
    first = await world.reserve() or 0
    await world.refuse(first)
    await world.upload(await world.target("B"), ["F"])  # must not join a half
    half = await world.reserve() or 0
    assert await world.sent(half) == ["C", "N", "O"]
    assert (await world.batch(half)).refused_in == f"{first}:0"
    await world.refuse(half)
    other = await world.buy()  # the group of the oldest refusal comes first
    assert await world.sent(other) == ["S", "P"]
    quarter = await world.reserve() or 0
    assert await world.sent(quarter) == ["C", "N"]
    await world.refuse(quarter)
    assert await world.sent(await world.buy()) == ["O"]
    single = await world.reserve() or 0
    assert await world.sent(single) == ["C"]
    await world.refuse(single, "no such atom")
    assert await world.sent(await world.buy()) == ["N"]
    assert await world.sent(await world.buy()) == ["F"]
    assert (await world.claims())["C"] == ("failed", "refused: no such atom")
    assert await world.reserve() is None
    assert not await world.broken()


async def test_a_half_that_was_not_sent_stays_a_half(world: World) -> None:
    await world.upload(await world.target(), ["C", "N"])
    first = await world.reserve() or 0
    await world.refuse(first)
    half = await world.reserve() or 0
    await world.close_unsent(half)
    again = await world.reserve() or 0
    assert await world.sent(again) == ["C"]
    assert (await world.batch(again)).refused_in == f"{first}:0"


async def test_a_half_that_was_taken_is_no_half_any_more(world: World) -> None:
    await world.upload(await world.target(), ["C", "N", "O"])
    await world.refuse(await world.reserve() or 0)
    half = await world.buy() or 0
    await world.lose(half)
    await world.release(half)
    await world.buy()  # the other half
    assert (await world.batch(await world.reserve() or 0)).refused_in is None


async def test_approval_past_the_daily_limit_keeps_halves_apart(world: World) -> None:
    world.policy = Policy(compounds_per_day=2)
    target_id = await world.target()
    await world.upload(target_id, ["C", "N", "O", "S"])
    await world.refuse(await world.reserve() or 0)
    assert await world.sent(await world.buy()) == ["C"]
    assert await world.sent(await world.buy()) == ["N"]
    assert await world.approve(target_id) == 2


# The transaction


async def test_an_intent_that_cannot_be_built_leaves_nothing(world: World) -> None:
    await world.upload(await world.target(), ["C"])

    def build(_: object) -> bytes:
        raise ValueError("too long")

    async with world.store.write() as session:
        profile = await world.profile(session)
        with pytest.raises(ValueError, match="too long"):
            await purchases.reserve(session, profile, world.policy, token="t", batch_size=1, build=build, now=world.now)
        await session.rollback()
    assert await world.claims() == {"C": ("wanted", None)}


async def test_a_larger_purchase_fits_into_the_statements(world: World) -> None:
    raws = [f"C{n}" for n in range(2000)]
    await world.upload(await world.target(), raws)
    batch_id = await world.buy(100_000) or 0
    assert await world.sent(batch_id) == raws
    assert await world.results(batch_id, *(result(raw) for raw in raws)) == 2000
    assert {state for state, _ in (await world.claims()).values()} == {"scored"}


async def test_observations_of_an_upload_without_a_current_target_are_kept(store: Store) -> None:
    world = await World.begin(store)
    target_id = await world.target()
    await world.upload(target_id, ["C"])
    await world.upload(target_id, [])
    async with store.read() as session:
        assert len((await session.scalars(select(Observation))).all()) == 1
