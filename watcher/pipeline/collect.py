"""Collect: polls the batches at the service and stores every result as it comes, until none is missing."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from structlog.contextvars import bind_contextvars

from watcher.errors import Failure, Invalid, Service
from watcher.molecule_one import BatchUnknown, Counts, ResultItem
from watcher.pipeline.failures import backoff, wait_after
from watcher.pipeline.read_back import attach, call_for_help
from watcher.pipeline.stage import Context
from watcher.points import reach
from watcher.store import batches, forgotten
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.results import Result, record_results, sent_smiles, unanswered
from watcher.store.results import missing as missing_claims
from watcher.store.schema import Batch, Profile
from watcher.store.states import AT_WORK
from watcher.store.transitions import say_after_commit

LOOKS_FOR_MISSING = 5
LOOK_FOR_MISSING = timedelta(hours=1)
"""A compound that a finished batch does not list counts as failed after so many looks, and so long."""
QUIET_LOOKS = 12
"""Looks in a row at unchanged counts, about an hour, after which a batch that has nothing to do counts as finished."""
LOOKS_BEFORE_LOST = 3
"""Looks in a row at which the service does not know a batch, spread over a minute at least."""
_UNKNOWN_WAIT = timedelta(seconds=20)
_LOOK_FOR_LOST = timedelta(hours=1)
LONGEST_POLL = timedelta(minutes=10)


def next_poll(first: timedelta, quiet_looks: int) -> timedelta:
    """Return the wait before the next look, growing by half for each look that found nothing new.

    It never grows beyond ten minutes, nor shrinks below the `poll_interval` of the settings.
    """
    return max(first, min(first * 1.5 ** min(quiet_looks, 30), LONGEST_POLL))


class Collect:
    """The stage. A unit is a batch."""

    name = "collect"
    service: Service | None = "molecule_one"
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings.molecule_one
        self.width = self._settings.max_concurrent_requests
        self._unknown: dict[int, int] = {}
        """How often in a row the service did not know a batch; a restart begins at 0."""

    async def due(self, session: Session) -> Sequence[int]:
        """Return the batches that are to be looked at."""
        return await batches.due(session, self._context.clock.now(), "submitted", "finished", "collected")

    async def step(self, unit: int) -> None:
        """Look at one batch: counts first, results when there are any, the end when none is missing."""
        bind_contextvars(batch_id=unit)
        async with self._context.store.read() as session:
            batch = await batches.get(session, unit)
        if batch.remote_id is None:
            raise ValueError(f"batch {unit} is {batch.state} without a remote id")
        if batch.state == "collected":
            await self._delete(batch.remote_id, unit)
            return
        service = self._context.molecule_one
        counts = await service.status(batch.remote_id)
        last = (batch.queued, batch.running, batch.finished, batch.error)
        counted = (counts.queued, counts.running, counts.finished, counts.error)
        changed = counted != last
        # Of a batch that was read back nobody may have told the size: two looks in a row must agree, so that an odd one
        # neither ends it nor holds it up for good.
        size = batch.size or max(sum(counted), sum(number or 0 for number in last))
        agreed = bool(batch.size) or not changed
        rests = counts.rests and not changed and batch.looks >= QUIET_LOOKS
        complete = batch.state == "finished" or (counts.complete(size) and agreed) or rests
        results: list[ResultItem] = []
        if complete or (changed and counts.finished + counts.error > 0):
            results = await service.results(batch.remote_id)
            reach("collect.fetched")
        read_back = batch.outcome == forgotten.READ_BACK
        claims = await attach(self._context, batch, results) if read_back else {}
        await self._record(unit, counts, results, claims, size=size, complete=complete, changed=changed)

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Look again after a while; when the service keeps saying that it does not know the batch, it is lost."""
        now = self._context.clock.now()
        self._unknown[unit] = self._unknown.get(unit, 0) + 1 if isinstance(failure, BatchUnknown) else 0
        async with self._context.store.write() as session:
            batch = await batches.get(session, unit)
            if batch.state not in ("submitted", "finished", "collected"):
                return
            batch.attempts += 1
            batch.due_at = now + wait_after(failure, batch.attempts, self._context.random)
            if batch.state == "collected":
                if isinstance(failure, Invalid):
                    batch.due_at = None  # the service does not delete it, and nothing hangs on that
                    say_after_commit(session, "batch_not_deleted_at_service", level="warning", reason=failure.message)
            elif isinstance(failure, BatchUnknown):
                batch.due_at = now + backoff(self._unknown[unit], self._context.random, first=_UNKNOWN_WAIT)
                if self._unknown[unit] >= LOOKS_BEFORE_LOST:
                    version = (await session.get_one(Profile, batch.profile_id)).api_version
                    if version == self._settings.api_version:
                        await self._lose(session, batch, failure, now)
                    else:
                        await self._ask_for_version(session, batch, version, now)
            elif isinstance(failure, Invalid):
                await open_condition(
                    session,
                    f"batch {unit}",
                    "unreadable",
                    reason=f"the service refuses to tell of batch {batch.remote_id}: {failure.message}",
                    action="nothing: it is asked again; if this is open after an hour, ask Molecule.one about it; "
                    f"`watcher batches release {unit}` gives it up",
                    now=now,
                )

    async def _ask_for_version(self, session: Session, batch: Batch, version: str, now: datetime) -> None:
        """Say that a batch may be unknown only because it was bought by another version of the API."""
        await open_condition(
            session,
            f"batch {batch.id}",
            "unreadable",
            reason=f"{self._settings.api_version} does not know batch {batch.remote_id}, which {version} bought",
            action=f'set molecule_one.api_version = "{version}" until its results are stored',
            now=now,
        )

    async def _lose(self, session: Session, batch: Batch, failure: Failure, now: datetime) -> None:
        """Set a batch aside that the service does not know; should its list show it again, it is taken up."""
        await batches.lose(session, batch, why=failure.message, now=now)
        batch.due_at = now + _LOOK_FOR_LOST
        await close_condition(session, f"batch {batch.id}", "unreadable", "read_back", now=now)
        blind = batch.outcome == forgotten.READ_BACK and await forgotten.is_hidden(session, batch)
        meanwhile = "; what it held is not known, so nothing is sent meanwhile" if blind else ""
        await open_condition(
            session,
            f"batch {batch.id}",
            "lost",
            reason=f"the service does not know batch {batch.remote_id} any more: {failure.message}{meanwhile}",
            action="nothing if the service knows it again, for it is asked every hour; else ask Molecule.one about it: "
            f"`watcher batches adopt {batch.id} REMOTE_ID` if it has another id, `watcher batches release {batch.id}` "
            "buys its compounds again",
            now=now,
        )

    async def _record(
        self,
        batch_id: int,
        counts: Counts,
        results: Sequence[ResultItem],
        claims: Mapping[str, int],
        *,
        size: int,
        complete: bool,
        changed: bool,
    ) -> None:
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            batch = await batches.get(session, batch_id)
            if batch.state not in AT_WORK:
                return
            batch.attempts = 0
            self._unknown.pop(batch_id, None)
            strange = sum(item.is_strange for item in results) if complete else 0
            if not strange:
                await close_condition(session, f"batch {batch_id}", "unreadable", "lost", now=now)
            batch.queued, batch.running = counts.queued, counts.running
            batch.finished, batch.error = counts.finished, counts.error
            done = [_result(item) for item in results if item.kind != "running"]
            added = await record_results(session, batch, done, shown=claims, now=now)
            if added:
                say_after_commit(session, "results_stored", results=added, finished=counts.finished, size=size)
            if complete and batch.state == "submitted":
                batches.move(session, batch, "finished", why="nothing is queued or running any more", now=now)
                batch.finished_at = now
                changed = True
            if batch.state == "finished":
                batch.looks = 0 if changed else batch.looks
                shown = len({item.smiles for item in results} - {""})
                at_work = counts.queued + counts.running > 0
                await self._finish(session, batch, strange, now, shown=shown, size=size, at_work=at_work)
            else:
                batch.looks = 0 if changed else batch.looks + 1
                batch.due_at = now + next_poll(self._settings.poll_interval, batch.looks)
                if batch.outcome == forgotten.READ_BACK and now - batch.created_at >= LOOK_FOR_MISSING:
                    known = len(await sent_smiles(session, batch_id))
                    await call_for_help(session, batch, known=known, size=size, now=now)
            reach("collect.recording")
        reach("collect.recorded")

    async def _finish(
        self, session: Session, batch: Batch, strange: int, now: datetime, *, shown: int, size: int, at_work: bool
    ) -> None:
        """End a finished batch once each of its compounds has a result, or was looked for long enough and none is made.

        Looks at results of a strange shape do not count: what is missing may well be among them, and it is paid.
        """
        unlisted = await unanswered(session, batch.id)
        # What was sent is not known of a batch that was read back: only its results tell.
        known = max(shown, len(await sent_smiles(session, batch.id)))
        hidden = batch.outcome == forgotten.READ_BACK and known < size
        if (unlisted or hidden) and strange:
            await self._wait_for_readable(session, batch, strange, now)
            return
        batch.looks += 1
        batch.finished_at = min(batch.finished_at or now, now)  # the clock may have been ahead
        looked_for = not at_work and batch.looks >= LOOKS_FOR_MISSING and now - batch.finished_at >= LOOK_FOR_MISSING
        if hidden or (unlisted and not looked_for):
            batch.due_at = now + next_poll(self._settings.poll_interval, batch.looks)
            if hidden and looked_for:
                condition = await call_for_help(session, batch, known=known, size=size, now=now)
                batch.attempts = condition.attempts  # trouble, so that nobody takes it for a service at work
            return
        for claim in await missing_claims(session, batch.id):
            batches.fail(session, claim, "no_result: the batch is finished and does not list this compound", now)
        batches.move(session, batch, "collected", why="every result is stored", now=now)
        batch.collected_at = now
        batch.size = batch.size or known
        # What is missing may show there one day: then it is not deleted.
        batch.due_at = now if self._settings.delete_after_collect and not unlisted else None
        await close_condition(session, f"batch {batch.id}", now=now)

    async def _wait_for_readable(self, session: Session, batch: Batch, strange: int, now: datetime) -> None:
        condition = await open_condition(
            session,
            f"batch {batch.id}",
            "unreadable",
            reason=f"{strange} results of batch {batch.remote_id} have a shape that cannot be read",
            action="nothing: they are read again; if this is open after an hour, a newer version of this program may "
            f"know the shape; `watcher batches release {batch.id}` gives them up",
            now=now,
        )
        batch.attempts = condition.attempts  # trouble, so that nobody takes it for a service at work
        batch.due_at = now + next_poll(self._settings.poll_interval, condition.attempts)

    async def _delete(self, remote_id: str, batch_id: int) -> None:
        """Delete the batch at the service, after its results are committed and only if the settings say so."""
        if self._settings.delete_after_collect:
            reach("collect.deleting")
            await self._context.molecule_one.delete(remote_id)
            reach("collect.deleted")
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            batch = await batches.get(session, batch_id)
            batch.due_at = None
            if self._settings.delete_after_collect:
                batch.deleted_at = now
                say_after_commit(session, "batch_deleted_at_service", remote_id=remote_id)


def _result(item: ResultItem) -> Result:
    kind = item.kind
    return Result(
        kind=kind,
        smiles=item.smiles,
        status=item.status,
        reason=f"the service answered {item.status}" if kind == "failed" else None,
        result=item.result,
        certainty=item.certainty,
        price_usd=item.price_usd,
        reaction_count=item.reaction_count,
        timed_out=item.timed_out,
        route=item.route,
        raw=item.raw,
    )
