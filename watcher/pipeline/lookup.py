"""Looking for our batches in the service's own list: by their names, or by their results where there are no names."""

from collections.abc import Sequence
from dataclasses import dataclass

from watcher.errors import Failure, Invalid, Transient
from watcher.molecule_one import BatchUnknown, Listing, RemoteBatch, ResultItem
from watcher.pipeline.stage import Context
from watcher.store import batches, targets
from watcher.store.results import sent_smiles
from watcher.store.schema import Batch


@dataclass(frozen=True, slots=True)
class Doubtful:
    """What can be told of a doubtful batch from what the service shows."""

    batch_id: int
    strings: frozenset[str]
    """What was sent."""
    unique: frozenset[str]
    """Those strings that no other batch holds which may be found."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing says of our batches."""

    remote_ids: dict[str, str]
    """By token."""
    undecided: bool
    """Whether a batch is listed that may be one of the doubtful ones, and does not prove it yet."""


def attribute(results: Sequence[ResultItem], doubtful: Sequence[Doubtful]) -> int | None:
    """Say which doubtful batch an unattributed remote one is, by its results: a pure function.

    A string that only this batch holds must show, and nothing that it did not send. Size alone proves nothing.
    """
    shown = {item.smiles for item in results}
    matches = [one.batch_id for one in doubtful if shown & one.unique and shown <= one.strings]
    return matches[0] if len(matches) == 1 else None


def doubtful_of(strings: dict[int, frozenset[str]]) -> list[Doubtful]:
    """Set the batches that may be found against each other: a pure function."""
    return [
        Doubtful(batch_id, mine, mine.difference(*(theirs for other, theirs in strings.items() if other != batch_id)))
        for batch_id, mine in strings.items()
    ]


async def look(context: Context, listing: Listing) -> Found:
    """Find our batches in a listing. Raises what the service raises.

    The record is read after the listing, so that whatever the listing shows of ours was committed as an intent before.
    """
    async with context.store.read() as session:
        known = await batches.attributed(session)
        prefix = f"watcher/{(await targets.instance(session)).name}/"
    found: dict[str, str] = {}
    nameless: list[RemoteBatch] = []
    foreign: list[str] = []
    for remote in listing.batches:
        if remote.remote_id in known:
            continue
        name, asked = remote.name, False
        if name is None and context.molecule_one.names_batches:
            try:
                details = await context.molecule_one.details(remote.remote_id)
            except BatchUnknown:
                continue  # gone meanwhile
            name, asked = (details.name if details else None), True
        if name is None:
            nameless.append(remote)
        elif name.startswith(prefix):
            found[name.removeprefix(prefix)] = remote.remote_id
        elif asked:
            foreign.append(remote.remote_id)  # so that no later look asks again
    undecided = await _look_into(context, nameless, found, foreign)
    async with context.store.write() as session:
        await batches.mark_foreign(session, foreign, context.clock.now())
    return Found(found, undecided)


async def _look_into(
    context: Context, nameless: Sequence[RemoteBatch], found: dict[str, str], foreign: list[str]
) -> bool:
    """Attribute nameless batches by their results to what may have been sent; the rest is certainly not ours."""
    async with context.store.read() as session:
        living = await batches.in_state(session, "unconfirmed", "submitting")
        given_up = [one for one in await batches.in_state(session, "released") if one.remote_id is None]
        open_ones = [one for one in (*living, *given_up) if one.token not in found]
        strings = {one.id: frozenset(await sent_smiles(session, one.id)) for one in open_ones}
    undecided, failures = False, []
    for remote in nameless:
        if not strings:
            foreign.append(remote.remote_id)  # it was there before anything that is sent from now on
            continue
        try:
            shown = await context.molecule_one.results(remote.remote_id)
        except BatchUnknown:
            continue
        except (Transient, Invalid) as failure:
            failures.append(failure)
            undecided = True
            continue
        batch = _whose(shown, living, strings) or _whose(shown, given_up, strings)
        if batch is not None:
            found[batch.token] = remote.remote_id
            del strings[batch.id]
        elif any({item.smiles for item in shown} <= mine for mine in strings.values()):
            undecided = True  # nothing is shown, or nothing that proves anything yet
        else:
            foreign.append(remote.remote_id)
    _raise_if_all_failed(failures, len(nameless))
    return undecided


def _whose(
    results: Sequence[ResultItem], candidates: Sequence[Batch], strings: dict[int, frozenset[str]]
) -> Batch | None:
    """Attribute results among these candidates; a batch that still lives goes before one that was given up."""
    mine = {one.id: strings[one.id] for one in candidates if one.id in strings}
    batch_id = attribute(results, doubtful_of(mine))
    return next((one for one in candidates if one.id == batch_id), None)


def _raise_if_all_failed(failures: Sequence[Failure], asked: int) -> None:
    """One batch that cannot be read must not stop the others; when none can, it is the service."""
    if failures and len(failures) == asked:
        raise failures[-1]
