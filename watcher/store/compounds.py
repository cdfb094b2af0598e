"""Compounds, the raw SMILES that lead to them, and the observations of an upload."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from watcher.store.chunks import chunks
from watcher.store.schema import Alias, Compound, Observation, Target, Upload, digest


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the chemistry found out about one raw SMILES: the compound it is, or the reason why it is none."""

    raw: str
    smiles: str | None = None
    inchikey: str = ""
    heavy_atoms: int = 0
    sa_score: float | None = None
    removed: str | None = None
    reason: str | None = None
    detail: str | None = None
    cxsmiles: str | None = None
    in_doubt: bool = False
    """Whether it is to be judged again at the next reading."""
    compound_id: int | None = None
    """Set when it is a compound that is stored under another spelling."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation as it is to be recorded."""

    remote_id: int
    code: str
    longcode: str
    compound_code: str | None
    raw: str


async def unjudged(session: AsyncSession, raws: Sequence[str], chemistry: str) -> list[str]:
    """Return the raw SMILES without a verdict, or rejected by another chemistry than today's, each once."""
    wanted = {digest(raw): raw for raw in raws}
    for chunk in chunks(list(wanted)):
        settled = await session.scalars(
            select(Alias.raw_digest).where(
                Alias.raw_digest.in_(chunk), Alias.compound_id.is_not(None) | (Alias.chemistry == chemistry)
            )
        )
        for done in settled:
            del wanted[done]
    return list(wanted.values())


async def rejected_by_another(session: AsyncSession, chemistry: str) -> Sequence[Upload]:
    """Return the current uploads that hold a SMILES rejected by another chemistry than today's.

    Without those that are to be read anyway; it is judged again then.
    """
    rejected = (
        select(Observation.upload_id)
        .join(Alias, Alias.id == Observation.alias_id)
        .where(Alias.reason.is_not(None), Alias.chemistry.not_in((chemistry, "")))
    )
    found = await session.scalars(
        select(Upload)
        .join(Target, Target.current_upload_id == Upload.id)
        .where(
            Target.followed,
            Target.listed,
            Upload.scoring_state.in_(("extracted", "scored")),
            Upload.settle_due_at.is_(None),
            Upload.id.in_(rejected),
        )
        .order_by(Upload.id)
    )
    return found.all()


async def other_spellings(session: AsyncSession, found: Mapping[str, str]) -> dict[str, list[Compound]]:
    """Return, for each canonical SMILES that is not stored, the stored compounds that share its InChIKey.

    `found` maps canonical SMILES to InChIKey. Whether they are the same is for the chemistry to say.
    """
    missing = dict(found)
    by_digest = {digest(smiles): smiles for smiles in found}
    for chunk in chunks(list(by_digest)):
        stored = await session.scalars(select(Compound.smiles_digest).where(Compound.smiles_digest.in_(chunk)))
        for done in stored:
            missing.pop(by_digest[done], None)
    spellings: dict[str, list[str]] = {}
    for smiles, key in missing.items():
        if key:
            spellings.setdefault(key, []).append(smiles)
    candidates: dict[str, list[Compound]] = {}
    for chunk in chunks(sorted(spellings)):
        for compound in await session.scalars(select(Compound).where(Compound.inchikey.in_(chunk))):
            for smiles in spellings[compound.inchikey]:
                candidates.setdefault(smiles, []).append(compound)
    return candidates


async def record_verdicts(session: AsyncSession, verdicts: Sequence[Verdict], *, chemistry: str, now: datetime) -> None:
    """Store what the chemistry found: compounds first seen here are added, stored ones keep their SMILES."""
    compounds = await add_compounds(session, [one for one in verdicts if one.compound_id is None], now=now)
    aliases: dict[str, Alias] = {}
    for chunk in chunks([digest(one.raw) for one in verdicts]):
        for alias in await session.scalars(select(Alias).where(Alias.raw_digest.in_(chunk))):
            aliases[alias.raw_digest] = alias
    for one in verdicts:
        key = digest(one.raw)
        alias = aliases.get(key) or Alias(raw=one.raw, raw_digest=key, created_at=now)
        if alias.compound_id is not None:
            continue  # a verdict that names a compound stands
        alias.compound_id = one.compound_id if one.smiles is None else one.compound_id or compounds[one.smiles]
        alias.reason = one.reason
        alias.detail = one.detail
        alias.removed = one.removed
        alias.cxsmiles = one.cxsmiles
        alias.chemistry = "" if one.in_doubt else chemistry
        aliases[key] = alias
        session.add(alias)
    await session.flush()


async def add_compounds(session: AsyncSession, verdicts: Sequence[Verdict], *, now: datetime) -> dict[str, int]:
    """Return the compound ids by canonical SMILES; compounds that are not stored yet are added."""
    wanted = {one.smiles: one for one in verdicts if one.smiles is not None}
    found = await by_smiles(session, list(wanted))
    new = [
        Compound(
            smiles=smiles,
            smiles_digest=digest(smiles),
            inchikey=one.inchikey,
            heavy_atoms=one.heavy_atoms,
            sa_score=one.sa_score,
            created_at=now,
        )
        for smiles, one in wanted.items()
        if smiles not in found
    ]
    session.add_all(new)
    await session.flush()
    return found | {compound.smiles: compound.id for compound in new}


async def record_observations(session: AsyncSession, upload_id: int, seen: Sequence[Seen], *, now: datetime) -> int:
    """Store the observations of an upload; returns how many are new. None is ever taken away."""
    aliases: dict[str, int] = {}
    for chunk in chunks(sorted({digest(one.raw) for one in seen})):
        rows = await session.execute(select(Alias.raw_digest, Alias.id).where(Alias.raw_digest.in_(chunk)))
        aliases |= dict(rows.all())
    stored = {
        observation.remote_id: observation
        for observation in await session.scalars(select(Observation).where(Observation.upload_id == upload_id))
    }
    added = 0
    for one in seen:
        observation = stored.get(one.remote_id)
        if observation is None:
            observation = Observation(upload_id=upload_id, remote_id=one.remote_id, seen_at=now)
            session.add(observation)
            stored[one.remote_id] = observation
            added += 1
        observation.code = one.code
        observation.longcode = one.longcode
        observation.compound_code = one.compound_code
        observation.alias_id = aliases[digest(one.raw)]
    await session.flush()
    return added


async def by_smiles(session: AsyncSession, smiles: Sequence[str]) -> dict[str, int]:
    """Return the ids of stored compounds by their SMILES."""
    found: dict[str, int] = {}
    for chunk in chunks([digest(one) for one in smiles]):
        rows = await session.execute(select(Compound.smiles, Compound.id).where(Compound.smiles_digest.in_(chunk)))
        found |= dict(rows.all())
    return found
