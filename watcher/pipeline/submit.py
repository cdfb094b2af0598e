"""Submit: buys the scores of the claims that may be sent; each batch is sent at most once.

The intent is committed before a byte is sent, the answer before anything is concluded from it. What is not certain
becomes `unconfirmed`, and `reconcile` looks for it.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from structlog.contextvars import bind_contextvars

from watcher import metrics
from watcher.errors import AuthFailure, Failure, Ours, Service, Transient
from watcher.molecule_one import (
    Accepted,
    Later,
    NotSent,
    Outcome,
    Refused,
    ServiceRefused,
    Unknown,
    profile_of,
)
from watcher.pipeline.failures import backoff, wait_after
from watcher.pipeline.holds import holds
from watcher.pipeline.profile import ask_for_approval, profile_in_force
from watcher.pipeline.refusals import fault_is_no_molecule
from watcher.pipeline.sending import Sending, batch_name, in_doubt, read_back
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.store import allowance, batches, overview, purchases
from watcher.store.conditions import all_open, close_condition, find, open_condition
from watcher.store.engine import CommitUnknown, Session
from watcher.store.instance import instance
from watcher.store.profiles import REFUSED, SERVICE
from watcher.store.schema import Batch, Profile

_log = structlog.get_logger(__name__)
GATHERING = timedelta(minutes=1)
"""Longest wait for uploads that are being read, so that their compounds fill one batch."""
_LONGEST_BETWEEN_RECORDINGS = timedelta(seconds=30)
_LAG = timedelta(minutes=1)
"""What the service's list may lag behind a purchase."""
_NOTHING_IS_BOUGHT = ("unreachable", "credentials", "machine")
"""Conditions of a service, or of this stage, in which a try that buys nothing is no news."""


async def _must_wait(session: Session, now: datetime) -> bool:
    """Say whether anything holds sending up."""
    return bool(await holds(session, now))


class Submit:
    """The stage. Its only unit is the next batch."""

    name = "submit"
    service: Service | None = "molecule_one"
    width = 1
    finishes_on_stop = True

    def __init__(
        self,
        context: Context,
        sending: Sending,
        *,
        reading: Callable[[], bool] = lambda: False,
        record_away: Callable[[Failure], None] = lambda _: None,
    ) -> None:
        """Keep `reading`, which says whether uploads are being read at this moment.

        `record_away` is told each time that an answer cannot be committed: this stage does not end on it.
        """
        self._context = context
        self._settings = context.settings.molecule_one
        self._sending = sending
        self._reading = reading
        self._record_away = record_away
        self._profile_key = profile_of(self._settings).key
        self._level = "info"
        """Of the lines about a try that buys nothing: "debug" while a condition says that nothing can be bought."""

    async def due(self, session: Session) -> Sequence[int]:
        """Return the one unit when something may be sent."""
        if not self._sending.allowed:
            return []
        now = self._context.clock.now()
        wanted, held_for_today = await allowance.sendable(session, self._profile_key)
        if not wanted and not held_for_today:  # asked first: it is so most of the time
            return []
        if await _must_wait(session, now):
            return []
        if wanted:
            return [] if self._reading() and await self._gathers(session, now) else [0]
        left = await allowance.daily_allowance(session, self._context.policy, now)
        return [0] if left != 0 else []

    async def step(self, unit: int) -> None:  # noqa: ARG002 - there is one unit only
        """Commit the intent, send it once, commit the answer.

        Raises AuthFailure or Transient when the service did not take the batch for reasons of its own, Ours when this
        machine could not send it.
        """
        if not self._settings.token.get_secret_value():
            raise AuthFailure("no token is set, so nothing can be bought", action=_SET_TOKEN)
        token = uuid.uuid4().hex
        self._sending.now.add(token)
        try:
            batch = await self._reserve(token)
            if batch is None:
                return
            bind_contextvars(batch_id=batch.id)
            reach("submit.intended")
            if self._sending.stopping:
                outcome: Outcome = NotSent("the program is ending")
            else:
                outcome = await self._context.molecule_one.create(batch.payload.encode())
            reach("submit.answered")
            self._say(batch, outcome)
            await self._record_surely(batch, outcome)
            reach("submit.recorded")
        finally:
            self._sending.now.discard(token)
        if not self._sending.stopping:
            await self._raise_for(outcome)

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Nothing to write: what was not reserved is still wanted."""

    async def _gathers(self, session: Session, now: datetime) -> bool:
        oldest = (await overview.oldest_pending(session))["submit"]
        return oldest is not None and now - oldest < GATHERING

    async def _reserve(self, token: str) -> Batch | None:
        now = self._context.clock.now()
        try:
            async with self._context.store.write() as session:
                if await _must_wait(session, now):  # asked again: `reconcile` may have read a batch back since
                    return None
                if self._sending.last and await batches.by_token(session, self._sending.last) is None:
                    self._shut("the newest intent is gone")
                    return None
                troubles = [one for one in await all_open(session) if one.subject in (SERVICE, self.name)]
                self._level = "debug" if any(one.kind in _NOTHING_IS_BOUGHT for one in troubles) else "info"
                profile = await profile_in_force(session, self._context)
                name = (await instance(session)).name
                batch = await purchases.reserve(
                    session,
                    profile,
                    self._context.policy,
                    token=token,
                    batch_size=self._settings.batch_size,
                    build=lambda smiles: self._context.molecule_one.payload(smiles, batch_name(name, token)),
                    now=now,
                    level=self._level,
                )
                await ask_for_approval(session, profile, now)
                reach("submit.intending")
        except CommitUnknown:
            # Nothing is sent on a doubt. If the intent is there after all, it is closed as never sent.
            self._sending.never.add(token)
            raise
        if batch is not None:
            self._sending.last = token
        return batch

    def _shut(self, why: str) -> None:
        """Send nothing before the service's list is read again, as after a start: what was bought may be forgotten."""
        self._sending.allowed, self._sending.last = False, None
        _log.error("record_went_back", reason=why, action="look who put an older record in the place of this one")

    def _say(self, batch: Batch, outcome: Outcome) -> None:
        """Log the answer before it is committed: if the commit fails, the log still knows the remote id."""
        said = {"outcome": type(outcome).__name__.lower(), "size": batch.size, "token": batch.token}
        if isinstance(outcome, Accepted):
            metrics.COMPOUNDS_SUBMITTED.inc(batch.size)
            _log.info("batch_answered", remote_id=outcome.remote_id, **said)
        else:
            nothing_new = self._level == "debug" and isinstance(outcome, NotSent | Later | ServiceRefused)
            _log.log(logging.DEBUG if nothing_new else logging.WARNING, "batch_answered", reason=outcome.reason, **said)

    async def _record_surely(self, sent: Batch, outcome: Outcome) -> None:
        """Commit the answer however long the database takes; looking first makes repetition harmless."""
        attempts = 0
        while True:
            try:
                async with self._context.store.write() as session:
                    now = self._context.clock.now()
                    batch = await batches.by_token(session, sent.token)
                    if batch is None:
                        await self._record_anew(session, sent, outcome, now)
                        return
                    late = batch.state == "unconfirmed" and isinstance(outcome, Accepted)
                    if batch.state != "submitting" and not late:
                        return
                    await self._record(session, batch, outcome, now)
                    reach("submit.recording")
            except Ours as failure:
                self._record_away(failure)
                attempts += 1
                wait = backoff(attempts, self._context.random, longest=_LONGEST_BETWEEN_RECORDINGS)
                await self._context.clock.sleep(wait)
            else:
                return

    async def _record_anew(self, session: Session, sent: Batch, outcome: Outcome, now: datetime) -> None:
        """Record what was bought on an intent that a record gone back in time has forgotten."""
        self._shut("the intent of the purchase under way is gone")
        if isinstance(outcome, Accepted) and await batches.by_remote_id(session, outcome.remote_id) is None:
            await read_back(
                session, self._context, token=sent.token, remote_id=outcome.remote_id, size=sent.size, now=now
            )

    async def _record(self, session: Session, batch: Batch, outcome: Outcome, now: datetime) -> None:
        batch.outcome = _NAMES[type(outcome)]
        batch.answer = outcome.answer if isinstance(outcome, Accepted) else outcome.reason
        match outcome:
            case Accepted(remote_id=remote_id) if holder := await batches.by_remote_id(session, remote_id):
                words = f"it answered with the id {remote_id}, which batch {holder.id} has already"
                await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)
                await in_doubt(session, batch, words, due_at=now, now=now)
            case Accepted(remote_id=remote_id):
                await close_condition(session, f"batch {batch.id}", "unconfirmed", now=now)
                due_at = now + min(self._settings.poll_interval, timedelta(seconds=2))
                await batches.accepted(session, batch, remote_id, due_at=due_at, now=now, why="accepted")
            case NotSent(reason=reason):
                await batches.close_unsent(session, batch, why=f"not sent: {reason}", now=now, level=self._level)
            case Later(reason=reason):
                await batches.close_unsent(session, batch, why=f"later: {reason}", now=now, level=self._level)
            case ServiceRefused(reason=reason):
                why = f"refused by the service: {reason}"
                await batches.close_unsent(session, batch, why=why, now=now, level=self._level)
                batch.due_at = now + _LAG  # such an answer can come from a proxy, in the place of one that accepts
            case Refused(reason=words):
                await self._refused(session, batch, words, now)
            case Unknown(reason=reason):
                await in_doubt(session, batch, reason, due_at=now, now=now)
                self._sending.doubted[batch.token] = (self._context.clock.monotonic(), timedelta())

    async def _refused(self, session: Session, batch: Batch, words: str, now: datetime) -> None:
        """Halve the group, or stop when the fault is no molecule's."""
        profile = (await session.get(Profile, batch.profile_id)) or await profile_in_force(session, self._context)
        earlier = await batches.recent_answers(session, profile)
        if fault_is_no_molecule(batch, [one for one in earlier if one.id != batch.id]):
            await batches.close_unsent(session, batch, why=f"refused: {words}", now=now)
            await open_condition(
                session,
                SERVICE,
                REFUSED,
                reason=f"every part of a batch was refused with the same words: {words}",
                action="look at [molecule_one] in the settings, then `watcher approve --profile` to go on",
                now=now,
            )
            return
        await batches.close_refused(session, batch, words=words, now=now)

    async def _raise_for(self, outcome: Outcome) -> None:
        """Raise what pauses the service, now that the batch is closed unsent."""
        match outcome:
            case ServiceRefused(reason=reason):
                raise AuthFailure(f"the purchase was refused: {reason}", action=_LOOK_AT_ACCOUNT)
            case NotSent(reason=reason, ours=True):
                raise Ours(reason, action=_LOOK_AT_MACHINE)
            case NotSent(reason=reason) | Later(reason=reason):
                asked = outcome.retry_after if isinstance(outcome, Later) else None
                async with self._context.store.read() as session:
                    condition = await find(session, SERVICE, "unreachable")
                attempts = (condition.attempts if condition else 0) + 1
                wait = wait_after(Transient(reason, retry_after=asked), attempts, self._context.random)
                raise Transient(reason, retry_after=wait)
            case _:
                return


_SET_TOKEN = "set molecule_one.token or molecule_one.token_file and start again"  # noqa: S105 - no secret
_LOOK_AT_ACCOUNT = (
    "look at molecule_one.token, base_url and api_version, and at the account; it is tried again by itself"
)
_LOOK_AT_MACHINE = "look at the reason; it is tried again by itself, once this machine can connect"
_NAMES: dict[type, str] = {
    Accepted: "accepted",
    NotSent: "not_sent",
    Later: "later",
    ServiceRefused: "service",
    Refused: "refused",
    Unknown: "unknown",
}
