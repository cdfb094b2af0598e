"""Whatever comes from outside is read, or refused in our own words; and it is not worked on for ever."""

import json
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS, WORDS
from tests.fuzz.targets import TARGETS
from tests.support.clock import FakeClock
from tests.support.fragalysis import TARGETS as TARGETS_PATH
from tests.support.fragalysis import answer, stack
from watcher.errors import AuthFailure, Failure, SettingsError
from watcher.fragalysis import Fragalysis
from watcher.settings import Settings
from watcher.settings_keys import keys
from watcher.settings_source import load

JSON_TARGETS = ("fragalysis", "molecule_one")
names = st.sampled_from(sorted({word.decode().strip('"') for target in JSON_TARGETS for word in WORDS[target]}))
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=6),
    max_leaves=20,
)
pages = documents | st.builds(
    lambda rows, count: {"count": count, "next": None, "results": rows, "data": rows},
    st.lists(st.dictionaries(names, st.integers(-1, 3) | documents, max_size=8), max_size=3),
    st.integers(0, 3),
)


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_of_the_fuzzers_is_read_or_refused(target: str) -> None:
    assert SEEDS.keys() == WORDS.keys() == TARGETS.keys()
    for seed in SEEDS[target]():
        TARGETS[target](seed)


@given(pages, st.integers(0, 255), st.booleans())
def test_any_document_is_read_or_refused(document: Any, status: int, ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    TARGETS["fragalysis"](body)
    TARGETS["molecule_one"](bytes([status]) + body)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(JSON_TARGETS), st.data())
def test_damaged_answers_are_read_or_refused(target: str, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS[target]())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        if data.draw(st.booleans()):
            content[at : at + 1] = data.draw(st.binary(max_size=4))
        else:
            content[at:at] = data.draw(st.sampled_from(WORDS[target]))
    TARGETS[target](bytes(content))


@pytest.mark.parametrize("depth", [30, 450, 700, 990, 100_000])
@pytest.mark.parametrize("target", JSON_TARGETS)
def test_no_depth_is_too_much(target: str, depth: int) -> None:
    for begin, end in (("[", "]"), ('{"a":', "}")):
        nested = begin * depth + "0" * (end == "}") + end * depth
        for body in (nested, f'{{"message":{nested}}}', f'[{{"id":1,"result":NaN,"synthesis":{nested}}}]'):
            for first in range(8):  # each kind of status
                TARGETS[target](bytes([first]) * (target == "molecule_one") + body.encode())


@given(st.sampled_from(["max-age", "expires"]), st.text(max_size=40))
@example("max-age", "--5")
@example("max-age", "\u00b2")
@example("max-age", "9" * 5000)
@example("expires", "Sun, 01 Mar 2026 12:01:00 +99999999999999999999")
@example("expires", "Sun, 01 Mar 2026 12:01:00 -0000")
def test_any_end_of_a_cookie(attribute: str, value: str) -> None:
    cookie = SimpleCookie({"sessionid": "x"})["sessionid"]
    cookie[attribute] = value
    session = Fragalysis(Settings(), clock=FakeClock())._session
    assert session._is_over(cookie) in (True, False)


@pytest.mark.parametrize(
    ("attribute", "value", "over"),
    [
        ("max-age", "0", True),
        ("max-age", "00", True),
        ("max-age", "-1", True),
        ("max-age", "3600", False),
        ("expires", "Thu, 01 Jan 1970 00:00:00 GMT", True),
        ("expires", "Fri, 01 Jan 2100 00:00:00 GMT", False),
    ],
)
def test_ends_of_a_cookie(attribute: str, value: str, over: bool) -> None:
    cookie = SimpleCookie({"sessionid": "x"})["sessionid"]
    cookie[attribute] = value
    assert Fragalysis(Settings(), clock=FakeClock())._session._is_over(cookie) is over


@pytest.mark.timeout(30)
async def test_a_page_of_nothing_but_beginnings_is_soon_read() -> None:
    for piece in ("<input", "<title>", "<title>sign", "<input type"):
        async with stack({TARGETS_PATH: answer("<html>" + piece * 100_000)}) as server, server.client() as client:
            with pytest.raises(Failure):
                await client.target_list()
    page = "<html>" + "<input" * 1000 + '<input name="password" type="password">'
    async with stack({TARGETS_PATH: answer(page)}) as server, server.client() as client:
        with pytest.raises(AuthFailure, match="sign-in page"):
            await client.target_list()


keys_of_all = st.sampled_from([str(key) for key in keys()])
toml_values = st.sampled_from(
    ['""', "-1", "1e400", "nan", "[]", "{}", "[[1]]", "true", "1979-05-27", '"15m"', "'200MB'"]
)
toml_lines = st.builds(lambda name, value: f"{name} = {value}", keys_of_all | st.text(max_size=8), toml_values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80) | st.lists(toml_lines | st.text(max_size=8), max_size=4).map("\n".join))
@example("[fragalysis]\ntargets = " + "[" * 5000 + "]" * 5000)
@example("[molecule_one.parameters]\na" + ".a" * 3000 + " = 1")
@example("[molecule_one.parameters]\na = " + "[" * 700 + "]" * 700)
@example("[molecule_one]\nbatch_size = " + "9" * 5000)
def test_any_settings_file_is_taken_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.toml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        assert isinstance(load(path, environ={}), Settings)
    except SettingsError as error:
        assert str(error)  # noqa: PT017 - some of them are good


@given(st.sampled_from([key.variable for key in keys()]), st.text(max_size=40).filter(lambda text: "\0" not in text))
@example("WATCHER_MOLECULE_ONE__PARAMETERS", '{"a":' * 100_000)
@example("WATCHER_MOLECULE_ONE__PARAMETERS", '{"a": ' + "9" * 5000 + "}")
@example("WATCHER_FRAGALYSIS__TARGETS", "[" * 100_000)
@example("WATCHER_MOLECULE_ONE__BATCH_SIZE", "9" * 5000)
def test_any_variable_is_taken_or_refused(name: str, value: str) -> None:
    try:
        assert isinstance(load(None, environ={name: value, "WATCHER_CONFIG": "/dev/null"}), Settings)
    except SettingsError as error:
        assert name in str(error) or "_file" in str(error)  # noqa: PT017 - some of them are good
