"""When a refusal is no molecule's fault: a pure reading of the last answers."""

from collections.abc import Sequence
from typing import Protocol

from watcher.molecule_one import same_words

SINGLES_IN_A_ROW = 3


class Answered(Protocol):
    """What is read of a batch that the service answered about its content."""

    outcome: str | None
    answer: str | None
    size: int
    refused_in: str | None


def fault_is_no_molecule(refused: Answered, earlier: Sequence[Answered]) -> bool:
    """Say whether the batch just refused shows that no molecule is to blame.

    So it is when its other half was refused with the same words, or when it is the third single molecule in a row
    that was. `earlier` holds the batches answered before, newest first, back to when a person last looked.
    """
    words = refused.answer or ""

    def same(other: Answered) -> bool:
        return other.outcome == "refused" and same_words(words, other.answer or "")

    parent, _, half = (refused.refused_in or "").partition(":")
    if parent:
        twin = f"{parent}:{'1' if half == '0' else '0'}"
        if any(other.refused_in == twin and same(other) for other in earlier):
            return True
    if refused.size != 1 or len(earlier) < SINGLES_IN_A_ROW - 1:
        return False
    return all(other.size == 1 and same(other) for other in earlier[: SINGLES_IN_A_ROW - 1])
