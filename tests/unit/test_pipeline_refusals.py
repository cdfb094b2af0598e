"""When a refusal is no molecule's fault."""

from dataclasses import dataclass

import pytest

from watcher.pipeline.refusals import fault_is_no_molecule


@dataclass
class Answer:
    answer: str | None = "preset is unknown"
    size: int = 1
    refused_in: str | None = None
    outcome: str | None = "refused"


OTHER = "too many requests for this account"
ACCEPTED = Answer(outcome="accepted", answer='{"id": 1}')


@pytest.mark.parametrize(
    ("refused", "earlier", "stop"),
    [
        (Answer(size=8), [], False),
        (Answer(size=4, refused_in="7:0"), [Answer(size=8)], False),
        (Answer(size=4, refused_in="7:1"), [Answer(size=4, refused_in="7:0"), Answer(size=8)], True),
        (Answer(size=4, refused_in="7:0"), [Answer(size=4, refused_in="7:1")], True),
        (Answer(size=4, refused_in="7:1"), [Answer(OTHER, 4, "7:0")], False),
        (Answer(size=4, refused_in="7:1"), [Answer("x", 4, "7:0", "accepted")], False),
        (Answer(size=4, refused_in="7:1"), [Answer(size=4, refused_in="6:0")], False),
        (Answer(), [Answer(), Answer()], True),
        (Answer(), [Answer(), Answer(OTHER)], False),
        (Answer(), [Answer()], False),
        (Answer(), [Answer(), ACCEPTED, Answer()], False),
        (Answer(), [Answer(), Answer(size=2)], False),
        (Answer(size=2), [Answer(), Answer()], False),
        (Answer("Invalid SMILES 'CCO'"), [Answer("Invalid SMILES 'CCN'"), Answer('Invalid SMILES "C1CC"')], True),
        (Answer(None), [Answer(None), Answer("")], True),
    ],
)
def test_fault_is_no_molecule(refused: Answer, earlier: list[Answer], stop: bool) -> None:
    assert fault_is_no_molecule(refused, earlier) is stop
