"""Settings as text: what is printed can be read again, and secrets are never printed."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.settings import Settings
from watcher.settings_keys import keys
from watcher.settings_source import load
from watcher.settings_text import example, reference, show

texts = st.text(st.characters(codec="utf-8"), min_size=1)
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
plain_json = st.recursive(leaves | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=5)


def read(text: str, directory: Path) -> Settings:
    path = directory / "shown.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ={})


def test_the_example_is_valid_and_equals_the_defaults(tmp_path: Path) -> None:
    assert read(example(), tmp_path) == Settings()


def test_each_line_of_the_example_can_be_taken_in(tmp_path: Path) -> None:
    taken_in = re.sub(r"^# (\w+ = )", r"\1", example(), flags=re.MULTILINE)
    assert read(taken_in, tmp_path) == Settings()
    assert sum(len(table) for table in tomllib.loads(taken_in).values()) == len(list(keys()))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("show")


@given(
    targets=st.lists(texts),
    interval=st.timedeltas(timedelta(microseconds=1), timedelta(days=3650)),
    size=st.integers(1, 10**15),
    parameters=st.dictionaries(texts, plain_json),
    price=st.none() | st.floats(0, allow_infinity=False),
    flag=st.booleans(),
)
def test_what_is_shown_loads_again(
    directory: Path,
    targets: list[str],
    interval: timedelta,
    size: int,
    parameters: dict[str, Any],
    price: float | None,
    flag: bool,
) -> None:
    settings = (
        Settings()
        .replace("fragalysis", targets=targets, scan_interval=interval)
        .replace("download", enabled=flag, max_archive_size=size, directory="down\x7floads/\u00e9")
        .replace("molecule_one", parameters=parameters, price_per_compound=price)
    )
    assert read(show(settings), directory) == settings


def test_secrets_are_hidden_and_empty_ones_are_seen_to_be_empty(tmp_path: Path) -> None:
    settings = (
        Settings()
        .replace("molecule_one", token="opensesame")
        .replace("notify", urls=["slack://opensesame", "slack://b"])
        .replace("database", url="postgresql+asyncpg://me:opensesame@db/watcher")
    )
    shown = show(settings)
    assert "opensesame" not in shown
    tables = tomllib.loads(shown)
    assert tables["molecule_one"]["token"] == "***"
    assert tables["fragalysis"]["token"] == ""
    assert tables["notify"]["urls"] == ["***", "***"]
    assert tables["database"]["url"] == "postgresql+asyncpg://me:***@db/watcher"
    assert read(shown, tmp_path).database == Settings().replace("database", url=tables["database"]["url"]).database


def test_the_reference_has_every_key() -> None:
    text = reference()
    assert all(f"\n| `{key.name}` |" in text for key in keys())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
