"""The tables as SQLAlchemy models; the sum of the migrations equals them, and a test says so.

Uniqueness is what keeps the promises: a live batch item is unique per claim (`uq_batch_item_live`), so a compound
cannot be bought twice, whatever the code does. Long texts are unique through their digest, because PostgreSQL limits
the length of what an index holds.
"""

import hashlib
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from watcher.store.states import ARCHIVE_STATES, BATCH_STATES, CLAIM_STATES, SCORING_STATES
from watcher.store.types import AnyText, UtcDateTime

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

_WholeNumber = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER


def digest(value: str) -> str:
    """SHA-256 of a text in hex, also of one with lone surrogates."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _one_of(column: str, allowed: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in allowed)})", name=column)


class Base(DeclarativeBase):
    """Base of all models."""

    metadata = MetaData(naming_convention=_NAMING)
    type_annotation_map = {str: AnyText, datetime: UtcDateTime, int: _WholeNumber}  # noqa: RUF012 - read by SQLAlchemy


class Instance(Base):
    """This record itself, one row: its name at the vendor and what a scan needs to remember."""

    __tablename__ = "instance"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    """Random; every batch of this record is named `watcher/<name>/<token>` at the vendor."""
    created_at: Mapped[datetime]
    program_version: Mapped[str]
    """The version that started on it, or brought it up to date, last."""
    scan_no: Mapped[int] = mapped_column(default=0)
    last_scan_at: Mapped[datetime | None]
    scan_due_at: Mapped[datetime | None]
    scan_attempts: Mapped[int] = mapped_column(default=0)


class Target(Base):
    """A target on one stack. Its remote id is the key: names repeat and change."""

    __tablename__ = "target"
    __table_args__ = (UniqueConstraint("stack", "remote_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    stack: Mapped[str]
    remote_id: Mapped[int]
    name: Mapped[str]
    target_access_string: Mapped[str]
    open_to_public: Mapped[bool | None]
    followed: Mapped[bool] = mapped_column(default=True)
    listed: Mapped[bool] = mapped_column(default=True)
    first_seen_at: Mapped[datetime]
    remote_index: Mapped[int | None]
    current_upload_id: Mapped[int | None]
    """The upload that counts now. No foreign key: the two tables would need each other to exist first."""
    baseline_upload_id: Mapped[int | None]
    """What this upload and those before it hold is recorded without buying (`first_seen = "baseline"`)."""
    last_success_at: Mapped[datetime | None]


class Upload(Base):
    """One upload seen. An index can go down and be reused, so the commit time belongs to the key."""

    __tablename__ = "upload"
    __table_args__ = (
        UniqueConstraint("target_id", "upload_index", "committed_at"),
        _one_of("archive_state", ARCHIVE_STATES),
        _one_of("scoring_state", SCORING_STATES),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("target.id"))
    upload_index: Mapped[int]
    committed_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    scan_no: Mapped[int]

    archive_state: Mapped[str]
    archive_due_at: Mapped[datetime | None]
    archive_attempts: Mapped[int] = mapped_column(default=0)
    archive_undecodable: Mapped[int] = mapped_column(default=0)
    """Whole archives in a row that could not be decoded."""
    archive_error: Mapped[str | None]
    archive_task: Mapped[str | None]
    """Path of the build under way at the server, so that a restart waits for it instead of asking for another."""
    archive_task_at: Mapped[datetime | None]
    archive_path: Mapped[str | None]
    """Relative to `download.directory`. Of one that is not stored: what may lie there of it, until it is removed."""
    archive_sha256: Mapped[str | None]
    archive_size: Mapped[int | None]
    archive_verified_at: Mapped[datetime | None]

    scoring_state: Mapped[str] = mapped_column(index=True)
    scoring_due_at: Mapped[datetime | None]
    scoring_attempts: Mapped[int] = mapped_column(default=0)
    scoring_error: Mapped[str | None]
    extracted_at: Mapped[datetime | None]
    settle_due_at: Mapped[datetime | None]
    scored_at: Mapped[datetime | None]
    program_version: Mapped[str]
    """The version that worked on it last; a newer one takes up what was quarantined."""


class Compound(Base):
    """One chemical identity. `smiles` is what is submitted, forever, as it was first stored."""

    __tablename__ = "compound"

    id: Mapped[int] = mapped_column(primary_key=True)
    smiles: Mapped[str]
    smiles_digest: Mapped[str] = mapped_column(unique=True)
    inchikey: Mapped[str] = mapped_column(index=True)
    heavy_atoms: Mapped[int]
    sa_score: Mapped[float | None]
    created_at: Mapped[datetime]


class Alias(Base):
    """One raw SMILES ever seen: its compound, or the reason why it has none."""

    __tablename__ = "alias"
    __table_args__ = (CheckConstraint("(compound_id IS NULL) <> (reason IS NULL)", name="one_verdict"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    raw: Mapped[str]
    raw_digest: Mapped[str] = mapped_column(unique=True)
    compound_id: Mapped[int | None] = mapped_column(ForeignKey("compound.id"), index=True)
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    removed: Mapped[str | None]
    """Salts and solvents split off, separated by a comma."""
    cxsmiles: Mapped[str | None]
    chemistry: Mapped[str]
    """Version and limits of the chemistry that judged; a rejection is judged again when they change."""
    created_at: Mapped[datetime]


class Observation(Base):
    """One observation in one upload."""

    __tablename__ = "observation"
    __table_args__ = (UniqueConstraint("upload_id", "remote_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    upload_id: Mapped[int] = mapped_column(ForeignKey("upload.id"))
    remote_id: Mapped[int]
    code: Mapped[str]
    longcode: Mapped[str]
    compound_code: Mapped[str | None]
    alias_id: Mapped[int] = mapped_column(ForeignKey("alias.id"), index=True)
    seen_at: Mapped[datetime]


class Profile(Base):
    """One way of scoring; results under different profiles are different purchases."""

    __tablename__ = "profile"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    api_version: Mapped[str]
    normalised: Mapped[str]
    created_at: Mapped[datetime]
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None]
    resumed_after: Mapped[int | None]
    """The last batch when a person last let submissions go on; by number, because a clock can be set back."""


class Claim(Base):
    """One compound to be scored under one profile. A round after the first is a further purchase."""

    __tablename__ = "claim"
    __table_args__ = (
        UniqueConstraint("compound_id", "profile_id", "round"),
        CheckConstraint("round = 1 OR asked_by IS NOT NULL", name="further_round_is_asked_for"),
        _one_of("state", CLAIM_STATES),
        Index("ix_claim_state", "state", "profile_id", "reason"),  # asked every few seconds
        Index("ix_claim_counted_in", "counted_in"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    compound_id: Mapped[int] = mapped_column(ForeignKey("compound.id"))
    profile_id: Mapped[int] = mapped_column(ForeignKey("profile.id"))
    round: Mapped[int] = mapped_column(default=1)
    state: Mapped[str]
    reason: Mapped[str | None]
    """Why it is withheld, or the vendor's words when it failed."""
    scan_no: Mapped[int]
    """The scan that brought it."""
    counted_in: Mapped[int | None]
    """The scan whose limit was applied to it; empty while something else holds it back."""
    over_scan_limit: Mapped[bool] = mapped_column(default=False)
    approved_at: Mapped[datetime | None]
    approved_by: Mapped[str | None]
    refused_in: Mapped[str | None]
    """The half of a refused batch it is to be sent in, as `<batch id>:<half>`."""
    asked_by: Mapped[str | None]
    asked_why: Mapped[str | None]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]


class Batch(Base):
    """One Molecule.one batch: the intent, the exact payload, and what became of it."""

    __tablename__ = "batch"
    __table_args__ = (
        _one_of("state", BATCH_STATES),
        Index("ix_batch_state", "state", "due_at"),  # asked every few seconds
        Index("ix_batch_sent_at", "sent_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)
    profile_id: Mapped[int] = mapped_column(ForeignKey("profile.id"))
    state: Mapped[str]
    reason: Mapped[str | None]
    size: Mapped[int]
    payload: Mapped[str]
    payload_digest: Mapped[str]
    refused_in: Mapped[str | None]
    """Set when this batch is one half of a refused one."""
    remote_id: Mapped[str | None] = mapped_column(unique=True)
    answer: Mapped[str | None]
    """The answer to the purchase as it came, or what came instead."""
    outcome: Mapped[str | None]
    """What the answer was taken for, see `watcher.molecule_one.outcome`."""
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime]
    """Time of the intent; the daily limit counts from here."""
    submitted_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    collected_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    unconfirmed_at: Mapped[datetime | None]
    due_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    """Looks in a row that failed or proved nothing. Above 0, the service does not count as at work on the batch."""
    looks: Mapped[int] = mapped_column(default=0)
    """At whole listings while unconfirmed or refused, at unchanged counts while submitted, for missing results once
    finished."""
    queued: Mapped[int | None]
    running: Mapped[int | None]
    finished: Mapped[int | None]
    error: Mapped[int | None]


class BatchItem(Base):
    """One claim at one place of one batch."""

    __tablename__ = "batch_item"
    __table_args__ = (
        UniqueConstraint("batch_id", "position"),
        # Paid once: at most one live item for a claim, whatever the code does.
        Index("uq_batch_item_live", "claim_id", unique=True, sqlite_where=text("live"), postgresql_where=text("live")),
        Index("ix_batch_item_claim_id", "claim_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batch.id"))
    position: Mapped[int]
    claim_id: Mapped[int] = mapped_column(ForeignKey("claim.id"))
    live: Mapped[bool] = mapped_column(default=True)


class Score(Base):
    """One result as it came; rows are only ever added."""

    __tablename__ = "score"
    __table_args__ = (UniqueConstraint("batch_id", "raw_digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batch.id"))
    claim_id: Mapped[int | None] = mapped_column(ForeignKey("claim.id"), index=True)
    """Empty for a result that the batch did not ask for."""
    kind: Mapped[str]
    smiles: Mapped[str]
    status: Mapped[str]
    result: Mapped[float | None]
    certainty: Mapped[float | None]
    price_usd: Mapped[float | None]
    reaction_count: Mapped[int | None]
    timed_out: Mapped[bool | None]
    route: Mapped[str | None]
    raw: Mapped[str]
    raw_digest: Mapped[str]
    received_at: Mapped[datetime]


class ForeignBatch(Base):
    """A batch at the vendor that is certainly not ours, so that no later look asks for its results again."""

    __tablename__ = "foreign_batch"

    remote_id: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


class Condition(Base):
    """Something that is not well, from its first to its last moment."""

    __tablename__ = "condition"
    __table_args__ = (
        Index(
            "uq_condition_open",
            "subject",
            "kind",
            unique=True,
            sqlite_where=text("until IS NULL"),
            postgresql_where=text("until IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str]
    kind: Mapped[str]
    reason: Mapped[str]
    action: Mapped[str]
    since: Mapped[datetime]
    until: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=1)
    retry_at: Mapped[datetime | None]
    """A service is left alone until then."""


class Transition(Base):
    """Who changed the state of a target, upload or batch, when and why; of a claim, only that it failed."""

    __tablename__ = "transition"
    __table_args__ = (Index("ix_transition_entity", "entity", "entity_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    entity: Mapped[str]
    entity_id: Mapped[int]
    field: Mapped[str]
    old: Mapped[str | None]
    new: Mapped[str | None]
    at: Mapped[datetime]
    who: Mapped[str]
    why: Mapped[str]


class Outbox(Base):
    """One message to one address, written with the change that it tells of."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index(
            "ix_outbox_waiting",  # asked every few seconds
            "due_at",
            sqlite_where=text("sent_at IS NULL"),
            postgresql_where=text("sent_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[int]
    """The entry of `notify.urls`, counted from 1: the URL itself is a secret."""
    event: Mapped[str]
    condition_id: Mapped[int | None] = mapped_column(index=True)
    """The condition that it tells of. No foreign key: a condition that is over may be removed first."""
    subject: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    begun_at: Mapped[datetime | None]
    """When the sending under way began. Set and not sent after a crash: nobody knows whether it was sent."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Failures of its address in a row; 0 before it is tried."""
    error: Mapped[str | None]
    sent_at: Mapped[datetime | None]
