"""The record as people and dashboards see it: counts, queues, how far each target has come."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from watcher.store.conditions import all_open
from watcher.store.schema import Batch, Claim, Condition, Target, Upload
from watcher.store.states import AT_WORK, TO_FETCH


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows by state."""

    targets: dict[str, int]
    archives: dict[str, int]
    scorings: dict[str, int]
    batches: dict[str, int]
    claims: dict[str, int]
    withheld: dict[str, int]
    """Withheld claims by their reason."""


async def counts(session: AsyncSession) -> Counts:
    """Count targets, both legs of the current uploads and of history, batches and claims by state."""

    async def by(*columns: ColumnElement[Any] | InstrumentedAttribute[Any]) -> list[tuple[Any, ...]]:
        rows = await session.execute(select(*columns, func.count()).group_by(*columns))
        return [tuple(row) for row in rows]

    targets = await by(Target.followed, Target.current_upload_id.is_(None))
    uploads = await by(Upload.archive_state, Upload.scoring_state)
    claims = await by(Claim.state, Claim.reason)
    return Counts(
        targets={
            "followed": sum(n for is_followed, _, n in targets if is_followed),
            "without_upload": sum(n for is_followed, is_empty, n in targets if is_followed and is_empty),
            "not_followed": sum(n for is_followed, _, n in targets if not is_followed),
        },
        archives=_added((archive, n) for archive, _, n in uploads),
        scorings=_added((scoring, n) for _, scoring, n in uploads),
        batches=_added(await by(Batch.state)),
        claims=_added((state, n) for state, _, n in claims),
        withheld=_added((reason, n) for state, reason, n in claims if state == "withheld"),
    )


def _added(counted: Iterable[tuple[Any, ...]]) -> dict[str, int]:
    """Add up counts with the same name, by name."""
    sums = Counter[str]()
    for name, number in counted:
        sums[name] += number
    return dict(sorted(sums.items()))


async def needs_attention(session: AsyncSession) -> Sequence[Condition]:
    """Return what is not well, the oldest first."""
    return await all_open(session)


@dataclass(frozen=True, slots=True)
class Pending:
    """How many units wait for a stage, and when the oldest of them was recorded."""

    units: int
    since: datetime | None


async def pending(session: AsyncSession, *, archives: bool = True) -> dict[str, Pending]:
    """Return what waits for each stage with a queue: uploads, claims or batches. Without `archives` none is fetched.

    Nothing is fetched or read of a target that is not listed: that waits for no stage.
    """
    columns = (Target.listed, Upload.archive_state, Upload.scoring_state)
    uploads = (
        await session.execute(
            select(*columns, func.count(), func.min(Upload.seen_at))
            .join(Target, Target.current_upload_id == Upload.id)
            .where(Target.followed)
            .group_by(*columns)
        )
    ).all()
    under_way = Batch.state.in_(("submitting", "unconfirmed", "submitted", "finished"))
    batches = (
        await session.execute(
            select(Batch.state, func.count(), func.min(Batch.created_at)).where(under_way).group_by(Batch.state)
        )
    ).all()
    wanted = (
        await session.execute(select(func.count(), func.min(Claim.created_at)).where(Claim.state == "wanted"))
    ).all()

    def waiting(rows: Iterable[tuple[int, datetime | None]]) -> Pending:
        found = [(units, since) for units, since in rows if since is not None]
        return Pending(sum(units for units, _ in found), min((since for _, since in found), default=None))

    return {
        "download": waiting(
            (n, at) for listed, archive, _, n, at in uploads if archives and listed and archive in TO_FETCH
        ),
        "extract": waiting((n, at) for listed, _, scoring, n, at in uploads if listed and scoring == "detected"),
        "submit": waiting((n, at) for n, at in wanted),
        "reconcile": waiting((n, at) for state, n, at in batches if state in ("submitting", "unconfirmed")),
        "collect": waiting((n, at) for state, n, at in batches if state in AT_WORK),
        "finish": waiting((n, at) for _, _, scoring, n, at in uploads if scoring == "extracted"),
    }


async def oldest_pending(session: AsyncSession, *, archives: bool = True) -> dict[str, datetime | None]:
    """Return, for each stage with a queue, when the oldest unit that waits for it was recorded."""
    return {stage: queue.since for stage, queue in (await pending(session, archives=archives)).items()}


async def followed(session: AsyncSession) -> int:
    """Count the targets that are followed."""
    return await session.scalar(select(func.count()).select_from(Target).where(Target.followed)) or 0


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a followed target has come."""

    name: str
    target_access_string: str
    last_success_at: datetime | None
    remote_index: int | None
    recorded_index: int | None


async def marks(session: AsyncSession) -> list[Mark]:
    """Return how far each followed target has come; read as columns, for this is asked at every scrape."""
    rows = await session.execute(
        select(
            Target.name,
            Target.target_access_string,
            Target.last_success_at,
            Target.remote_index,
            Upload.upload_index,
        )
        .outerjoin(Upload, Upload.id == Target.current_upload_id)
        .where(Target.followed)
    )
    return [Mark(*row) for row in rows]


async def targets_with_current(session: AsyncSession) -> Sequence[tuple[Target, Upload | None]]:
    """Return every target with the upload that counts now, by name."""
    rows = await session.execute(
        select(Target, Upload)
        .outerjoin(Upload, Upload.id == Target.current_upload_id)
        .order_by(Target.name, Target.target_access_string, Target.id)
    )
    return [(row[0], row[1]) for row in rows]
