"""Reconcile: finds out what became of purchases that nobody answered, by looking at the service's own list.

It also reads back, before anything is sent, batches of ours that the record has forgotten, as after a restore.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import structlog

from watcher.errors import Failure, Service
from watcher.molecule_one import Listing
from watcher.pipeline import late_batches, refused_purchases
from watcher.pipeline.failures import wait_after
from watcher.pipeline.find_batches import Found, look
from watcher.pipeline.gate import Gate, Unproven, next_look
from watcher.pipeline.late_batches import SLOW_LOOK
from watcher.pipeline.sending import Sending, in_doubt, read_back
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.store import batches
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.schema import Batch, Profile

_log = structlog.get_logger(__name__)


class Reconcile:
    """The stage. Its only unit is one look at the service."""

    name = "reconcile"
    service: Service | None = "molecule_one"
    width = 1
    finishes_on_stop = False

    def __init__(self, context: Context, sending: Sending, *, new_record: bool = False) -> None:
        """Keep `sending`, which opens after a look; a `new_record` was made by this start."""
        self._context = context
        self._settings = context.settings.molecule_one
        self._sending = sending
        self._gate = Gate(context, sending, new_record=new_record)
        self._failed_in_a_row = 0
        self._again_at: float | None = None
        """When the list is asked for that could not be read, on the monotonic clock, also if nothing waits for it."""
        self._unlisted = Unproven()
        """Looks since the start at which the service had no list at all."""
        self._lists = False
        """Whether the service has a list: it has given one since the start."""
        self._suspected: set[str] = set()
        """Batches that showed results of somebody else, once."""

    @property
    def first_look_at(self) -> datetime | None:
        """When the look is due that sending waits for; None when none is, or at once."""
        if self._sending.allowed or self._gate.look_at is None:
            return None
        clock = self._context.clock
        return clock.now() + timedelta(seconds=self._gate.look_at - clock.monotonic())

    async def due(self, session: Session) -> Sequence[int]:
        """Return the one unit at the start, for stale purchases, and when a doubtful one is to be looked for."""
        now = self._context.clock.now()
        if not self._settings.token.get_secret_value():
            self._sending.allowed = True  # nothing can be asked; `submit` says that there is no token
        elif not self._sending.allowed and (
            self._gate.look_at is None or self._gate.look_at <= self._context.clock.monotonic()
        ):
            return [0]
        if self._is_asked_again() or await self._stale(session):
            return [0]
        if await batches.due(session, now, "unconfirmed", "closed"):
            return [0]
        return [0] if await late_batches.due(session, now) else []

    async def step(self, unit: int) -> None:  # noqa: ARG002 - there is one unit only
        """Mark what is stale, then look for everything doubtful in one listing."""
        await self._mark_stale()
        reach("reconcile.doubted")
        await late_batches.ask(self._context)
        async with self._context.store.read() as session:
            doubtful = await batches.in_state(session, "unconfirmed")
            late = await late_batches.due(session, self._context.clock.now())
            refused = await batches.refused(session)
        if self._sending.allowed and not (doubtful or late or refused or self._is_asked_again()):
            return
        listing = await self._context.molecule_one.list_batches()
        self._again_at = None
        if listing is None:
            self._failed_in_a_row = 0
            await self._no_listing(late)
            return
        self._lists = True
        found = await look(self._context, listing, self._suspected)
        reach("reconcile.found")
        await self._conclude(found, doubtful, late, listing)
        # What nobody waits for is not looked at again, so that nothing would ever tell that the trouble is over.
        if found.trouble is not None and (doubtful or refused or not self._sending.allowed):
            raise found.trouble
        self._failed_in_a_row = 0

    async def put_off(self, unit: int, failure: Failure) -> None:  # noqa: ARG002 - there is one unit only
        """Look again after a while; a look that failed proves nothing."""
        now = self._context.clock.now()
        self._failed_in_a_row += 1
        wait = wait_after(failure, self._failed_in_a_row, self._context.random)
        monotonic = self._context.clock.monotonic()
        self._gate.look_at = monotonic + wait.total_seconds()
        self._again_at = monotonic + SLOW_LOOK.total_seconds()
        async with self._context.store.write() as session:
            for batch in await batches.in_state(session, "unconfirmed"):
                batch.attempts += 1
                batch.due_at = now + wait_after(failure, batch.attempts, self._context.random)
            await late_batches.put_off(session, await late_batches.due(session, now), now)
            await self._rule_out(session, proven=False, now=now)
            may_send = await self._gate.may_open_without(session, failure, now)
        self._sending.allowed |= may_send

    def _is_asked_again(self) -> bool:
        """Say whether it is time to see whether the list can be read again: what it shows of ours is read back."""
        return self._again_at is not None and self._again_at <= self._context.clock.monotonic()

    async def _stale(self, session: Session) -> list[Batch]:
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

    async def _conclude(self, found: Found, doubtful: Sequence[Batch], late: Sequence[Batch], listing: Listing) -> None:
        now = self._context.clock.now()
        listed = {remote.remote_id: remote for remote in listing.batches}
        async with self._context.store.write() as session:
            twins = list(found.twins)
            for token, remote_id in found.remote_ids.items():
                if token in self._sending.now:
                    continue
                batch = await batches.by_token(session, token)
                if batch is None:
                    size = listed[remote_id].size or found.sizes.get(remote_id, 0)
                    await read_back(session, self._context, token=token, remote_id=remote_id, size=size, now=now)
                elif batch.remote_id is None or batch.state in ("lost", "released"):
                    await late_batches.adopt(session, batch, remote_id, now)
                elif batch.remote_id != remote_id and batch.remote_id in listed:
                    # Else it was answered since it was looked for, or under a wrong id, which `collect` finds out.
                    twins.append((token, remote_id))
            for token, remote_id in twins:
                await self._tell_twin(session, token, remote_id, now)
            # A list that leaves out what the service works on for us is cut, or lags: it proves no absence.
            at_work = await batches.at_work(session, self._settings.api_version)
            missing = _missing(listing, found, leaves_out=at_work - listed.keys())
            looked = listing.complete and at_work <= listed.keys() and found.trouble is None
            may_send = await self._gate.may_open(session, missing, now)
            for one in doubtful:
                if one.token not in found.remote_ids:
                    batch = await batches.get(session, one.id)
                    await self._not_found(session, batch, looked=looked, undecided=found.undecided, now=now)
            await late_batches.put_off(session, late, now)
            await self._rule_out(session, proven=looked and not found.undecided, now=now)
            reach("reconcile.concluding")
        self._sending.allowed |= may_send
        reach("reconcile.concluded")

    async def _tell_twin(self, session: Session, token: str, remote_id: str, now: datetime) -> None:
        """Tell of a second batch with the name of one of ours: it was sent once, something on the way repeated it."""
        batch = await batches.by_token(session, token)
        if batch is None or batch.remote_id in (None, remote_id):  # the next look tells
            return
        await batches.mark_foreign(session, [remote_id], now)
        if batch.state == "collected":  # nothing would close a condition
            _log.warning("batch_taken_twice", batch_id=batch.id, remote_id=batch.remote_id, twin=remote_id)
            return
        await open_condition(
            session,
            f"batch {batch.id}",
            "turned_up",
            reason=f"the service has two batches of this name, {batch.remote_id} and {remote_id}: it was sent once and "
            "taken twice",
            action="ask Molecule.one to take one of them back, and look for a proxy that repeats requests",
            now=now,
        )

    async def _not_found(self, session: Session, batch: Batch, *, looked: bool, undecided: bool, now: datetime) -> None:
        if batch.state != "unconfirmed":
            return
        batch.looks += looked
        batch.attempts = 0 if looked else batch.attempts + 1  # a look that proves nothing only makes the next one rarer
        left = self._left(batch, batch.unconfirmed_at, now)
        if left > timedelta():
            batch.due_at = now + min(next_look(batch.looks + batch.attempts), left)
        elif await self._may_release(session, batch) and looked and not undecided:
            await self._release(session, batch, now)
        else:
            batch.due_at = now + SLOW_LOOK

    def _left(self, batch: Batch, since: datetime | None, now: datetime) -> timedelta:
        """Return what is left of the window in which a batch is looked for that has been in doubt `since`.

        By a clock that nobody sets, as far as this process has seen the doubt.
        """
        monotonic = self._context.clock.monotonic()
        met, age = self._sending.doubted.setdefault(batch.token, (monotonic, now - (since or now)))
        return self._settings.unconfirmed_window - max(age, timedelta()) - timedelta(seconds=monotonic - met)

    async def _rule_out(self, session: Session, *, proven: bool, now: datetime) -> None:
        """Note a look that did not find the batches whose purchase was refused; `proven` if they are not there."""
        for batch in await batches.refused(session):
            left = self._left(batch, batch.closed_at, now)
            await refused_purchases.not_found(session, batch, proven=proven, left=left, now=now)

    async def _may_release(self, session: Session, batch: Batch) -> bool:
        """Say whether the settings may give up a batch: not one that the service has accepted.

        Nor one that another version of the API has bought: the list of this one need not show it.
        """
        if self._settings.on_unconfirmed != "resubmit" or batch.outcome == "accepted":
            return False
        return (await session.get_one(Profile, batch.profile_id)).api_version == self._settings.api_version

    async def _release(self, session: Session, batch: Batch, now: datetime) -> None:
        why = 'not found within the window, and molecule_one.on_unconfirmed is "resubmit"'
        await batches.release(session, batch, who="settings", why=why, now=now)
        await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)
        batch.due_at = now + SLOW_LOOK

    async def _no_listing(self, late: Sequence[Batch]) -> None:
        """Note that the service has no list now. One that never had any is not waited for: there is nothing to ask."""
        now, monotonic = self._context.clock.now(), self._context.clock.monotonic()
        self._unlisted.add(monotonic)
        soon = now + next_look(self._unlisted.looks)
        async with self._context.store.write() as session:
            may_send = await self._gate.may_open(session, "the service has no list of its batches at the moment", now)
            for batch in await batches.in_state(session, "unconfirmed"):
                left = self._left(batch, batch.unconfirmed_at, now)
                never_listed = not self._lists and not batch.looks
                if left > timedelta():
                    batch.due_at = min(soon, now + left)
                elif not (never_listed and await self._may_release(session, batch)):
                    batch.due_at = now + SLOW_LOOK
                elif self._unlisted.lasts(monotonic, self._settings.unconfirmed_window):
                    await self._release(session, batch, now)
                else:
                    batch.due_at = soon
            await late_batches.put_off(session, late, now)
            if self._lists or self._context.molecule_one.names_batches:
                await self._rule_out(session, proven=False, now=now)
            else:  # there is nothing to ask
                for batch in await batches.refused(session):
                    await refused_purchases.give_up(session, batch, now)
        self._sending.allowed |= may_send


def _missing(listing: Listing, found: Found, *, leaves_out: Collection[str | None]) -> str:
    """Say what of a list could not be read; empty when it was read whole."""
    if not listing.complete:
        return "the list is cut off, repeats itself or does not add up"
    if leaves_out:
        return "the list leaves out a batch that the service works on for us"
    if found.unread:
        return f"these batches cannot be read: {', '.join(found.unread[:10])}"
    return ""
