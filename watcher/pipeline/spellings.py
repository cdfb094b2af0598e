"""Compounds that are stored under another spelling: another RDKit may write the SMILES of a molecule differently."""

from collections.abc import Mapping
from dataclasses import dataclass

from watcher.pipeline.stage import Context
from watcher.store import compounds
from watcher.store.engine import Session


@dataclass(frozen=True, slots=True)
class Spellings:
    """What the record has of some molecules, as the chemistry of today sees it."""

    compound_of: Mapping[str, int]
    """Id by canonical SMILES, of those that are stored under another spelling only."""
    compared: frozenset[int]
    """The compounds that were held against them."""

    async def hold(self, session: Session, found: Mapping[str, str]) -> bool:
        """Say whether they still hold: no compound came since that may be one of these, as `find_spellings` had them.

        Asked within the transaction that rests on it.
        """
        candidates = await compounds.other_spellings(session, found)
        return self.compared.issuperset(one.id for group in candidates.values() for one in group)


async def find_spellings(context: Context, found: Mapping[str, str]) -> Spellings:
    """Find the molecules that are stored under another spelling; `found` maps canonical SMILES to InChIKey."""
    async with context.store.read() as session:
        candidates = await compounds.other_spellings(session, found)
    stored = [compound for group in candidates.values() for compound in group]
    today = await context.chemistry.canonical([compound.smiles for compound in stored])
    return Spellings(
        {spelling: compound.id for spelling, compound in zip(today, stored, strict=True) if spelling},
        frozenset(compound.id for compound in stored),
    )
