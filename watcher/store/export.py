"""The scores as rows: one for each observation of each target's current upload, in the columns that others rely on."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from watcher.store.schema import Alias, Batch, BatchItem, Claim, Compound, Observation, Profile, Score, Target, Upload


@dataclass(frozen=True, slots=True)
class Row:
    """One observation and what is known of its compound. Empty means unknown.

    The order of the fields is part of the interface.
    """

    target: Annotated[str, "name of the target"]
    target_access_string: Annotated[str, "its target access string (proposal and visit)"]
    upload_index: Annotated[
        int, "index of the upload whose observation it is: the target's current one, or the newest that is extracted"
    ]
    code: Annotated[str, "code of the observation"]
    compound_code: Annotated[str | None, "code that the depositors gave the compound"]
    smiles_input: Annotated[str, "the SMILES as Fragalysis gave it"]
    smiles: Annotated[str | None, "canonical SMILES without salts and solvents: the very string that is submitted"]
    inchikey: Annotated[str | None, "standard InChIKey of that"]
    disposition: Annotated[str, "`scored`, `no_route`, `pending`, `failed` or `rejected`"]
    reason: Annotated[str | None, "why, for `pending`, `failed` and `rejected`"]
    status: Annotated[str | None, "the vendor's own word for the result"]
    score: Annotated[float | None, "the vendor's `result` as it came, 1 (easy) to 10 (hard; also of a `no_route`)"]
    certainty: Annotated[float | None, "the vendor's certainty, 0 to 1"]
    price_usd: Annotated[float | None, "the vendor's `price`, US dollars"]
    reaction_count: Annotated[int | None, "steps of the route"]
    timed_out: Annotated[bool | None, "whether the vendor's search ran out of time"]
    profile: Annotated[str | None, "scoring profile of the result: a hash of what changes a result"]
    batch_id: Annotated[int | None, "number of the batch in the record (`watcher batches show`)"]
    scored_at: Annotated[datetime | None, "when the result was stored, UTC"]


COLUMNS = tuple(field.name for field in fields(Row))
_DONE = ("scored", "no_route", "failed")
_OF_SCORE = (
    Score.batch_id,
    Score.status,
    Score.result,
    Score.certainty,
    Score.price_usd,
    Score.reaction_count,
    Score.timed_out,
    Score.received_at,
)
"""What the export shows of a result. Routes and the items as they came would fill the memory."""


async def rows(
    session: AsyncSession, *, profile_key: str, target_ids: Iterable[int] | None = None
) -> AsyncIterator[Row]:
    """Yield the export of these targets, or of all, by target name.

    Where the profile in force has no result yet, a result under an earlier profile is shown, named by `profile`.
    """
    wanted = None if target_ids is None else set(target_ids)
    found = await session.scalars(
        select(Target)
        .where(Target.current_upload_id.is_not(None))
        .order_by(Target.name, Target.target_access_string, Target.id)
    )
    for target in found.all():
        if wanted is None or target.id in wanted:
            for row in await _of_target(session, target, profile_key):
                yield row


async def _of_target(session: AsyncSession, target: Target, profile_key: str) -> list[Row]:
    upload = await session.scalar(
        select(Upload)
        .where(Upload.target_id == target.id, Upload.extracted_at.is_not(None))
        .order_by((Upload.id != target.current_upload_id), Upload.committed_at.desc())
        .limit(1)
    )
    if upload is None:
        return []
    standings = await _standings(session, upload.id, profile_key)
    observations = await session.execute(
        select(Observation, Alias, Compound)
        .join(Alias, Alias.id == Observation.alias_id)
        .outerjoin(Compound, Compound.id == Alias.compound_id)
        .where(Observation.upload_id == upload.id)
        .order_by(Observation.code, Observation.remote_id)
    )
    return [
        _row(target, upload, observation, alias, compound, standings.get(alias.compound_id or 0))
        for observation, alias, compound in observations
    ]


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a compound stands: its claim, profile, last score and batch."""

    claim: Claim
    profile: str
    score: Score | None
    batch: Batch | None

    def rank(self, profile_key: str) -> tuple[bool, bool, int]:
        """Order the claims of one compound: those with a result first, then the profile in force, then the newest."""
        done = self.claim.state in _DONE
        return (done, self.profile == profile_key, self.claim.id)


async def _standings(session: AsyncSession, upload_id: int, profile_key: str) -> dict[int, _Standing]:
    compounds = (
        select(Alias.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .where(Observation.upload_id == upload_id, Alias.compound_id.is_not(None))
    )
    # Of several results the last one that says what the claim says; a contradicting one is kept in the record only.
    last_score = (
        select(func.max(Score.id))
        .where(Score.claim_id == Claim.id, Score.kind == Claim.state)
        .correlate(Claim)
        .scalar_subquery()
    )
    last_item = (
        select(func.max(BatchItem.id))
        .where(BatchItem.claim_id == Claim.id, BatchItem.live)
        .correlate(Claim)
        .scalar_subquery()
    )
    found = await session.execute(
        select(Claim, Profile.key, Score, Batch)
        .join(Profile, Profile.id == Claim.profile_id)
        .outerjoin(Score, Score.id == last_score)
        .outerjoin(BatchItem, BatchItem.id == last_item)
        .outerjoin(Batch, Batch.id == func.coalesce(Score.batch_id, BatchItem.batch_id))
        .where(Claim.compound_id.in_(compounds))
        .options(load_only(*_OF_SCORE, raiseload=True), load_only(Batch.id, Batch.state, raiseload=True))
    )
    best: dict[int, _Standing] = {}
    for claim, key, score, batch in found:
        standing = _Standing(claim, key, score, batch)
        other = best.get(claim.compound_id)
        if other is None or standing.rank(profile_key) > other.rank(profile_key):
            best[claim.compound_id] = standing
    return best


def _row(
    target: Target,
    upload: Upload,
    observation: Observation,
    alias: Alias,
    compound: Compound | None,
    standing: _Standing | None,
) -> Row:
    score = standing.score if standing else None
    disposition, reason = _disposition(alias, standing)
    return Row(
        target=target.name,
        target_access_string=target.target_access_string,
        upload_index=upload.upload_index,
        code=observation.code,
        compound_code=observation.compound_code,
        smiles_input=alias.raw,
        smiles=compound.smiles if compound else None,
        inchikey=(compound.inchikey or None) if compound else None,
        disposition=disposition,
        reason=reason,
        status=score.status if score else None,
        score=score.result if score and disposition in ("scored", "no_route") else None,
        certainty=score.certainty if score else None,
        price_usd=score.price_usd if score else None,
        reaction_count=score.reaction_count if score else None,
        timed_out=score.timed_out if score else None,
        profile=standing.profile if standing else None,
        batch_id=standing.batch.id if standing and standing.batch else None,
        scored_at=score.received_at if score else None,
    )


def _disposition(alias: Alias, standing: _Standing | None) -> tuple[str, str | None]:
    if alias.compound_id is None:
        return "rejected", alias.reason
    if standing is None:
        return "pending", "not claimed yet"
    claim = standing.claim
    if claim.state in ("scored", "no_route"):
        return claim.state, None
    if claim.state == "failed":
        return "failed", claim.reason
    if claim.state == "withheld":
        return "pending", f"withheld: {claim.reason}"
    if claim.state == "reserved" and standing.batch is not None:
        return "pending", f"in batch {standing.batch.id}, which is {standing.batch.state}"
    return "pending", "waits to be sent"
