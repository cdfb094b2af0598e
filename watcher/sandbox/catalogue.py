"""The bundled world: known molecules, the targets that hold them, and what the vendor thinks of some.

`catalogue.json` is written by `tests/tools/make_catalogue.py`, which checks every molecule with RDKit; the scores in it
are RDKit's synthetic accessibility scores, which run from 1 to 10 like the vendor's.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Row:
    """One observation as an upload brings it."""

    code: str
    smiles: str
    compound_code: str | None = None


@dataclass(frozen=True)
class CatalogueTarget:
    """A target with all its prepared uploads; the first `published` of them are there from the start."""

    name: str
    target_access_string: str
    display_name: str
    public: bool
    published: int
    uploads: tuple[tuple[Row, ...], ...]


@dataclass(frozen=True)
class VendorNotes:
    """What the vendor knows: scores by canonical SMILES, and the molecules that it treats in its own way."""

    scores: dict[str, float] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    no_pathway: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    timed_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Catalogue:
    """Everything in the bundled file."""

    names: dict[str, str]
    targets: tuple[CatalogueTarget, ...]
    vendor: VendorNotes


@cache
def load() -> Catalogue:
    """Read the bundled catalogue, once; it reads a file, so call it off the event loop."""
    text = resources.files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    document = json.loads(text)
    molecules = document["molecules"]
    vendor = document["vendor"]
    canonical = {name: molecule["canonical"] for name, molecule in molecules.items()}
    scores = {molecule[key]: molecule["score"] for molecule in molecules.values() for key in ("smiles", "canonical")}

    def known(names: list[str]) -> frozenset[str]:
        return frozenset(canonical[name] for name in names)

    def row(code: str, text: str, compound_code: str | None) -> Row:
        # A row names a molecule, or spells a string of its own after "=".
        smiles = text[1:] if text.startswith("=") else molecules[text]["smiles"]
        return Row(code, smiles, compound_code)

    targets = tuple(
        CatalogueTarget(
            name=target["name"],
            target_access_string=target["target_access_string"],
            display_name=target["display_name"],
            public=target["public"],
            published=target["published"],
            uploads=tuple(tuple(row(*cells) for cells in upload) for upload in target["uploads"]),
        )
        for target in document["targets"]
    )
    notes = VendorNotes(
        scores=scores,
        refuses=tuple(vendor["refuses"]),
        no_pathway=known(vendor["no_pathway"]),
        errors=known(vendor["errors"]),
        timed_out=known(vendor["timed_out"]),
    )
    return Catalogue(
        names={molecule["canonical"]: name for name, molecule in molecules.items()}, targets=targets, vendor=notes
    )
