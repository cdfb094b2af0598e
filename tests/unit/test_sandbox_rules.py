"""Which request a rule meets."""

import pytest

from watcher.sandbox import Fault


def met(fault: Fault, times: int, method: str = "GET", path: str = "/api/targets/?limit=2") -> list[bool]:
    return [fault.meets(method, path) for _ in range(times)]


def test_a_rule_works_once_unless_told_otherwise() -> None:
    assert met(Fault("fragalysis", "status"), 3) == [True, False, False]
    assert met(Fault("fragalysis", "status", times=None), 3) == [True, True, True]
    assert met(Fault("fragalysis", "status", skip=1, times=1), 3) == [False, True, False]


def test_a_rule_meets_by_method_and_path() -> None:
    match = {"method": "GET", "path": r"limit=\d"}
    assert met(Fault("fragalysis", "status", match=match), 1) == [True]
    assert met(Fault("fragalysis", "status", match=match), 1, method="POST") == [False]
    assert met(Fault("fragalysis", "status", match=match), 1, path="/api/targets/") == [False]


def test_probability_follows_the_seed() -> None:
    first = met(Fault("fragalysis", "status", times=None, probability=0.5, seed=1), 40)
    again = met(Fault("fragalysis", "status", times=None, probability=0.5, seed=1), 40)
    other = met(Fault("fragalysis", "status", times=None, probability=0.5, seed=2), 40)
    assert first == again != other
    assert 10 < sum(first) < 30
    assert not any(met(Fault("fragalysis", "status", times=None, probability=0), 10))


@pytest.mark.parametrize(
    "wrong",
    [{"action": "explode"}, {"where": "elsewhere"}, {"match": {"verb": "GET"}}],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown action|where is|match knows"):
        Fault(**{"where": "fragalysis", "action": "status", **wrong})  # type: ignore[arg-type]
