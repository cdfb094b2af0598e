"""The values settings are made of, and what belongs together."""

from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from watcher.settings import (
    MoleculeOneSettings,
    Settings,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

durations = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=3650))


@given(durations)
def test_a_duration_is_read_as_it_was_written(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_size_is_read_as_it_was_written(size: int) -> None:
    assert parse_size(format_size(size)) == size
    assert parse_size(str(size)) == size


@given(st.text())
def test_any_other_text_is_refused_with_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("6h", 21600), ("2d", 172800), ("1h30m", 5400), ("0.5s", 0.5), (" 1m ", 60), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "s", "5", "5 m", "-5m", "5w", "1e3s", "9" * 400 + "s", "4000d", 5, True, None])
def test_no_durations(value: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [("200MB", 200 * 10**6), ("1.5GB", 1500 * 10**6), ("2GiB", 2**31), ("1 kB", 1000), ("17", 17), (17, 17)],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "MB", "-1MB", "1XB", "1mb", "9" * 400 + "GB", True, 1.5, None])
def test_no_sizes(value: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        parse_size(value)


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.molecule_one.batch_size = 3  # type: ignore[misc]


def test_replace_validates_and_leaves_the_original() -> None:
    settings = Settings()
    assert settings.replace("molecule_one", batch_size=3).molecule_one.batch_size == 3
    assert settings == Settings()
    with pytest.raises(ValidationError, match=r"batch_size\s+Input .* greater than or equal to 1"):
        settings.replace("molecule_one", batch_size=0)
    with pytest.raises(ValidationError, match=r"token\s+Value error, must be the token alone") as caught:
        settings.replace("molecule_one", token="open sesame")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "key", "value"),
    [
        ("v1", "preset", "fast"),
        ("v1", "detail_level", "best_path"),
        ("v2", "exploratory_search", True),
    ],
)
def test_what_the_version_would_ignore_is_refused(version: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError, match="api_version"):
        MoleculeOneSettings.model_validate({"api_version": version, key: value})
    other = "v2" if version == "v1" else "v1"
    MoleculeOneSettings.model_validate({"api_version": other, key: value})


def test_secrets_are_not_in_the_repr_nor_in_errors() -> None:
    assert "opensesame" not in repr(MoleculeOneSettings.model_validate({"token": "opensesame"}))
    with pytest.raises(ValidationError) as caught:
        MoleculeOneSettings.model_validate({"token": "open sesame"})
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("listen", ["", "127.0.0.1:0", "[::1]:9464", "localhost:65535"])
def test_places_to_listen(listen: str) -> None:
    assert Settings().replace("server", listen=listen).server.listen == listen


@pytest.mark.parametrize("listen", ["9464", ":9464", "localhost", "localhost:65536", "a b:1", "::1:80:"])
def test_no_places_to_listen(listen: str) -> None:
    with pytest.raises(ValidationError):
        Settings().replace("server", listen=listen)


@pytest.mark.parametrize("url", ["ftp://x", "https://u:p@x", "https://x/api", "http://x:70000", "https://", "x"])
def test_no_origins(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings().replace("molecule_one", base_url=url)


def test_stacks() -> None:
    assert Settings().fragalysis.url == "https://fragalysis.diamond.ac.uk"
    assert Settings().replace("fragalysis", stack="http://127.0.0.1:8080/").fragalysis.url == "http://127.0.0.1:8080"
