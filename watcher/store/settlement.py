"""What an upload brought, counted at the moment when it is settled."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Select, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from watcher.bands import EASY_BELOW
from watcher.notices import Settled
from watcher.store.schema import Alias, Claim, Observation, Profile, Score, Target, Upload


async def settlement(session: AsyncSession, target: Target, upload: Upload, profile_key: str) -> Settled:
    """Count what this upload brought beyond what was known; of one settled before, what has come since.

    A compound that several uploads of one scan hold counts for the one that was recorded first.
    """
    since = upload.scored_at
    claims = await _claims(session, upload, profile_key, since)
    states = Counter(claim.state for claim in claims)
    scores = await _scores(session, upload, [claim.id for claim in claims if claim.state == "scored"])
    lowest = min(scores, default=None)
    return Settled(
        target=target.name,
        target_access_string=target.target_access_string,
        upload_index=upload.upload_index,
        again=since is not None,
        scored=states["scored"],
        no_route=states["no_route"],
        failed=states["failed"],
        easy=sum(score < EASY_BELOW for score, _ in scores),
        rejected=await _rejected(session, upload, since),
        withheld=Counter(claim.reason or "" for claim in claims if claim.state == "withheld"),
        best=None if lowest is None else (lowest[0], *await _seen_as(session, upload, lowest[1])),
    )


def _compounds_of(upload: Upload) -> Select[int | None]:
    return (
        select(Alias.compound_id)
        .join(Observation, Observation.alias_id == Alias.id)
        .where(Observation.upload_id == upload.id, Alias.compound_id.is_not(None))
    )


async def _claims(session: AsyncSession, upload: Upload, profile_key: str, since: datetime | None) -> list[Claim]:
    """Return the claims that this upload brought."""
    other, other_observation, other_alias = aliased(Upload), aliased(Observation), aliased(Alias)
    earlier_of_the_scan = exists(
        select(other.id)
        .join(other_observation, other_observation.upload_id == other.id)
        .join(other_alias, other_alias.id == other_observation.alias_id)
        .where(other.scan_no == upload.scan_no, other.id < upload.id, other_alias.compound_id == Claim.compound_id)
    )
    query = (
        select(Claim)
        .join(Profile, Profile.id == Claim.profile_id)
        .where(
            Profile.key == profile_key,
            Claim.round == 1,
            Claim.scan_no == upload.scan_no,
            Claim.compound_id.in_(_compounds_of(upload)),
            ~earlier_of_the_scan,
        )
    )
    if since is not None:
        query = query.where(Claim.created_at > since)
    return list(await session.scalars(query))


async def _scores(session: AsyncSession, upload: Upload, claim_ids: Iterable[int]) -> list[tuple[float, int]]:
    """Return the last score of each of these claims, with its compound."""
    wanted = set(claim_ids)
    rows = await session.execute(
        select(Claim.id, Claim.compound_id, Score.result)
        .join(Score, Score.claim_id == Claim.id)
        .where(Score.kind == "scored", Claim.compound_id.in_(_compounds_of(upload)))
        .order_by(Score.id)
    )
    last = {claim_id: (score, compound_id) for claim_id, compound_id, score in rows if claim_id in wanted}
    return [(score, compound_id) for score, compound_id in last.values() if score is not None]


async def _rejected(session: AsyncSession, upload: Upload, since: datetime | None) -> int:
    """Count the observations whose SMILES is no compound, and was not seen before this upload."""
    found = await session.scalar(
        select(func.count())
        .select_from(Observation)
        .join(Alias, Alias.id == Observation.alias_id)
        .where(
            Observation.upload_id == upload.id,
            Alias.reason.is_not(None),
            Alias.created_at >= upload.seen_at if since is None else Alias.created_at > since,
        )
    )
    return found or 0


async def _seen_as(session: AsyncSession, upload: Upload, compound_id: int) -> tuple[str, str]:
    """Return the code of the first observation that shows a compound, and its SMILES as it was uploaded."""
    row = (
        await session.execute(
            select(Observation.code, Alias.raw)
            .join(Alias, Alias.id == Observation.alias_id)
            .where(Observation.upload_id == upload.id, Alias.compound_id == compound_id)
            .order_by(Observation.code)
            .limit(1)
        )
    ).one()
    return row[0], row[1]
