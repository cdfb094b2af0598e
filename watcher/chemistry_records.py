"""What the chemistry says of a molecule, and what goes between the daemon and the chemistry's own process."""

from typing import Literal

import msgspec

Reason = Literal[
    "empty",
    "not_ascii",
    "unparsable",
    "wildcard",
    "query",
    "reaction",
    "no_organic_parent",
    "too_large",
    "not_smiles",
]


class Identity(msgspec.Struct, frozen=True, tag="identity"):
    """One compound: the parent, that is the largest organic fragment that is not a known salt or solvent."""

    smiles: str
    """Canonical isomeric SMILES of the parent: ASCII, without atom maps, mapped to itself by `chemistry.canonical`."""
    inchikey: str
    """Empty where InChI has none (more than 1024 atoms, elements or bonds it does not know)."""
    heavy_atoms: int
    sa_score: float
    """Synthetic accessibility of Ertl and Schuffenhauer (doi:10.1186/1758-2946-1-8): 1 easy to 10 hard; 3 decimals."""
    removed: tuple[str, ...] = ()
    """What was split off, each once: its name, or its canonical SMILES where we have no name."""
    cxsmiles: str | None = None
    """The CXSMILES block that was cut off, as it came, even if truncated."""


class Rejection(msgspec.Struct, frozen=True, tag="rejection"):
    """Why a raw string has no identity: a reason for programs, a sentence for people."""

    reason: Reason
    detail: str
    cxsmiles: str | None = None
    in_doubt: bool = False
    """Whether the machine may be to blame all the same, so that it is to be judged again at the next reading."""


class Request(msgspec.Struct):
    """One line to the child. `timeout` is in seconds; a molecule that takes longer ends the child."""

    id: int
    op: Literal["identify", "canonical"]
    text: str = ""
    max_heavy_atoms: int = 1000
    timeout: float = 10.0


class Reply(msgspec.Struct):
    """One line from the child: what the function named by `op` returned."""

    id: int
    result: Identity | Rejection | str | None
