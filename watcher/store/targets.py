"""Targets and uploads: what a scan records, which upload counts now, and where each leg of it stands."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from watcher import __version__
from watcher.store.schema import Instance, Observation, Target, Upload
from watcher.store.transitions import note, say_after_commit

UploadKey = tuple[int, datetime]
"""Upload index and commit time: what tells the uploads of one target apart."""


async def instance(session: AsyncSession) -> Instance:
    """Return the record's own row."""
    return (await session.scalars(select(Instance))).one()


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
    """Record an upload as history; `make_current` gives it its work."""
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


async def make_current(
    session: AsyncSession, target: Target, upload: Upload | None, *, keep_archive: bool, now: datetime, why: str
) -> None:
    """Move the pointer to the upload that counts now, and give both uploads the states that follow.

    The server builds and lists only the newest state of a target, so an upload that is passed over before its legs
    were done can no longer be had; it is kept as history, and taken up again if the index comes back to it.
    """
    old = await session.get(Upload, target.current_upload_id) if target.current_upload_id else None
    if old is not None:
        if old.archive_state in ("wanted", "unavailable", "quarantined"):
            set_archive_state(session, old, "skipped", now=now, why="passed over by another upload")
        if old.scoring_state in ("detected", "quarantined"):
            set_scoring_state(session, old, "history", now=now, why="passed over by another upload")
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
    why = "the baseline was passed over before all of it was read"
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
    if state != "wanted":
        upload.archive_task = upload.archive_task_at = None


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


async def has_late_rows(session: AsyncSession, upload: Upload, *, since: datetime) -> bool:
    """Say whether a reading after the first one has brought observations since a moment."""
    if upload.extracted_at is None:
        return False
    latest = await session.scalar(select(func.max(Observation.seen_at)).where(Observation.upload_id == upload.id))
    return latest is not None and latest > max(since, upload.extracted_at)


async def due_archives(session: AsyncSession, now: datetime, *states: str) -> Sequence[int]:
    """Return the current uploads in these states whose archive is to be fetched, or verified if it is stored."""
    found = await session.scalars(
        select(Upload.id)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            Upload.archive_state.in_(states),
            Upload.archive_due_at <= now,
        )
        # A build that was asked for comes first, so that its slot at the server is not wasted.
        .order_by(Upload.archive_task.is_(None), Upload.archive_due_at, Upload.id)
    )
    return found.all()


async def due_leftovers(session: AsyncSession, now: datetime) -> Sequence[int]:
    """Return the uploads that were passed over, and of whose archive it is to be found out what was left."""
    return await leftovers(session, Upload.archive_due_at <= now)


async def due_extractions(session: AsyncSession, now: datetime) -> Sequence[int]:
    """Return the current uploads whose observations are to be read: new ones, and those to be read once more."""
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
        )
        .order_by(Upload.id)
    )
    return found.all()


def is_left_over(upload: Upload, target: Target) -> bool:
    """Say whether an upload was passed over while something of its archive lay on the disk."""
    return (
        upload.archive_state == "skipped" and upload.archive_path is not None and target.current_upload_id != upload.id
    )


async def leftovers(session: AsyncSession, *where: ColumnElement[bool]) -> Sequence[int]:
    """Return the uploads that were passed over while something of their archive lay on the disk."""
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
    """Make what was left of archives due for a check, whatever a download that was passed over had put off."""
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
    """Return the current uploads with observations whose archive nobody asked for, as when downloads were off."""
    found = await session.scalars(
        select(Upload)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            Upload.archive_state == "skipped",
            Upload.id.in_(select(Observation.upload_id)),
        )
        .order_by(Upload.id)
    )
    return found.all()


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
