"""What the vendor makes of a molecule: valid or not, its score, its route. Made of the string alone: never changing."""

from dataclasses import dataclass
from typing import Any

from watcher.sandbox.catalogue import VendorNotes
from watcher.sandbox.chance import shuffled, unit

# Real chemicals anyone can buy; the sandbox plans no chemistry, its routes only have the right form.
_BUILDING_BLOCKS = (
    "OC(=O)c1ccccc1", "NCc1ccccc1", "Nc1ccccc1", "O=Cc1ccccc1", "OB(O)c1ccccc1", "CC(=O)Cl", "BrCc1ccccc1", "C1COCCN1",
    "CS(=O)(=O)Cl", "OCCBr", "NCCO", "C1CCNCC1",
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One result before it is written in a dialect."""

    status: str
    result: float
    certainty: float | None = None
    price: float | None = None
    reactions: int | None = None
    timed_out: bool = False


class Vendor:
    """The vendor's opinions; tests may add to `invalid`, `scores`, `no_pathway` and `errors`."""

    def __init__(self, notes: VendorNotes) -> None:
        self.scores = dict(notes.scores)
        self.refuses = set(notes.refuses)
        self.invalid: set[str] = set()
        self.no_pathway = set(notes.no_pathway)
        self.errors = set(notes.errors)
        self.timed_out = set(notes.timed_out)

    def is_invalid(self, smiles: str) -> bool:
        """Say whether the string is no molecule to the vendor: empty, on the bad list, or with a refused part."""
        return not smiles.strip() or smiles in self.invalid or any(part in smiles for part in self.refuses)

    def fails(self, smiles: str) -> bool:
        """Say whether the search for this string ends in an error."""
        return smiles in self.errors or self.is_invalid(smiles)

    def verdict(self, smiles: str) -> Verdict:
        """Return the result of a finished search."""
        if self.fails(smiles):
            return Verdict("error", -1)
        if smiles in self.no_pathway:
            return Verdict("ok", 10)
        score = self.scores.get(smiles) or round(1 + 9 * unit("score", smiles), 3)
        return Verdict(
            status="ok",
            result=score,
            certainty=round(1 - (score - 1) / 12 - 0.1 * unit("certainty", smiles), 4),
            price=round(4 * 1.7**score * (0.5 + unit("price", smiles)), 2),
            reactions=max(0, round(score * 1.4 - 1.5)),
            timed_out=smiles in self.timed_out,
        )

    def route(self, smiles: str, *, camel: bool) -> dict[str, Any] | None:
        """Return a synthesis tree: the target made of its reactions, one by one, back to things to buy."""
        verdict = self.verdict(smiles)
        if verdict.reactions is None:
            return None
        blocks = shuffled(_BUILDING_BLOCKS, "route", smiles)
        keys = _CAMEL if camel else _SNAKE
        chain = [f"c{step}" for step in range(verdict.reactions + 1)]
        compounds: dict[str, dict[str, Any]] = {}
        reactions: dict[str, dict[str, Any]] = {}

        def compound(name: str, text: str, made_by: str | None, used_by: str | None) -> None:
            compounds[name] = {"smiles": text, keys[0]: made_by, keys[1]: used_by}

        compound("c0", smiles, "r0" if verdict.reactions else None, None)
        for step in range(verdict.reactions):
            last = step == verdict.reactions - 1
            reactions[f"r{step}"] = {keys[2]: chain[step], keys[3]: [chain[step + 1], f"b{step}"]}
            compound(chain[step + 1], blocks[step % len(blocks)], None if last else f"r{step + 1}", f"r{step}")
            compound(f"b{step}", blocks[(step + 5) % len(blocks)], None, f"r{step}")
        return {keys[4]: "c0", "compounds": compounds, "reactions": reactions}


_CAMEL = ("productOf", "substrateOf", "productId", "substratesIds", "targetId")
_SNAKE = ("product_of", "substrate_of", "product_id", "substrates_ids", "target_id")
