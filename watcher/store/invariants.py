"""What must hold in the record at any moment, and what is found where it does not. It only reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    UniqueConstraint,
    and_,
    exists,
    func,
    inspect,
    or_,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, aliased

from watcher.store.forgotten import READ_BACK
from watcher.store.schema import (
    Alias,
    Base,
    Batch,
    BatchItem,
    Claim,
    Condition,
    Instance,
    Observation,
    Profile,
    Score,
    Target,
    Upload,
    digest,
)
from watcher.store.standing import OPEN
from watcher.store.states import TO_FETCH

RESTORE = (
    "stop the program and restore a backup; batches bought since are read back from the service where it lists them"
)
REPORT = "this is a fault of the program: report it with a copy of the record"
STOP = f"stop the program before it buys anything more; {REPORT}"
UPGRADE = "stop the program and restore a backup: `watcher db upgrade` does not bring back what was taken away"
_SENT = ("submitted", "finished", "collected")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what, and what to do about it."""

    where: str
    what: str
    action: str


async def integrity(session: AsyncSession, *, sqlite: bool) -> list[Finding]:
    """Return what is wrong below the rows: pages and references of SQLite; on both databases, parts of the schema."""
    connection = await session.connection()
    found: list[Finding] = []
    if sqlite:
        try:
            words = (await connection.exec_driver_sql("PRAGMA integrity_check")).scalars().all()
        except DatabaseError as error:
            if isinstance(error, OperationalError):  # it does not answer: no verdict
                raise
            return [Finding("database", f"the database says: {error.orig}", RESTORE)]
        found += [Finding("database", f"the database says: {word}", RESTORE) for word in words if word != "ok"]
        orphans = (await connection.exec_driver_sql("PRAGMA foreign_key_check")).mappings()
        found += [
            Finding(f"{row['table']} {row['rowid']}", f"points at a missing row of {row['parent']}", RESTORE)
            for row in orphans
        ]
    return found + await connection.run_sync(_missing_parts)


def _missing_parts(connection: Connection) -> list[Finding]:
    """Return what the schema should have and has not: without its unique indexes nothing keeps a promise."""
    there = inspect(connection)
    found = []
    for table in Base.metadata.sorted_tables:
        if not there.has_table(table.name):
            found.append(Finding("schema", f"table {table.name} is missing", UPGRADE))
            continue
        columns = {column["name"] for column in there.get_columns(table.name)}
        indexes = {(index["name"], bool(index["unique"])) for index in there.get_indexes(table.name)}
        found += [
            Finding("schema", f"column {table.name}.{column.name} is missing", UPGRADE)
            for column in table.columns
            if column.name not in columns
        ]
        uniques = {one["name"] for one in there.get_unique_constraints(table.name)}
        found += [
            Finding("schema", f"constraint {one.name} is missing", UPGRADE)
            for one in table.constraints
            if isinstance(one, UniqueConstraint) and one.name not in uniques
        ]
        found += [
            Finding("schema", f"index {index.name} is missing, or is not what it should be", UPGRADE)
            for index in table.indexes
            if (index.name, bool(index.unique)) not in indexes
        ]
    return found


def _batches(*where: ColumnElement[bool]) -> Select[Any]:
    return select(Batch.id).where(*where)


def _uploads(*where: ColumnElement[bool]) -> Select[Any]:
    return select(Upload.id).where(*where)


def _in_state(state: str, *columns: InstrumentedAttribute[Any]) -> Select[Any]:
    return _batches(Batch.state == state, or_(*(column.is_(None) for column in columns)))


_live = select(BatchItem.claim_id).where(BatchItem.live)
_waiting = select(BatchItem.batch_id).join(Claim, Claim.id == BatchItem.claim_id).where(BatchItem.live)
_items = select(func.count()).where(BatchItem.batch_id == Batch.id).correlate(Batch).scalar_subquery()
_last = select(func.max(BatchItem.position)).where(BatchItem.batch_id == Batch.id).correlate(Batch).scalar_subquery()
_score = exists().where(Score.claim_id == Claim.id, Score.kind == Claim.state)
_current = Upload.id.in_(select(Target.current_upload_id).where(Target.followed))
_other = aliased(Claim)

RULES: Sequence[tuple[str, str, str, Select[Any]]] = (
    # Claims
    ("claim", "reserved, but in no batch", REPORT, select(Claim.id).where(
        Claim.state == "reserved", Claim.id.not_in(_live))),
    ("claim", "free to be sent, but in a batch already", STOP, select(Claim.id).where(
        Claim.state.in_(OPEN), Claim.id.in_(_live))),
    ("claim", "in two batches at once", STOP, select(BatchItem.claim_id).where(
        BatchItem.live).group_by(BatchItem.claim_id).having(func.count() > 1)),
    ("claim", "ended without a score that says so", REPORT, select(Claim.id).where(
        Claim.state.in_(("scored", "no_route")), ~_score)),
    ("claim", "has a result, but is free to be sent again", STOP, select(Claim.id).where(
        Claim.state.in_(OPEN), exists().where(Score.claim_id == Claim.id))),
    ("claim", "ended with a result, but no batch holds it any more", STOP, select(Claim.id).where(
        Claim.state.in_(("scored", "no_route")), Claim.id.not_in(_live))),
    ("claim", "withheld or failed without a reason", REPORT, select(Claim.id).where(
        Claim.state.in_(("withheld", "failed")), Claim.reason.is_(None))),
    ("claim", "free to be sent under a profile that nobody approved", STOP, select(Claim.id)
        .join(Profile, Profile.id == Claim.profile_id)
        .where(Claim.state == "wanted", Profile.approved_at.is_(None))),
    ("claim", "free to be sent while another profile is in force", STOP, select(Claim.id).where(
        Claim.state == "wanted",
        Claim.changed_at < select(Instance.last_scan_at).scalar_subquery(),  # each scan sets such claims aside
        exists().where(_other.state == "wanted", _other.profile_id > Claim.profile_id))),
    # Batches
    ("batch", "its size does not agree with its items", REPORT, _batches(
        func.coalesce(Batch.outcome, "") != READ_BACK, or_(Batch.size != _items, Batch.size != _last + 1))),
    ("batch", "at the service, but without its id there or the time of it", REPORT, _batches(
        Batch.state.in_((*_SENT, "lost")), or_(Batch.remote_id.is_(None), Batch.submitted_at.is_(None)))),
    ("batch", "would never be looked at again: nothing is due", REPORT, _batches(
        Batch.state.in_(("submitted", "finished", "unconfirmed")), Batch.due_at.is_(None))),
    ("batch", "finished without the time of it", REPORT, _in_state("finished", Batch.finished_at)),
    ("batch", "collected without the times of it", REPORT, _in_state(
        "collected", Batch.finished_at, Batch.collected_at)),
    ("batch", "unconfirmed without the time since when", REPORT, _in_state("unconfirmed", Batch.unconfirmed_at)),
    ("batch", "closed without the time of it", REPORT, _in_state("closed", Batch.closed_at)),
    ("batch", "released without the time of it", REPORT, _in_state("released", Batch.closed_at)),
    ("batch", "closed or released, but holds compounds that wait for it", REPORT, _batches(
        Batch.state.in_(("closed", "released")),
        Batch.id.in_(_waiting.where(Claim.state.in_((*OPEN, "reserved")))))),
    ("batch", "collected, but compounds still wait for it", REPORT, _batches(
        Batch.state == "collected", Batch.id.in_(_waiting.where(Claim.state == "reserved")))),
    # Targets, uploads and their compounds
    ("target", "its current upload belongs to another target, or to none", REPORT, select(Target.id)
        .outerjoin(Upload, Upload.id == Target.current_upload_id)
        .where(Target.current_upload_id.is_not(None), Upload.target_id.is_distinct_from(Target.id))),
    ("upload", "its archive is stored without path, digest or size", "`watcher retry` does not see it: " + REPORT,
     _uploads(Upload.archive_state == "stored", or_(
         Upload.archive_path.is_(None), Upload.archive_sha256.is_(None), Upload.archive_size.is_(None)))),
    ("upload", "its archive is another upload's too", REPORT, select(Upload.id).where(
        Upload.archive_path.in_(select(Upload.archive_path).where(Upload.archive_path.is_not(None))
                                .group_by(Upload.archive_path).having(func.count() > 1)))),
    ("upload", "its archive would never be fetched: nothing is due", REPORT, _uploads(
        _current, Upload.archive_state.in_(TO_FETCH), Upload.archive_due_at.is_(None))),
    ("upload", "a build at the server without the time of it, or the other way round", REPORT, _uploads(
        Upload.archive_task.is_(None) != Upload.archive_task_at.is_(None))),
    ("upload", "would never be read: nothing is due", REPORT, _uploads(
        _current, Upload.scoring_state == "detected", Upload.scoring_due_at.is_(None))),
    ("upload", "extracted or scored without the time of it", REPORT, _uploads(or_(
        and_(Upload.scoring_state.in_(("extracted", "scored")), Upload.extracted_at.is_(None)),
        and_(Upload.scoring_state == "scored", Upload.scored_at.is_(None))))),
    ("upload", "set aside without a reason", "`watcher retry` takes it up again", _uploads(or_(
        and_(Upload.archive_state == "quarantined", Upload.archive_error.is_(None)),
        and_(Upload.scoring_state == "quarantined", Upload.scoring_error.is_(None))))),
    ("observation", "its SMILES has no verdict: neither a compound nor a reason", REPORT, select(Observation.id)
        .outerjoin(Alias, Alias.id == Observation.alias_id)
        .where(or_(Alias.id.is_(None), Alias.compound_id.is_(None) == Alias.reason.is_(None)))),
)  # fmt: skip
"""Kind of row, what is wrong with it, what to do, and the query that finds it."""


async def broken(session: AsyncSession) -> list[Finding]:
    """Return what contradicts itself."""
    found = await broken_rules(session)
    found += await _payloads(session)
    found += await _conditions(session)
    if await session.scalar(select(func.count()).select_from(Instance)) != 1:
        found.append(Finding("instance", "the record has no name of its own at the service", RESTORE))
    return found


async def broken_rules(session: AsyncSession) -> list[Finding]:
    """Return the rows that contradict each other."""
    return [
        Finding(f"{kind} {row_id}", what, action)
        for kind, what, action, query in RULES
        for row_id in await session.scalars(query.distinct())
    ]


async def _payloads(session: AsyncSession) -> list[Finding]:
    rows = await session.stream(select(Batch.id, Batch.payload, Batch.payload_digest))
    return [
        Finding(f"batch {batch_id}", "its payload does not agree with its digest", RESTORE)
        async for batch_id, payload, payload_digest in rows
        if digest(payload) != payload_digest
    ]


async def _conditions(session: AsyncSession) -> list[Finding]:
    """Compare the batches that call for a person with the calls that are open."""
    doubtful = select(Batch.id, Batch.state).where(Batch.state.in_(("unconfirmed", "lost")))
    wanted = {(f"batch {batch_id}", state) for batch_id, state in await session.execute(doubtful)}
    rows = await session.execute(
        select(Condition.subject, Condition.kind).where(
            Condition.until.is_(None), Condition.kind.in_(("unconfirmed", "lost"))
        )
    )
    told = {(subject, kind) for subject, kind in rows}
    return [
        Finding(where, f"{state}, but nobody is told: there is no open condition", f"`watcher batches show`; {REPORT}")
        for where, state in sorted(wanted - told)
    ] + [
        Finding(where, f"an open condition says {kind}, but the batch is not", f"`watcher batches show`; {REPORT}")
        for where, kind in sorted(told - wanted)
    ]
