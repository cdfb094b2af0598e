"""No secret comes out, in whatever it is wrapped."""

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.redaction import redactor
from watcher.settings import Settings

SECRET = "s3cr3t/token+x"

secrets = st.text(st.characters(codec="utf-8"), min_size=4, max_size=40)
around = st.text(st.characters(codec="utf-8"), max_size=20)
containers: st.SearchStrategy[Callable[[object], object]] = st.sampled_from(
    [
        lambda value: [1, value],
        lambda value: (value, None),
        lambda value: {"a": value},
        lambda value: {str(value): 2.5},
        lambda value: {"a": [{"b": value}]},
        lambda value: ValueError(value),
        lambda value: str(value).encode(),
        lambda value: [str(value)],
    ]
)


@dataclass
class Holder:
    value: object


def all_text(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in all_text(part)]
    if isinstance(value, list):
        return [text for item in value for text in all_text(item)]
    return [str(value)]


@given(secret=secrets, before=around, after=around, wrap=st.lists(containers, max_size=3))
def test_no_secret_comes_out_of_any_structure(
    secret: str, before: str, after: str, wrap: list[Callable[[object], object]]
) -> None:
    value: object = before + secret + after
    for container in wrap:
        value = container(value)
    clean = redactor([secret])(value)
    assert not [text for text in all_text(clean) if secret in text]
    json.dumps(clean, allow_nan=False)


@given(secret=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=4, max_size=40))
@pytest.mark.parametrize(
    "form",
    [
        quote,
        quote_plus,
        lambda text: quote(text, safe=""),
        lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text)),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
        lambda text: json.dumps(text)[1:-1],
        lambda text: repr(text)[1:-1],
        lambda text: text.encode().hex(),
    ],
)
def test_no_form_of_a_secret_comes_out(form: Callable[[str], str], secret: str) -> None:
    clean = redactor([secret])
    assert form(secret) not in str(clean(f"({form(secret)})"))
    assert form(secret) not in str(clean({"a": f"\n{form(secret)}\t"}))


@given(before=st.text(max_size=9), after=st.text(max_size=9))
def test_no_secret_comes_out_of_base64_with_neighbours(before: str, after: str) -> None:
    encoded = base64.b64encode(f"{before}:{SECRET}{after}".encode("utf-8", "replace")).decode()
    assert str(redactor([SECRET])(encoded)) != encoded
    assert "***" in str(redactor([SECRET])(encoded))


@given(st.lists(secrets, max_size=4), around)
def test_cleaning_twice_changes_nothing_but_what_was_already_hidden(known: list[str], text: str) -> None:
    clean = redactor(known)
    assert all(secret not in str(clean(clean(text))) for secret in known)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: ApiToken-v1 abc, and more", "Authorization: ***, and more"),
        ("{'Authorization': 'Bearer abc', 'X': '1'}", "{'Authorization': ***, 'X': '1'}"),
        ("[(b'authorization', b'Basic abc')]", "[(b'authorization', ***)]"),
        ("used ApiToken-v1 abc here", "used ApiToken-v1 *** here"),
        ("Bearer abcdefghijk.x", "Bearer ***"),
        ("a; sessionid=abc123; path=/", "a; sessionid=***; path=/"),
        ("Cookie: csrftoken=a; sessionid=b", "Cookie: ***; sessionid=***"),
        ("Set-Cookie: sessionid=b; Path=/", "Set-Cookie: ***; Path=/"),
        ("at postgresql+asyncpg://me:pa/ss@host/db", "at postgresql+asyncpg://me:***@host/db"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("https://host/a@b is no password", "https://host/a@b is no password"),
        ("http://127.0.0.1:8080/x", "http://127.0.0.1:8080/x"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, clean: str) -> None:
    assert redactor([])(text) == clean


def test_values_under_telling_keys_are_hidden() -> None:
    assert redactor([])({"Authorization": "abc", b"Cookie": b"d", "token": "abc", "password": ""}) == {
        "Authorization": "***",
        "Cookie": "***",
        "token": "abc",
        "password": "",
    }


def test_short_secrets_do_not_blank_out_everything() -> None:
    assert redactor(["", "a", "abc"])("an abc of cats") == "an abc of cats"


def test_a_replacement_that_completes_a_secret_is_replaced_too() -> None:
    assert "a***" not in str(redactor(["a***", "secret"])("asecret"))
    assert "****" not in str(redactor(["****"])("********"))


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def test_everything_becomes_plain_data() -> None:
    circle: list[object] = []
    circle.append(circle)
    clean = redactor([SECRET, "1234"])
    value = {
        1: {"x"},
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("/a") / SECRET,
        "holder": Holder([SECRET]),
        "settings": Settings().replace("molecule_one", token=SECRET),
        "broken": Broken(),
        "circle": circle,
        "number": 51234,
        "huge": 10**5000,
        "nan": float("nan"),
        "bytes": b"\xff" + SECRET.encode(),
        "half": "\ud800",
    }
    cleaned = clean(value)
    assert SECRET not in json.dumps(cleaned, allow_nan=False)
    assert isinstance(cleaned, dict)
    assert cleaned["1"] == ["x"]
    assert cleaned["when"] == "2026-01-02T00:00:00+00:00"
    assert cleaned["number"] == "5***"
    assert cleaned["nan"] == "nan"
    assert cleaned["broken"] == "<Broken that cannot be written: RuntimeError>"
    assert cleaned["holder"] == "Holder(value=['***'])"
