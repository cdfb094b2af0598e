"""What the disk should show, as the record says."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, case, select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.schema import Target, Upload


@dataclass(frozen=True, slots=True)
class Stored:
    """An upload as the disk should show it."""

    name: str
    """How people call it."""
    target_id: int
    remote_id: int
    target: str
    target_access_string: str
    upload_index: int
    committed_at: datetime
    state: str
    path: str | None
    sha256: str | None
    size: int | None
    fetched_again: bool
    """Whether the program fetches it again when it is damaged: the upload counts now."""
    verified: bool
    """Whether it counts now and no check of it is due."""


async def stored_uploads(session: AsyncSession) -> list[Stored]:
    """Return what the record says of every upload on the disk."""
    counts = and_(Target.followed, Target.current_upload_id == Upload.id)
    rows = await session.execute(
        select(Target, Upload, case((counts, 1), else_=0))
        .join(Target, Target.id == Upload.target_id)
        .order_by(Upload.id)
    )
    return [
        Stored(
            name=f"{target.name}@{target.target_access_string} upload {upload.upload_index}",
            target_id=target.id,
            remote_id=target.remote_id,
            target=target.name,
            target_access_string=target.target_access_string,
            upload_index=upload.upload_index,
            committed_at=upload.committed_at,
            state=upload.archive_state,
            path=upload.archive_path,
            sha256=upload.archive_sha256,
            size=upload.archive_size,
            fetched_again=bool(now),
            verified=bool(now) and upload.archive_due_at is None,
        )
        for target, upload, now in rows
    ]
