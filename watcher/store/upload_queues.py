"""Uploads that have something to do: due to a stage, left over, set aside, or stuck."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher import __version__
from watcher.store.schema import Observation, Target, Upload


async def due_archives(session: AsyncSession, now: datetime, *states: str) -> Sequence[int]:
    """Return the current uploads in these states whose archive is to be fetched, or verified if it is stored.

    What is not listed cannot be had; it is due at once when it is listed again.
    """
    found = await session.scalars(
        select(Upload.id)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            Upload.archive_state.in_(states),
            Upload.archive_due_at <= now,
            or_(Target.listed, Upload.archive_state == "stored"),
        )
        # A build that was asked for comes first, so that its slot at the server is not wasted.
        .order_by(Upload.archive_task.is_(None), Upload.archive_due_at, Upload.id)
    )
    return found.all()


async def due_leftovers(session: AsyncSession, now: datetime) -> Sequence[int]:
    """Return the uploads that were superseded, and of whose archive it is to be found out what was left."""
    return await leftovers(session, Upload.archive_due_at <= now)


async def due_extractions(session: AsyncSession, now: datetime) -> Sequence[int]:
    """Return the current uploads whose observations are to be read: new ones, and those to be read once more.

    A target that is not listed shows none; it is read at once when it is listed again.
    """
    found = await session.scalars(
        select(Upload.id)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            or_(
                (Upload.scoring_state == "detected") & (Upload.scoring_due_at <= now),
                Upload.scoring_state.in_(("extracted", "scored"))
                & (Upload.settle_due_at <= now)
                & or_(Upload.scoring_due_at.is_(None), Upload.scoring_due_at <= now),
            ),
            Target.listed,
        )
        .order_by(Upload.id)
    )
    return found.all()


def is_left_over(upload: Upload, target: Target) -> bool:
    """Say whether an upload was superseded while something of its archive lay on the disk."""
    return (
        upload.archive_state == "skipped" and upload.archive_path is not None and target.current_upload_id != upload.id
    )


async def leftovers(session: AsyncSession, *where: ColumnElement[bool]) -> Sequence[int]:
    """Return the uploads that were superseded while something of their archive lay on the disk."""
    found = await session.scalars(
        select(Upload.id)
        .join(Target, Target.id == Upload.target_id)
        .where(
            Upload.archive_state == "skipped",
            Upload.archive_path.is_not(None),
            Target.current_upload_id.is_distinct_from(Upload.id),
            *where,
        )
        .order_by(Upload.id)
    )
    return found.all()


async def verify_leftovers(session: AsyncSession, now: datetime) -> None:
    """Make what was left of archives due for a check, whatever a download that was superseded had put off."""
    due = await leftovers(session)
    await session.execute(update(Upload).where(Upload.id.in_(due)).values(archive_due_at=now))


async def verify_stored(session: AsyncSession, now: datetime, verified_before: datetime) -> int:
    """Make the stored archives of current uploads due for verification unless verified since; returns how many."""
    due = (
        select(Upload.id)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Upload.archive_state == "stored",
            Upload.archive_due_at.is_(None),
            or_(Upload.archive_verified_at.is_(None), Upload.archive_verified_at < verified_before),
        )
    )
    result = await session.execute(update(Upload).where(Upload.id.in_(due)).values(archive_due_at=now))
    return int(getattr(result, "rowcount", 0))


async def quarantined_by_another_version(session: AsyncSession) -> Sequence[Upload]:
    """Return the current uploads that another version of the program has set aside."""
    found = await session.scalars(
        select(Upload)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            or_(Upload.archive_state == "quarantined", Upload.scoring_state == "quarantined"),
            Upload.program_version != __version__,
        )
    )
    return found.all()


async def left_without_archive(session: AsyncSession) -> Sequence[Upload]:
    """Return the current uploads with observations whose archive nobody asked for, as when downloads were off.

    Also one that was pruned, and counts again since the index went back to it.
    """
    found = await session.scalars(
        select(Upload)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            Upload.archive_state.in_(("skipped", "pruned")),
            Upload.id.in_(select(Observation.upload_id)),
        )
        .order_by(Upload.id)
    )
    return found.all()


async def archives_to_come(session: AsyncSession) -> Sequence[tuple[Upload, Target]]:
    """Return the current uploads whose archive is to be fetched or is set aside."""
    rows = await session.execute(
        select(Upload, Target)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(Target.followed, Upload.archive_state.in_(("wanted", "unavailable", "quarantined")))
        .order_by(Upload.id)
    )
    return [(row[0], row[1]) for row in rows]


async def stuck_legs(session: AsyncSession, target_ids: Sequence[int] | None) -> Sequence[Upload]:
    """Return the current uploads with a quarantined or unavailable leg, of these targets or of all."""
    query = (
        select(Upload)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(or_(Upload.archive_state.in_(("quarantined", "unavailable")), Upload.scoring_state == "quarantined"))
        .order_by(Upload.id)
    )
    if target_ids is not None:
        query = query.where(Target.id.in_(target_ids))
    return (await session.scalars(query)).all()
