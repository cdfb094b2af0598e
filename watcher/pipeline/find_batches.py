"""Looking for our batches in the service's own list: by their names, or by their results where there are no names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from watcher.errors import AuthFailure, Failure, Invalid, Transient
from watcher.molecule_one import BatchUnknown, Listing, RemoteBatch, ResultItem
from watcher.pipeline.sending import name_prefix
from watcher.pipeline.stage import Context
from watcher.store import batches
from watcher.store.instance import instance
from watcher.store.results import sent_smiles
from watcher.store.schema import Batch

_OF_ONE_BATCH = (Transient, Invalid, AuthFailure)
"""Failures that concern one listed batch and not the service: somebody else's batch may be refused to us forever."""


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
    sizes: dict[str, int]
    """By remote id, where the list does not tell."""
    undecided: bool
    """Whether a batch is listed that may be one of the doubtful ones, and does not prove it yet."""
    unread: tuple[str, ...]
    """Batches whose name could not be read: each may be one of ours."""
    twins: tuple[tuple[str, str], ...]
    """Token and remote id of what carries a name that another batch has already."""
    trouble: Transient | None
    """Set when none of several batches could be read: then it is the service, and no single batch."""


@dataclass(slots=True)
class _Notes:
    """What one look has brought so far."""

    found: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    undecided: bool = False
    answered: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    """By remote id. One batch that cannot be read must not stop the others."""

    @property
    def trouble(self) -> Transient | None:
        if self.answered or len(self.failures) < 2:
            return None
        last = [*self.failures.values()][-1]
        asked = last.retry_after if isinstance(last, Transient) else None
        return Transient(f"none of {len(self.failures)} listed batches can be read: {last.message}", retry_after=asked)


def attribute(results: Sequence[ResultItem], doubtful: Sequence[Doubtful]) -> int | None:
    """Say which doubtful batch an unattributed remote one is, by its results: a pure function.

    A string that only this batch holds must show, and nothing that it did not send. Size alone proves nothing; another
    size than what was sent speaks against it, for somebody else may have sent a part of the same compounds.
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


async def look(context: Context, listing: Listing, suspected: set[str]) -> Found:
    """Find our batches in a listing, and note those that are certainly not ours. Raises Ours.

    `suspected` holds, from one look to the next, what showed results of somebody else: only a second look that says the
    same makes it foreign for good. The record is read after the listing, so that whatever the listing shows of ours was
    committed as an intent before.
    """
    async with context.store.read() as session:
        known = await batches.attributed(session)
        tokens = await batches.tokens(session)
        prefix = name_prefix((await instance(session)).name)
    notes = _Notes()
    nameless: list[RemoteBatch] = []
    for remote in listing.batches:
        if remote.remote_id in known:
            continue
        name, asked = remote.name, False
        forgotten = name is not None and name.startswith(prefix) and name.removeprefix(prefix) not in tokens
        if (name is None or (forgotten and remote.size is None)) and context.molecule_one.names_batches:
            try:
                details = await context.molecule_one.details(remote.remote_id)
            except _OF_ONE_BATCH as failure:
                if name is None:  # it may be ours, also if the service knows nothing of what it lists
                    notes.failures[remote.remote_id] = failure
                    continue
            else:
                notes.answered += 1
                if details is not None and details.size is not None:
                    notes.sizes[remote.remote_id] = details.size
                name, asked = name or (details.name if details else None), True
        if name is None:
            nameless.append(remote)
        elif name.startswith(prefix):
            token = name.removeprefix(prefix)
            if token in notes.found:
                notes.twins.append((token, remote.remote_id))
            else:
                notes.found[token] = remote.remote_id
        elif asked:
            notes.foreign.append(remote.remote_id)  # so that no later look asks again
    unread = tuple(notes.failures)
    await _look_into(context, nameless, notes, suspected)
    async with context.store.write() as session:
        await batches.mark_foreign(session, notes.foreign, context.clock.now())
    suspected.difference_update(notes.foreign)
    undecided = notes.undecided or bool(unread)
    return Found(notes.found, notes.sizes, undecided, unread, tuple(notes.twins), notes.trouble)


async def _look_into(context: Context, nameless: Sequence[RemoteBatch], notes: _Notes, suspected: set[str]) -> None:
    """Attribute nameless batches by their results to what may have been sent; the rest is not ours."""
    async with context.store.read() as session:
        living = await batches.in_state(session, "unconfirmed", "submitting")
        released = [one for one in await batches.in_state(session, "released") if one.remote_id is None]
        given_up = [*released, *await batches.refused(session)]
        open_ones = [one for one in (*living, *given_up) if one.token not in notes.found]
        strings = {one.id: frozenset(await sent_smiles(session, one.id)) for one in open_ones}
    for remote in nameless:
        if not strings:
            notes.foreign.append(remote.remote_id)  # it was there before anything that is sent from now on
            continue
        try:
            shown = await context.molecule_one.results(remote.remote_id)
            batch = _whose(shown, living, strings) or _whose(shown, given_up, strings)
            fits = batch is not None and batch.size == await _size(context, remote, notes)
        except BatchUnknown:
            notes.answered += 1
            notes.undecided = True  # it is listed, so it is not gone
            continue
        except _OF_ONE_BATCH as failure:
            notes.failures[remote.remote_id] = failure
            notes.undecided = True
            continue
        notes.answered += 1
        if batch is not None and fits:
            notes.found[batch.token] = remote.remote_id
            del strings[batch.id]
        elif batch is not None or may_be_ours(shown, strings.values()):
            notes.undecided = True
            suspected.discard(remote.remote_id)
        elif remote.remote_id in suspected:
            notes.foreign.append(remote.remote_id)
        else:
            suspected.add(remote.remote_id)  # it may be the answer for another batch, gone astray
            notes.undecided = True


async def _size(context: Context, remote: RemoteBatch, notes: _Notes) -> int:
    """Return how many molecules a batch holds; 0 when nothing tells. Raises as the service's answer does."""
    listed = remote.size or notes.sizes.get(remote.remote_id)
    return listed or (await context.molecule_one.status(remote.remote_id)).total


def may_be_ours(results: Sequence[ResultItem], strings: Iterable[frozenset[str]]) -> bool:
    """Say whether a batch that proves nothing may be ours all the same: a pure function.

    It shows nothing, nothing that proves anything yet, or an item that names no molecule, which may be any.
    """
    shown = {item.smiles for item in results}
    return "" in shown or any(shown <= mine for mine in strings)


def _whose(
    results: Sequence[ResultItem], candidates: Sequence[Batch], strings: dict[int, frozenset[str]]
) -> Batch | None:
    """Attribute results among these candidates; a batch that still lives goes before one that was given up."""
    mine = {one.id: strings[one.id] for one in candidates if one.id in strings}
    batch_id = attribute(results, doubtful_of(mine))
    return next((one for one in candidates if one.id == batch_id), None)
