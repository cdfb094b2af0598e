"""Which upload of a target counts now, and where each leg of it stands."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from watcher import __version__
from watcher.store.schema import Target, Upload
from watcher.store.transitions import note


async def make_current(
    session: AsyncSession, target: Target, upload: Upload | None, *, keep_archive: bool, now: datetime, why: str
) -> None:
    """Move the pointer to the upload that counts now, and give both uploads the states that follow.

    The server builds and lists only the newest state of a target, so an upload that is superseded before its legs
    were done can no longer be had; it is kept as history, and taken up again if the index comes back to it.
    """
    old = await session.get(Upload, target.current_upload_id) if target.current_upload_id else None
    if old is not None:
        if old.archive_state in ("wanted", "unavailable", "quarantined"):
            set_archive_state(session, old, "skipped", now=now, why="superseded by another upload")
        if old.scoring_state in ("detected", "quarantined"):
            set_scoring_state(session, old, "history", now=now, why="superseded by another upload")
    target.current_upload_id = upload.id if upload else None
    note(
        session,
        "target",
        target.id,
        "current_upload_index",
        old.upload_index if old else None,
        upload.upload_index if upload else None,
        at=now,
        why=why,
    )
    if upload is None:
        return
    if upload.archive_state == "stored":
        upload.archive_due_at = now  # checked against its digest, and `current` pointed at it
    elif keep_archive:
        set_archive_state(session, upload, "wanted", now=now, why=why)
    if upload.scoring_state == "history":
        set_scoring_state(session, upload, "detected", now=now, why=why)
    await _move_baseline(session, target, upload, now)


async def _move_baseline(session: AsyncSession, target: Target, upload: Upload, now: datetime) -> None:
    """Let the baseline end with a later upload if the one it ended with can no longer be read.

    What that one held cannot be told from what is new then; nothing is bought unasked, and a person can approve it.
    """
    if target.baseline_upload_id is None:
        return
    baseline = await session.get_one(Upload, target.baseline_upload_id)
    if _is_read(baseline) or upload.committed_at <= baseline.committed_at:
        return
    old, new = baseline.upload_index, upload.upload_index
    why = "the baseline was superseded before all of it was read"
    note(session, "target", target.id, "baseline_upload_index", old, new, at=now, why=why)
    target.baseline_upload_id = upload.id


def _is_read(upload: Upload) -> bool:
    """Say whether all that an upload holds was read: twice, or when it was older than late rows are waited for."""
    if upload.extracted_at is None or upload.settle_due_at is None:
        return upload.extracted_at is not None
    settle = upload.settle_due_at - upload.extracted_at
    return upload.committed_at + settle <= upload.extracted_at


def set_archive_state(
    session: AsyncSession,
    upload: Upload,
    state: str,
    *,
    now: datetime,
    why: str,
    due_at: datetime | None = None,
    error: str | None = None,
    who: str = "watcher",
) -> None:
    """Change the state of the archive leg. Without `due_at` it is due at once where there is something to do."""
    note(session, "upload", upload.id, "archive", upload.archive_state, state, at=now, why=why, who=who)
    upload.archive_state = state
    upload.archive_error = error
    upload.archive_due_at = due_at or (now if state == "wanted" else None)
    upload.program_version = __version__
    if state in ("wanted", "stored"):
        upload.archive_attempts = 0
        upload.archive_undecodable = 0
    upload.archive_task = upload.archive_task_at = None  # a build of before lacks what it is wanted for


def set_scoring_state(
    session: AsyncSession,
    upload: Upload,
    state: str,
    *,
    now: datetime,
    why: str,
    error: str | None = None,
    who: str = "watcher",
) -> None:
    """Change the state of the scoring leg; `detected` is due at once."""
    note(session, "upload", upload.id, "scoring", upload.scoring_state, state, at=now, why=why, who=who)
    upload.scoring_state = state
    upload.scoring_error = error
    upload.scoring_due_at = now if state == "detected" else None
    upload.scoring_attempts = 0
    upload.program_version = __version__
