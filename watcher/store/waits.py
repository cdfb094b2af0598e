"""When the next thing is due: what a pass that settles may sleep for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from watcher.store.conditions import all_open
from watcher.store.schema import Batch, Claim, Instance, Outbox, Target, Upload
from watcher.store.states import AT_WORK

TRIES_IN_A_PASS = 3
"""Failed tries to send a message after which nobody waits for the next."""


@dataclass(frozen=True, slots=True)
class Waits:
    """When the next thing is due, and whether the service is at work on a batch without trouble."""

    next_at: datetime | None
    at_work: bool


async def waits(
    session: AsyncSession, *, archives: bool, first_look_at: datetime | None = None, after: datetime | None = None
) -> Waits:
    """Return when anything is due next, with the pauses of services and stages taken into account.

    `first_look_at` is when the service's list is to be read for the first time since the start. With `after`, only what
    comes due later than that counts.
    """
    paused = {c.subject: c.retry_at for c in await all_open(session) if c.retry_at is not None}

    def pause_of(*gates: str) -> datetime | None:
        return max((paused[gate] for gate in gates if gate in paused), default=None)

    asked: list[tuple[ScalarSelect[Any], datetime | None]] = []

    def ask_for(
        column: InstrumentedAttribute[datetime | None], *where: ColumnElement[bool], gates: Sequence[str]
    ) -> None:
        pause = pause_of(*gates)
        if after is not None and (pause is None or pause <= after):
            where = (*where, column > after)
        asked.append((select(func.min(column)).where(*where).scalar_subquery(), pause))

    is_current = Upload.id.in_(select(Target.current_upload_id).where(Target.followed))
    can_be_had = Upload.id.in_(select(Target.current_upload_id).where(Target.followed, Target.listed))
    fetched = or_(Upload.archive_state.in_(("wanted", "unavailable")) & can_be_had, Upload.archive_state == "stored")
    read = or_(Upload.scoring_state == "detected", Upload.settle_due_at.is_not(None))
    polled = Batch.state.in_(("submitted", "finished", "collected"))
    ask_for(Instance.scan_due_at, gates=("fragalysis", "scan"))
    ask_for(Upload.scoring_due_at, can_be_had, read, gates=("fragalysis", "extract"))
    ask_for(Upload.settle_due_at, can_be_had, Upload.scoring_due_at.is_(None), gates=("fragalysis", "extract"))
    ask_for(Batch.due_at, polled, gates=("molecule_one", "collect"))
    ask_for(Batch.due_at, Batch.state.in_(("unconfirmed", "closed")), gates=("molecule_one", "reconcile"))
    # A pass waits for some tries only: an address can be dead for good.
    ask_for(Outbox.due_at, Outbox.sent_at.is_(None), Outbox.attempts < TRIES_IN_A_PASS, gates=("notify",))
    if archives:
        ask_for(Upload.archive_due_at, is_current, fetched, gates=("fragalysis", "download"))
    is_wanted = select(Claim.id).where(Claim.state == "wanted").exists()
    is_healthy = select(Batch.id).where(Batch.state.in_(AT_WORK), Batch.attempts == 0).exists()
    found = await session.execute(select(*(query for query, _ in asked), is_wanted, is_healthy))
    *moments, wanted, healthy = found.one()
    times = [max(at, pause or at) for at, (_, pause) in zip(moments, asked, strict=True) if at is not None]
    pause = pause_of("molecule_one", "submit")
    # Before the first look nothing is sent, paused or not.
    if wanted and pause is not None and first_look_at is None and (after is None or pause > after):
        times.append(pause)
    if first_look_at is not None:
        look_at = max(first_look_at, pause_of("molecule_one", "reconcile") or first_look_at)
        if after is None or look_at > after:
            times.append(look_at)
    return Waits(min(times, default=None), bool(healthy) and "molecule_one" not in paused)
