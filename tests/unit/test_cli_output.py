"""What is printed: harmless, whole when piped, and safe to open as a spreadsheet."""

import csv
import fcntl
import io
import json
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from watcher.bands import band
from watcher.cli.demo_folder import DOWNLOADS, RECORD, prepared
from watcher.cli.export import _csv, _jsonl, _opened
from watcher.cli.output import clean, counted, in_words, say, say_json, shown, table
from watcher.errors import AlreadyRunning, Ours
from watcher.store.export import COLUMNS, Row


def row(**values: Any) -> Row:
    defaults = {field.name: None for field in fields(Row)}
    return Row(**{**defaults, "target": "A", "upload_index": 1, "disposition": "scored", **values})


def cells(**values: Any) -> dict[str, str]:
    (line,) = csv.reader(io.StringIO(_csv(row(**values)), newline=""))
    return dict(zip(COLUMNS, line, strict=True))


TEXTS = [name for name, type_ in get_type_hints(Row).items() if str in (type_, *get_args(type_))]
"""The columns that hold text, whoever writes it."""


def test_what_comes_from_outside_is_text() -> None:
    outside = {"target", "target_access_string", "code", "compound_code", "smiles_input", "smiles", "reason", "status"}
    assert outside < {*TEXTS} < {*COLUMNS}


@pytest.mark.parametrize("column", TEXTS)
@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_text_that_a_spreadsheet_would_run_is_defused(text: str, column: str) -> None:
    assert cells(**{column: text})[column] == f"'{text}"
    assert json.loads(_jsonl(row(**{column: text})))[column] == text


@pytest.mark.parametrize("text", ["x;=1+1", "x\t=1+1", "x\n=1+1", "x\r=1+1", 'x";=1+1', "x,=1+1", "a;b"])
def test_no_separator_of_a_spreadsheet_begins_a_cell_within_one(text: str) -> None:
    line = _csv(row(code=text, smiles_input="C"))
    assert line.startswith('A,,1,"{}",,C,'.format(text.replace('"', '""')))
    assert cells(code=text)["code"] == text


def test_plain_cells_are_not_quoted() -> None:
    assert '"' not in _csv(row(code="A71EV2A-x0152_A_147 (new) 'b' | c:d", score=1.5, timed_out=True))


def test_numbers_stay_numbers() -> None:
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    written = cells(score=-1.5, price_usd=2.0, timed_out=False, scored_at=at)
    assert (written["score"], written["price_usd"]) == ("-1.5", "2.0")
    assert (written["timed_out"], written["scored_at"], written["certainty"]) == (
        "false",
        "2026-03-01T12:30:00+00:00",
        "",
    )
    one = json.loads(_jsonl(row(score=-1.5, timed_out=True, scored_at=at)))
    assert (one["score"], one["timed_out"], one["certainty"]) == (-1.5, True, None)
    assert list(one) == list(COLUMNS)


@pytest.mark.parametrize("text", ['a "b", c', "two\nlines", "a\rb", "Å"])
def test_any_text_survives_both_forms(text: str) -> None:
    assert cells(smiles_input=text)["smiles_input"] == text
    assert json.loads(_jsonl(row(smiles_input=text)))["smiles_input"] == text


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "scores.csv"
    place.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), _opened(place) as file:
        file.write(bytes(1 // 0))
    assert (place.read_bytes(), list(tmp_path.iterdir())) == (b"old", [place])
    with _opened(place) as file:
        file.write(b"new")
        assert place.read_bytes() == b"old"
    assert (place.read_bytes(), list(tmp_path.iterdir())) == (b"new", [place])
    with pytest.raises(Ours, match="cannot be written"), _opened(tmp_path / "missing" / "scores.csv"):
        pass
    link = tmp_path / "link.csv"
    link.symlink_to(place)
    with _opened(link) as file:
        file.write(b"newer")
    assert link.is_symlink()
    assert place.read_bytes() == b"newer"
    with _opened(Path("/dev/null")) as file:
        file.write(b"lost")
    assert not Path("/dev/null").is_file()


def test_nothing_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\rc\u202e\nd", bold=True)
    table(("name",), [["[bold]\x1b]0;title\x07"]])
    assert capsys.readouterr().out == "a\\x1b[2Jb\\rc\\u202e\\nd\nname\n[bold]\\x1b]0;title\\x07\n"
    assert clean("half \ud800") == "half \\ud800"


def test_a_piped_table_is_never_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table(("name", "n"), [["x" * 100, 5], ["y", 123]], title="Names", numbers=(1,))
    assert capsys.readouterr().out.splitlines() == [
        "Names", f"{'name'.ljust(100)}    n", f"{'x' * 100}    5", f"{'y'.ljust(100)}  123"
    ]  # fmt: skip


def test_a_table_on_a_terminal_takes_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.cli.output.on_terminal", lambda _=None: True)
    table(("name",), [["[red]A[/red]"]])
    assert "[red]A[/red]" in capsys.readouterr().out


def test_a_table_on_a_narrow_terminal_is_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.cli.output.on_terminal", lambda _=None: True)
    monkeypatch.setenv("COLUMNS", "20")
    table(("target", "access string", "why"), [["A\x1b[2J", "lb1", None]])
    assert capsys.readouterr().out == "target: A\\x1b[2J\naccess string: lb1\n\n"


def test_json_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    say_json({"at": at, "name": "Å\x1b"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"at": "2026-03-01T12:30:00+00:00", "name": "Å\x1b"}
    assert (shown(None), shown(True), shown(at), shown(3)) == ("", "yes", "2026-03-01 12:30:00Z", "3")
    assert (counted(1, "batch", "batches"), counted(2, "batch", "batches")) == ("1 batch", "2 batches")
    assert (in_words({"a": 1, "b": 0}), in_words({})) == ("1 a", "none")


def test_bands_are_those_of_the_vendor() -> None:
    assert [band(score) for score in (1, 1.99, 2, 4, 6, 10)] == [
        "commercially available",
        "commercially available",
        "short synthesis",
        "long or uncertain",
        "very long, or none found",
        "very long, or none found",
    ]


def test_the_folder_of_a_demo_is_emptied_of_a_demo_only(tmp_path: Path) -> None:
    place = prepared(tmp_path / "shown")
    (place / RECORD).write_bytes(b"old")
    (place / f"{RECORD}.lock").touch()
    (place / DOWNLOADS).mkdir()
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    assert {path.name for path in prepared(place).iterdir()} == {"config.toml", "notes.txt"}

    lock = place / f"{RECORD}.lock"
    lock.write_text("`watcher demo`, process 1", encoding="utf-8")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="watcher demo"):
            prepared(place)
