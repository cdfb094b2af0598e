"""Reconcile: finds out what became of purchases that nobody answered, by looking at the service's own list.

It also reads back, before anything is sent, batches of ours that the record has forgotten, as after a restore.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.errors import Failure, Service, Transient
from watcher.molecule_one import Listing, RemoteBatch, ResultItem
from watcher.pipeline.failures import wait_after
from watcher.pipeline.profile import profile_in_force
from watcher.pipeline.stage import Context
from watcher.pipeline.submit import Sending, in_doubt
from watcher.store import batches, forgotten, targets
from watcher.store.conditions import close_condition, open_condition
from watcher.store.results import sent_smiles
from watcher.store.schema import Batch

_log = structlog.get_logger(__name__)
_LOOKS_AFTER = tuple(timedelta(seconds=seconds) for seconds in (2, 5, 15, 60, 180, 300, 600))
_SLOW_LOOK = timedelta(hours=1)
"""Between looks once the window has passed: a person decides, but a batch that turns up late is still noticed."""
_INCOMPLETE_BEFORE_GOING_ON = 3


def next_look(looks: int) -> timedelta:
    """Return the wait after so many complete looks without a find."""
    return _LOOKS_AFTER[min(max(looks, 1), len(_LOOKS_AFTER)) - 1]


@dataclass(frozen=True, slots=True)
class Doubtful:
    """What can be told of a doubtful batch from what the service shows."""

    batch_id: int
    strings: frozenset[str]
    """What was sent."""
    unique: frozenset[str]
    """Those strings that no other batch holds."""


def attribute(results: Sequence[ResultItem], doubtful: Sequence[Doubtful]) -> int | None:
    """Say which doubtful batch an unattributed remote one is, by its results: a pure function.

    A string that only this batch holds must show, and nothing that it did not send. Size alone proves nothing.
    """
    shown = {item.smiles for item in results}
    matches = [one.batch_id for one in doubtful if shown & one.unique and shown <= one.strings]
    return matches[0] if len(matches) == 1 else None


class Reconcile:
    """The stage. Its only unit is one look at the service."""

    name = "reconcile"
    service: Service | None = "molecule_one"
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context, sending: Sending) -> None:
        self._context = context
        self._settings = context.settings.molecule_one
        self._sending = sending
        self._first_look_at: datetime | None = None
        self._first_looks_failed = 0
        self._incomplete = 0

    async def due(self) -> Sequence[int]:
        """Return the one unit at the start, for stale purchases, and when a doubtful one is to be looked for."""
        now = self._context.clock.now()
        if not self._settings.token.get_secret_value():
            self._sending.allowed = True  # nothing can be asked; `submit` says that there is no token
        elif not self._sending.allowed:
            return [0] if self._first_look_at is None or self._first_look_at <= now else []
        async with self._context.store.read() as session:
            if await self._stale(session) or await batches.due(session, now, "unconfirmed"):
                return [0]
        return []

    async def step(self, unit: int) -> None:  # noqa: ARG002 - there is one unit only
        """Mark what is stale, then look for everything doubtful in one listing."""
        await self._mark_stale()
        async with self._context.store.read() as session:
            doubtful = await batches.in_state(session, "unconfirmed")
        if self._sending.allowed and not doubtful:
            return
        listing = await self._context.molecule_one.list_batches()
        if listing is None:
            await self._no_listing()
            return
        found, undecided = await self._look(listing, doubtful)
        await self._conclude(found, doubtful, listing, undecided=undecided)
        self._open_the_way(listing)

    async def put_off(self, unit: int, failure: Failure) -> None:  # noqa: ARG002 - there is one unit only
        """Look again after a while; a look that failed proves nothing."""
        now = self._context.clock.now()
        self._first_looks_failed += 1
        self._first_look_at = now + wait_after(failure, self._first_looks_failed, self._context.random)
        async with self._context.store.write() as session:
            for batch in await batches.in_state(session, "unconfirmed"):
                batch.attempts += 1
                batch.due_at = now + wait_after(failure, batch.attempts, self._context.random)

    async def _stale(self, session: AsyncSession) -> list[Batch]:
        """Batches in `submitting` that this process is not sending."""
        return [one for one in await batches.in_state(session, "submitting") if one.token not in self._sending.now]

    async def _mark_stale(self) -> None:
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            for batch in await self._stale(session):
                if batch.token in self._sending.never:
                    await batches.close_unsent(session, batch, why="never sent: the intent was in doubt", now=now)
                else:
                    batch.outcome = "unknown"
                    await in_doubt(session, batch, "the program ended while sending it", due_at=now, now=now)

    async def _look(self, listing: Listing, doubtful: Sequence[Batch]) -> tuple[dict[str, str], bool]:
        """Find our tokens in the listing, by name, or by results where there are no names.

        Returns remote ids by token, and whether an unattributed batch shows no results yet.
        """
        async with self._context.store.read() as session:
            known = await batches.attributed(session)
            prefix = f"watcher/{(await targets.instance(session)).name}/"
        found: dict[str, str] = {}
        nameless: list[RemoteBatch] = []
        for remote in listing.batches:
            if remote.remote_id in known:
                continue
            name = remote.name
            if name is None and self._context.molecule_one.names_batches:
                details = await self._context.molecule_one.details(remote.remote_id)
                name = details.name if details else None
            if name is None:
                nameless.append(remote)
            elif name.startswith(prefix):
                found[name.removeprefix(prefix)] = remote.remote_id
        undecided = await self._look_into(nameless, doubtful, found)
        return found, undecided

    async def _look_into(
        self, nameless: Sequence[RemoteBatch], doubtful: Sequence[Batch], found: dict[str, str]
    ) -> bool:
        """Attribute nameless batches by their results; remember those that are certainly not ours."""
        open_doubts = [batch for batch in doubtful if batch.token not in found]
        now = self._context.clock.now()
        if not open_doubts:
            # They were there before anything that is sent from now on.
            async with self._context.store.write() as session:
                await batches.mark_foreign(session, [remote.remote_id for remote in nameless], now)
            return False
        async with self._context.store.read() as session:
            candidates = [
                Doubtful(
                    batch.id,
                    frozenset(await sent_smiles(session, batch.id)),
                    frozenset(await batches.strings_of_no_other(session, batch)),
                )
                for batch in open_doubts
            ]
        tokens = {batch.id: batch.token for batch in open_doubts}
        undecided, foreign = False, []
        for remote in nameless:
            results = await self._context.molecule_one.results(remote.remote_id)
            if not results:
                undecided = True
            elif (batch_id := attribute(results, candidates)) is not None:
                found[tokens[batch_id]] = remote.remote_id
            elif any({item.smiles for item in results} <= one.strings for one in candidates):
                undecided = True  # nothing speaks against it yet, and nothing proves it
            else:
                foreign.append(remote.remote_id)
        async with self._context.store.write() as session:
            await batches.mark_foreign(session, foreign, now)
        return undecided

    async def _conclude(
        self, found: Mapping[str, str], doubtful: Sequence[Batch], listing: Listing, *, undecided: bool
    ) -> None:
        now = self._context.clock.now()
        listed = {remote.remote_id: remote for remote in listing.batches}
        async with self._context.store.write() as session:
            for token, remote_id in found.items():
                if token in self._sending.now:
                    continue
                batch = await batches.by_token(session, token)
                if batch is None:
                    profile = await profile_in_force(session, self._context)
                    size = listed[remote_id].size or 0
                    await forgotten.read_back(session, profile, token=token, remote_id=remote_id, size=size, now=now)
                elif batch.remote_id is None:
                    await self._adopt(session, batch, remote_id, now)
            for lost in await batches.in_state(session, "lost"):
                if lost.remote_id in listed:
                    await self._adopt(session, lost, lost.remote_id, now)
            for batch_id in [batch.id for batch in doubtful if batch.token not in found]:
                await self._not_found(
                    session, await batches.get(session, batch_id), looked=listing.complete, undecided=undecided, now=now
                )

    async def _adopt(self, session: AsyncSession, batch: Batch, remote_id: str, now: datetime) -> None:
        given_up = batch.state in ("released", "closed")
        why = "it turned up at the service after it was given up" if given_up else "found at the service"
        await batches.accepted(session, batch, remote_id, due_at=now, now=now, why=why)
        await close_condition(session, f"batch {batch.id}", now=now)
        if given_up:
            await open_condition(
                session,
                f"batch {batch.id}",
                "turned_up",
                reason="a batch that was given up exists at the service; its results are stored and it counts as spent",
                action="nothing can be undone; what was bought again meanwhile was paid twice",
                now=now,
            )

    async def _not_found(
        self, session: AsyncSession, batch: Batch, *, looked: bool, undecided: bool, now: datetime
    ) -> None:
        if batch.state != "unconfirmed":
            return
        batch.attempts = 0
        batch.looks += looked
        window_over = now - (batch.unconfirmed_at or now) >= self._settings.unconfirmed_window
        if not window_over:
            batch.due_at = now + next_look(batch.looks)
        elif self._settings.on_unconfirmed == "resubmit" and batch.looks and not undecided:
            await self._release(session, batch, now)
        else:
            batch.due_at = now + _SLOW_LOOK

    async def _release(self, session: AsyncSession, batch: Batch, now: datetime) -> None:
        why = 'not found within the window, and molecule_one.on_unconfirmed is "resubmit"'
        await batches.release(session, batch, who="settings", why=why, now=now)
        await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)

    async def _no_listing(self) -> None:
        """Go on where the service has no listing: there is nothing to ask."""
        if not self._sending.allowed:
            _log.info("service_has_no_listing", service="molecule_one")
            self._sending.allowed = True
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            for batch in await batches.in_state(session, "unconfirmed"):
                window_over = now - (batch.unconfirmed_at or now) >= self._settings.unconfirmed_window
                if window_over and self._settings.on_unconfirmed == "resubmit":
                    await self._release(session, batch, now)
                else:
                    batch.due_at = now + _SLOW_LOOK

    def _open_the_way(self, listing: Listing) -> None:
        """Let `submit` begin once a listing was read whole, or has stayed incomplete."""
        if self._sending.allowed:
            return
        if not listing.complete:
            self._incomplete += 1
            if self._incomplete < _INCOMPLETE_BEFORE_GOING_ON:
                raise Transient("the service's list of batches is not whole; it is read again")
            _log.warning("listing_stays_incomplete", service="molecule_one", listed=len(listing.batches))
        self._sending.allowed = True
