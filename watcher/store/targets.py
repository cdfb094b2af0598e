"""Targets and uploads: what a scan records, and look-ups."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher import __version__
from watcher.store.schema import Observation, Target, Upload
from watcher.store.transitions import say_after_commit

UploadKey = tuple[int, datetime]
"""Upload index and commit time: what tells the uploads of one target apart."""


async def of_stack(session: AsyncSession, stack: str) -> dict[int, Target]:
    """Return the recorded targets of a stack by their remote id."""
    found = await session.scalars(select(Target).where(Target.stack == stack))
    return {target.remote_id: target for target in found}


async def uploads_of(session: AsyncSession, target_id: int) -> dict[UploadKey, Upload]:
    """Return the recorded uploads of a target."""
    found = await session.scalars(select(Upload).where(Upload.target_id == target_id))
    return {(upload.upload_index, upload.committed_at): upload for upload in found}


async def upload_with_target(session: AsyncSession, upload_id: int) -> tuple[Upload, Target]:
    """Return an upload and its target."""
    row = (
        await session.execute(
            select(Upload, Target).join(Target, Target.id == Upload.target_id).where(Upload.id == upload_id)
        )
    ).one()
    return row[0], row[1]


async def counting(session: AsyncSession, upload_ids: Sequence[int]) -> set[int]:
    """Return those of some uploads that count now and are followed; the record may have forgotten others."""
    found = await session.scalars(
        select(Target.current_upload_id).where(Target.followed, Target.current_upload_id.in_(upload_ids))
    )
    return {upload_id for upload_id in found if upload_id is not None}


async def find_by_name(session: AsyncSession, name: str, tas: str | None) -> Sequence[Target]:
    """Return the targets of a name, or of a name and target access string."""
    query = select(Target).where(Target.name == name).order_by(Target.id)
    if tas is not None:
        query = query.where(Target.target_access_string == tas)
    return (await session.scalars(query)).all()


async def with_archives_in(session: AsyncSession, folder: str) -> set[int]:
    """Return the ids of the targets that have an archive below a folder of `download.directory`."""
    rows = await session.execute(select(Upload.target_id, Upload.archive_path).where(Upload.archive_path.is_not(None)))
    return {target_id for target_id, path in rows if path and path.startswith(f"{folder}/")}


async def add_target(
    session: AsyncSession,
    *,
    stack: str,
    remote_id: int,
    name: str,
    tas: str,
    open_to_public: bool | None,
    now: datetime,
) -> Target:
    """Record a target that was not seen before."""
    target = Target(stack=stack, remote_id=remote_id, name=name, target_access_string=tas, first_seen_at=now)
    target.open_to_public = open_to_public
    target.followed = target.listed = True
    session.add(target)
    await session.flush()
    say_after_commit(session, "target_recorded", target_id=target.id, remote_id=remote_id)
    return target


async def add_upload(session: AsyncSession, target: Target, key: UploadKey, *, scan_no: int, now: datetime) -> Upload:
    """Record an upload as history; `legs.make_current` gives it its work."""
    upload = Upload(
        target_id=target.id,
        upload_index=key[0],
        committed_at=key[1],
        seen_at=now,
        scan_no=scan_no,
        archive_state="skipped",
        scoring_state="history",
        program_version=__version__,
    )
    session.add(upload)
    await session.flush()
    say_after_commit(
        session,
        "upload_recorded",
        target=target.name,
        target_access_string=target.target_access_string,
        upload_index=key[0],
        committed_at=key[1],
        upload_id=upload.id,
    )
    return upload


async def has_late_rows(session: AsyncSession, upload: Upload, *, since: datetime) -> bool:
    """Say whether a reading after the first one has brought observations since a moment."""
    if upload.extracted_at is None:
        return False
    latest = await session.scalar(select(func.max(Observation.seen_at)).where(Observation.upload_id == upload.id))
    return latest is not None and latest > max(since, upload.extracted_at)
