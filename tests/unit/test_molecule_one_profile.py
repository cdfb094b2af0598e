"""The scoring profile changes with what changes a score, and with nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.molecule_one.profile import profile_of
from watcher.settings import MoleculeOneSettings


def key(**values: Any) -> str:
    return profile_of(MoleculeOneSettings(**values)).key


def test_the_keys_of_the_defaults_never_change() -> None:
    """A changed key would offer to buy everything again: change this only with what the service is asked for."""
    v1 = profile_of(MoleculeOneSettings())
    assert (v1.api_version, v1.normalised) == ("v1", '{"api_version":"v1"}')
    v2 = profile_of(MoleculeOneSettings(api_version="v2"))
    assert v2.normalised == '{"api_version":"v2","detail_level":"score","parameters":{}}'
    assert (v1.key, v2.key) == ("565c04aef0601174", "9b6d1d2e1bac48a3")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    "values",
    [
        {"priority": 9},
        {"parameters": {"priority": 9}},
        {"parameters": {"name": "mine"}},
        {"batch_size": 1},
        {"invalid_target_strategy": "reject"},
        {"token": "x"},
        {"base_url": "https://other.test"},
        {"poll_interval": "5s"},
        {"delete_after_collect": True},
        {"on_unconfirmed": "resubmit"},
        {"price_per_compound": 1.0},
    ],
)
def test_what_does_not_change_a_score_does_not_count(version: str, values: dict[str, Any]) -> None:
    assert key(api_version=version, **values) == key(api_version=version)


@pytest.mark.parametrize(
    "parameters",
    [
        {"exploratorySearch": False},
        {"detailLevel": "score"},
        {"exploratorySearch": False, "detailLevel": "score", "priority": 5},
    ],
)
def test_v1_defaults_written_out_change_nothing(parameters: dict[str, Any]) -> None:
    assert key(parameters=parameters) == key()


@pytest.mark.parametrize(
    ("detail_level", "parameters"),
    [
        ("score", {"length": "regular"}),
        ("synthesis", {"model": "gat", "time_limit": False, "synthesis_scale": "molar"}),
        ("score", {"availability_tier": 3.0, "supplier_redundancy": True}),
        ("best_path", {"length": "short"}),
        ("all_paths", {"availability_tier": 3}),
    ],
)
def test_v2_defaults_written_out_change_nothing(detail_level: str, parameters: dict[str, Any]) -> None:
    plain = key(api_version="v2", detail_level=detail_level)
    assert key(api_version="v2", detail_level=detail_level, parameters=parameters) == plain


def test_with_a_preset_nothing_is_a_default() -> None:
    preset = {"api_version": "v2", "preset": "mine"}
    assert key(**preset, parameters={"length": "regular"}) != key(**preset)


RESULT_CHANGING: dict[str, list[dict[str, Any]]] = {
    "v1": [
        {"api_version": "v2"},
        {"exploratory_search": True},
        {"detail_level": "synthesis"},
        {"parameters": {"exploratorySearch": True}},
        {"parameters": {"model": "x"}},
        {"parameters": {"exploratorySearch": 0}},
    ],
    "v2": [
        {"api_version": "v1"},
        {"detail_level": "synthesis"},
        {"detail_level": "best_path"},
        {"detail_level": "all_paths"},
        {"preset": "mine"},
        {"parameters": {"length": "short"}},
        {"parameters": {"model": "transformer"}},
        {"parameters": {"availability_tier": 4}},
        {"parameters": {"starting_materials": ["CCO"]}},
        {"detail_level": "best_path", "parameters": {"length": "regular"}},
    ],
}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_changes_a_score_changes_the_key(version: str) -> None:
    keys = [key(**{"api_version": version, **values}) for values in RESULT_CHANGING[version]]
    assert key(api_version=version) not in keys


def test_each_setting_of_v2_has_its_own_key() -> None:
    keys = [key(**{"api_version": "v2", **values}) for values in RESULT_CHANGING["v2"]]
    assert len(set(keys)) == len(keys)


def test_effort_in_either_place_is_the_same() -> None:
    assert key(exploratory_search=True) == key(parameters={"exploratorySearch": True})
    assert key(exploratory_search=True, parameters={"exploratorySearch": False}) == key()


values = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


@given(st.dictionaries(st.text(min_size=1, max_size=4), values, max_size=4), st.sampled_from(["v1", "v2"]))
def test_order_and_the_way_of_writing_numbers_do_not_count(parameters: dict[str, Any], version: str) -> None:
    turned = {name: float(value) if type(value) is int else value for name, value in reversed([*parameters.items()])}
    one = profile_of(MoleculeOneSettings(api_version=version, parameters=parameters))
    other = profile_of(MoleculeOneSettings(api_version=version, parameters=turned))
    assert one == other
    json.loads(one.normalised)
