"""Batches that were read back, as after a restore: which compounds they hold is told by their results alone."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from watcher.chemistry_records import Identity, Rejection
from watcher.errors import Ours
from watcher.molecule_one import ResultItem
from watcher.pipeline.spellings import Spellings, find_spellings
from watcher.pipeline.stage import Context
from watcher.store import batches, compounds, forgotten
from watcher.store.compounds import Verdict
from watcher.store.conditions import open_condition
from watcher.store.engine import Session
from watcher.store.instance import instance
from watcher.store.schema import Batch, Condition
from watcher.store.states import AT_WORK

_TRIES = 5
"""Failures in a row after which it goes on without what the chemistry cannot judge."""


async def attach(context: Context, batch: Batch, results: Sequence[ResultItem]) -> Mapping[str, int]:
    """Find the compounds that the results of a batch show, so that they are not bought again.

    Returns the claim by string shown: a molecule may be stored under another spelling than the one that was sent, where
    another RDKit reads the uploads now. Raises Ours when the chemistry could not judge one of them for want of memory.
    """
    shown = sorted({item.smiles for item in results if item.smiles})
    async with context.store.read() as session:
        stored = await compounds.by_smiles(session, shown)
    unknown = [smiles for smiles in shown if smiles not in stored]
    verdicts = await context.chemistry.identify(unknown)
    in_doubt = sum(isinstance(one, Rejection) and one.in_doubt for one in verdicts)
    if in_doubt and batch.attempts < _TRIES:
        raise Ours(
            f"the chemistry could not judge {in_doubt} strings of batch {batch.remote_id}, which is read back: "
            "this machine may be short of memory"
        )
    molecules = {raw: one for raw, one in zip(unknown, verdicts, strict=True) if isinstance(one, Identity)}
    found = {one.smiles: one.inchikey for one in molecules.values()}
    claims = None
    while claims is None:
        claims = await _record(context, batch.id, shown, molecules, await find_spellings(context, found))
    return claims


async def _record(
    context: Context, batch_id: int, shown: Sequence[str], molecules: Mapping[str, Identity], spellings: Spellings
) -> Mapping[str, int] | None:
    """Attach what is shown; None if a compound came meanwhile that may be one of it under another spelling."""
    now = context.clock.now()
    async with context.store.write() as session:
        if not await spellings.hold(session, {one.smiles: one.inchikey for one in molecules.values()}):
            return None
        batch = await batches.get(session, batch_id)
        if batch.state not in AT_WORK:  # released meanwhile
            return {}
        stored = await compounds.by_smiles(session, [*shown, *(one.smiles for one in molecules.values())])
        compound_of = {smiles: stored[smiles] for smiles in shown if smiles in stored}
        new: dict[str, Verdict] = {}  # by today's spelling: what two strings show is one compound
        for raw, one in molecules.items():
            known = stored.get(raw) or stored.get(one.smiles) or spellings.compound_of.get(one.smiles)
            if known is not None:
                compound_of[raw] = known
            else:
                new.setdefault(one.smiles, _as_sent(raw, one))
        added = await compounds.add_compounds(session, list(new.values()), now=now)
        for raw, one in molecules.items():
            if raw not in compound_of:
                compound_of[raw] = added[new[one.smiles].raw]
        scan_no = (await instance(session)).scan_no
        claim_of = await forgotten.attach(session, batch, sorted(compound_of.values()), scan_no=scan_no, now=now)
        return {smiles: claim_of[compound_id] for smiles, compound_id in compound_of.items()}


def _as_sent(raw: str, one: Identity) -> Verdict:
    """Keep what was submitted as the compound's SMILES, also where today's spelling is another."""
    return Verdict(raw, smiles=raw, inchikey=one.inchikey, heavy_atoms=one.heavy_atoms, sa_score=one.sa_score)


async def call_for_help(session: Session, batch: Batch, *, known: int, size: int, now: datetime) -> Condition:
    """Say that a batch that was read back keeps a part of its compounds to itself, which holds everything back."""
    return await open_condition(
        session,
        f"batch {batch.id}",
        "read_back",
        reason=f"the service shows {known} of {f'the {size}' if size else 'an unknown number of'} compounds of batch "
        f"{batch.remote_id}, which was read back; nothing is sent, for the others could be bought again",
        action="wait while the service works on it, else ask Molecule.one; "
        f"`watcher batches release {batch.id}` goes on without the others, and buys again what has no result yet",
        now=now,
    )
