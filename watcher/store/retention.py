"""What the record lets go of: archives that were superseded, and old rows of its history.

Uploads, observations, compounds, claims, batches and scores are never deleted.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.legs import set_archive_state
from watcher.store.schema import Base, Condition, Outbox, Target, Transition, Upload
from watcher.store.targets import upload_with_target

CHUNK = 500
"""Rows deleted in one transaction: others may write in between."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """An archive that is to be removed, or whose removal was not finished."""

    upload_id: int
    target: str
    target_access_string: str
    upload_index: int
    path: str
    """Relative to `download.directory`."""


async def superseded(session: AsyncSession, keep: int) -> list[Superseded]:
    """Return the stored archives beyond the `keep` newest of each target, and those to be removed, the oldest first.

    What counts now is the newest, whatever its time. What a download that was superseded left takes no place: there
    may be nothing of it on the disk. `verify` finds out, and makes it `stored` or `pruned`.
    """
    counts = Target.current_upload_id == Upload.id
    newest_first = (case((counts, 0), else_=1), Upload.committed_at.desc(), Upload.id.desc())
    place = func.row_number().over(partition_by=Upload.target_id, order_by=newest_first).label("place")
    stored = (
        select(Upload.id, place)
        .join(Target, Target.id == Upload.target_id)
        .where(Upload.archive_state == "stored")
        .subquery()
    )
    beyond = select(stored.c.id).where(stored.c.place > keep)
    to_be_removed = and_(Upload.archive_state == "pruned", Upload.archive_path.is_not(None))
    rows = await session.execute(
        select(Upload, Target)
        .join(Target, Target.id == Upload.target_id)
        .where(or_(to_be_removed, Upload.id.in_(beyond)) if keep else to_be_removed)
        .order_by(Upload.committed_at, Upload.id)
    )
    return [
        Superseded(upload.id, target.name, target.target_access_string, upload.upload_index, upload.archive_path or "")
        for upload, target in rows
    ]


async def begin_removal(session: AsyncSession, upload_id: int, *, now: datetime, why: str, who: str) -> bool:
    """Note that an archive is not kept any more; returns whether it is to be removed."""
    upload, target = await upload_with_target(session, upload_id)
    if upload.archive_state == "stored" and target.current_upload_id != upload.id:
        set_archive_state(session, upload, "pruned", now=now, why=why, who=who)
    return upload.archive_state == "pruned"


async def is_to_be_removed(session: AsyncSession, upload_id: int) -> bool:
    """Say whether an archive is still not to be kept: an upload can count again."""
    upload, _ = await upload_with_target(session, upload_id)
    return upload.archive_state == "pruned"


async def end_removal(session: AsyncSession, upload_id: int) -> bool:
    """Note that an archive is removed; its size and digest stay. Returns False when it is wanted again meanwhile."""
    upload, _ = await upload_with_target(session, upload_id)
    if upload.archive_state != "pruned":
        return False
    upload.archive_path = None
    return True


_HISTORY: tuple[tuple[str, type[Base], ColumnElement[datetime | None]], ...] = (
    ("transitions", Transition, Transition.__table__.c.at),
    ("conditions", Condition, Condition.__table__.c.until),
    ("notifications", Outbox, Outbox.__table__.c.sent_at),
)
"""What there is of it, and when each row is over; one that is not over is never deleted."""


async def count_history(session: AsyncSession, before: datetime) -> dict[str, int]:
    """Count the rows of the history that were over before a moment."""
    return {
        name: await session.scalar(select(func.count()).select_from(model).where(over < before)) or 0
        for name, model, over in _HISTORY
    }


async def forget_history(session: AsyncSession, before: datetime) -> dict[str, int]:
    """Delete some rows that were over before a moment, the oldest of each kind; returns how many."""
    gone: dict[str, int] = {}
    for name, model, over in _HISTORY:
        found = (await session.scalars(_oldest(model, over < before))).all()
        await session.execute(delete(model).where(model.__table__.c.id.in_(found)))
        gone[name] = len(found)
    return gone


def _oldest(model: type[Base], over: ColumnElement[bool]) -> Select[tuple[int]]:
    key = model.__table__.c.id
    return select(key).where(over).order_by(key).limit(CHUNK)
