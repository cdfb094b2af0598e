"""The client against the sandbox's vendor, in both dialects: buy, find again, poll, collect, delete."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.support.clock import FakeClock
from watcher.errors import AuthFailure, Transient
from watcher.molecule_one import (
    Accepted,
    BatchUnknown,
    Counts,
    MoleculeOne,
    NotSent,
    Outcome,
    Refused,
    RemoteBatch,
    ServiceRefused,
    Unknown,
    same_words,
)
from watcher.sandbox import Fault, MoleculeOneServer, Sandbox
from watcher.settings import Settings

SMILES = ("CCO", "C[C@H](N)C(=O)O", "C/C=C\\C", "[NH4+].[Cl-]", "C#N", "c1ccc2c(c1)[nH]c1ccccc12", "C%10CCCC%10")


@pytest.fixture(params=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(catalogue=None) as running:
        running.molecule_one.pace.manual = True
        yield running


@pytest.fixture
def vendor(sandbox: Sandbox) -> MoleculeOneServer:
    return sandbox.molecule_one


@pytest.fixture
async def client(vendor: MoleculeOneServer, version: str) -> AsyncIterator[MoleculeOne]:
    async with make(vendor, version) as made:
        yield made


def make(vendor: MoleculeOneServer, version: str, **values: object) -> MoleculeOne:
    own = {"base_url": vendor.url, "api_version": version, "token": vendor.token, "requests_per_second": 100} | values
    return MoleculeOne(Settings().replace("molecule_one", **own), clock=FakeClock())


async def buy(client: MoleculeOne, smiles: tuple[str, ...] = SMILES, name: str = "watcher/1/token") -> str:
    outcome = await client.create(client.payload(smiles, name))
    assert isinstance(outcome, Accepted), outcome
    return outcome.remote_id


async def test_a_batch_from_purchase_to_deletion(client: MoleculeOne, vendor: MoleculeOneServer, version: str) -> None:
    remote_id = await buy(client)
    assert vendor.ledger.purchases == dict.fromkeys(SMILES, 1)

    first = await client.status(remote_id)
    assert first == Counts(0, 0, 0, 0)
    assert not first.complete(len(SMILES))
    assert await client.results(remote_id) == []

    collected: dict[str, str] = {}
    for done in range(1, len(SMILES) + 1):
        vendor.finish(1)
        counts = await client.status(remote_id)
        assert counts.finished + counts.error == done
        assert counts.complete(len(SMILES)) is (done == len(SMILES))
        collected |= {item.smiles: item.kind for item in await client.results(remote_id)}
        assert len(collected) == done
    assert {*collected} == {*SMILES}
    assert {*collected.values()} <= {"scored", "no_route", "failed"}

    await client.delete(remote_id)
    await client.delete(remote_id)
    with pytest.raises(BatchUnknown):
        await client.status(remote_id)
    with pytest.raises(BatchUnknown):
        await client.results(remote_id)


async def test_routes_come_when_asked_for(vendor: MoleculeOneServer, version: str) -> None:
    async with make(vendor, version, detail_level="synthesis") as client:
        remote_id = await buy(client)
        vendor.finish()
        results = await client.results(remote_id)
    assert any(item.route for item in results if item.kind == "scored")
    assert not any(item.route for item in results if item.kind == "no_route")


async def test_the_listing_shows_what_was_bought(client: MoleculeOne, vendor: MoleculeOneServer, version: str) -> None:
    ids = {await buy(client, (smiles,), f"watcher/1/{place}") for place, smiles in enumerate(SMILES[:3])}
    listing = await client.list_batches()
    assert listing is not None
    assert listing.complete
    assert {batch.remote_id for batch in listing.batches} == ids
    if client.names_batches:
        assert {batch.name for batch in listing.batches} == {"watcher/1/0", "watcher/1/1", "watcher/1/2"}
        details = await client.details(listing.batches[0].remote_id)
        assert details == RemoteBatch(listing.batches[0].remote_id, listing.batches[0].name, 1)
    vendor.listing.repeat = True
    repeated = await client.list_batches()
    assert repeated is not None
    assert not repeated.complete
    vendor.listing.form = "missing"
    assert await client.list_batches() is None
    vendor.listing.form = "forbidden"
    assert await client.list_batches() is None


async def test_a_cut_listing_with_a_total_is_incomplete(vendor: MoleculeOneServer) -> None:
    vendor.listing.limit = 1
    async with make(vendor, "v1") as client:
        await buy(client, ("C",))
        await buy(client, ("N",))
        listing = await client.list_batches()
    assert listing is not None
    assert (len(listing.batches), listing.complete) == (1, False)


async def test_a_wrong_token_is_the_services_business(vendor: MoleculeOneServer, version: str) -> None:
    async with make(vendor, version, token="wrong") as client:
        assert await client.create(client.payload(["C"], "n")) == ServiceRefused("401: Unauthorized", 401)
        with pytest.raises(AuthFailure):
            await client.list_batches()
    assert vendor.ledger.total == 0


async def test_a_molecule_is_refused_in_the_vendors_words(vendor: MoleculeOneServer, version: str) -> None:
    vendor.v1_invalid = "refuse"
    vendor.vendor.invalid |= {"C((", "x)y", "C(C"}
    async with make(vendor, version, invalid_target_strategy="reject") as client:
        outcomes = [await client.create(client.payload(batch, "n")) for batch in (["C", "C(("], ["N", "x)y", "C(C"])]
    first, second = outcomes
    assert isinstance(first, Refused)
    assert isinstance(second, Refused)
    assert same_words(first.reason, second.reason)
    assert vendor.ledger.total == 0


@pytest.mark.parametrize(
    ("fault", "kind", "bought"),
    [
        (Fault("molecule_one", "close_before_reading"), Unknown, 0),
        (Fault("molecule_one", "close_before_answer"), Unknown, 0),
        (Fault("molecule_one", "close_after"), Unknown, 1),
        (Fault("molecule_one", "truncate"), Unknown, 1),
        (Fault("molecule_one", "invalid_json"), Unknown, 1),
        (Fault("molecule_one", "status_after", status=504), Unknown, 1),
        (Fault("molecule_one", "status", status=500), Unknown, 0),
        (Fault("molecule_one", "redirect"), ServiceRefused, 0),
        (Fault("molecule_one", "status", status=413, body="<html>too large</html>"), ServiceRefused, 0),
    ],
)
async def test_whatever_happens_a_purchase_is_sent_once(
    sandbox: Sandbox, version: str, fault: Fault, kind: type[Outcome], bought: int
) -> None:
    async with make(sandbox.molecule_one, version) as client:
        # A copy: a rule counts its hits.
        sandbox.add_fault(Fault(fault.where, fault.action, status=fault.status, body=fault.body, times=None))
        assert isinstance(await client.create(client.payload(["CCO"], "n")), kind)
    assert sandbox.molecule_one.ledger.total == bought


async def test_an_answer_that_comes_too_late_is_doubt(sandbox: Sandbox, version: str) -> None:
    sandbox.add_fault(Fault("molecule_one", "hold_after"))
    async with make(sandbox.molecule_one, version, submit_timeout=timedelta(milliseconds=100)) as client:
        assert isinstance(await client.create(client.payload(["CCO"], "n")), Unknown)
    assert sandbox.molecule_one.ledger.total == 1


async def test_a_cancelled_purchase_may_have_happened(sandbox: Sandbox, version: str) -> None:
    sandbox.add_fault(Fault("molecule_one", "hold_after"))
    async with make(sandbox.molecule_one, version) as client:
        task = asyncio.create_task(client.create(client.payload(["CCO"], "n")))
        async with asyncio.timeout(5):
            while not sandbox.molecule_one.ledger.total:  # noqa: ASYNC110 - the sandbox has no event for it
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_closed_service_was_not_asked(sandbox: Sandbox, version: str) -> None:
    async with make(sandbox.molecule_one, version) as client:
        await sandbox.molecule_one.close()
        assert isinstance(await client.create(client.payload(["CCO"], "n")), NotSent)


@pytest.mark.parametrize("action", ["truncate", "wrong_length", "invalid_json", "sign_in_page", "close_after"])
async def test_reading_survives_one_bad_answer_and_never_believes_it(
    sandbox: Sandbox, client: MoleculeOne, action: str
) -> None:
    remote_id = await buy(client)
    sandbox.molecule_one.finish()
    sandbox.add_fault(Fault("molecule_one", action, match={"method": "GET"}))
    try:
        results = await client.results(remote_id)
    except Transient:
        results = await client.results(remote_id)
    assert {item.smiles for item in results} == {*SMILES}


async def test_numbers_as_strings_read_alike(sandbox: Sandbox, client: MoleculeOne) -> None:
    remote_id = await buy(client)
    sandbox.molecule_one.finish()
    plain = await client.results(remote_id)
    sandbox.add_fault(Fault("molecule_one", "numbers_as_strings", times=None))
    text = await client.results(remote_id)
    assert [(one.result, one.reaction_count, one.kind) for one in text] == [
        (one.result, one.reaction_count, one.kind) for one in plain
    ]
    await client.status(remote_id)  # the first look finds 0/0
    assert (await client.status(remote_id)).complete(len(SMILES))


async def test_many_batches_at_once_keep_to_themselves(client: MoleculeOne, vendor: MoleculeOneServer) -> None:
    groups = [tuple("C" * (3 * place + offset + 1) for offset in range(3)) for place in range(8)]
    random.Random(1).shuffle(groups)
    ids = await asyncio.gather(*(buy(client, group, f"n{place}") for place, group in enumerate(groups)))
    vendor.finish()
    found = await asyncio.gather(*(client.results(remote_id) for remote_id in ids))
    assert [{item.smiles for item in items} for items in found] == [{*group} for group in groups]
    assert set(vendor.ledger.purchases.values()) == {1}
