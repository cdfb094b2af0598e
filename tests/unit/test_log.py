"""Every line is one JSON object (or one readable line on a terminal), without secrets, whoever wrote it."""

import asyncio
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest
from structlog.contextvars import bound_contextvars

from watcher.log import configure, get_logger, handle_loop_exception
from watcher.settings import LogSettings

SECRET = "s3cr3t/token+x"

Lines = Callable[[], list[dict[str, Any]]]


def own_handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if type(handler).__module__ == "watcher.log"]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave logging and the hooks as they were."""
    root, level = logging.getLogger(), logging.getLogger().level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(capture=False)
    for handler in own_handlers():
        root.removeHandler(handler)
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def lines() -> Lines:
    """Configure for JSON and return what reads the lines so far."""
    stream = io.StringIO()
    configure(LogSettings(format="json"), secrets=[SECRET], stream=stream)

    def read() -> list[dict[str, Any]]:
        assert SECRET not in stream.getvalue()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return read


def console(secrets: tuple[str, ...] = (SECRET,)) -> Terminal:
    stream = Terminal()
    configure(LogSettings(), secrets=secrets, stream=stream)
    return stream


def test_a_line_of_ours(lines: Lines) -> None:
    with bound_contextvars(target="A71EV2A", upload_index=3):
        get_logger("watcher.x").info("upload_found", observations=5, seen=b"bytes")
    get_logger("watcher.x").info("scan_finished")
    first, second = lines()
    assert list(first)[:4] == ["timestamp", "level", "event", "logger"]
    assert datetime.fromisoformat(first.pop("timestamp")).utcoffset() == timedelta(0)
    assert first == {
        "level": "info",
        "event": "upload_found",
        "logger": "watcher.x",
        "observations": 5,
        "seen": "bytes",
        "target": "A71EV2A",
        "upload_index": 3,
    }
    assert "target" not in second


def test_lines_of_libraries_have_the_same_form(lines: Lines) -> None:
    with bound_contextvars(target="A71EV2A"):
        logging.getLogger("alembic.runtime").warning("missed %s by\n%d", SECRET, 3, extra={"job": SECRET})
    (line,) = lines()
    assert line["event"] == "library_message"
    assert line["message"] == "missed *** by\n3"
    assert (line["logger"], line["target"], line["job"]) == ("alembic.runtime", "A71EV2A", "***")


def test_warnings_have_the_same_form(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(f"old {SECRET}", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert line["event"] == "python_warning"
    assert "DeprecationWarning: old ***" in line["message"]


def test_an_exception_is_one_value_without_secrets(lines: Lines) -> None:
    def fail() -> None:
        try:
            int(f"about {SECRET}\nand")
        except ValueError as error:
            raise RuntimeError({"Authorization": f"ApiToken-v1 {SECRET}"}) from error

    try:
        fail()
    except RuntimeError:
        get_logger("watcher.x").exception("stage_failed", headers={"authorization": "other"})
    (line,) = lines()
    assert line["level"] == "error"
    assert line["headers"] == {"authorization": "***"}
    assert line["exception"].startswith("Traceback")
    assert "RuntimeError" in line["exception"]
    assert "about ***" in line["exception"]


def test_what_is_not_caught_is_logged(lines: Lines) -> None:
    error = ValueError(SECRET)
    sys.excepthook(ValueError, error, None)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    threading.excepthook(threading.ExceptHookArgs((ValueError, error, None, None)))
    threading.excepthook(threading.ExceptHookArgs((SystemExit, SystemExit(), None, None)))
    events = [(line["level"], line["event"]) for line in lines()]
    assert events == [
        ("critical", "uncaught_exception"),
        ("warning", "interrupted"),
        ("critical", "uncaught_exception"),
    ]


async def test_what_nobody_awaited_is_logged(lines: Lines) -> None:
    asyncio.get_running_loop().set_exception_handler(handle_loop_exception)
    asyncio.get_running_loop().call_soon(int, "no number")
    await asyncio.sleep(0)
    (line,) = lines()
    assert line["event"] == "uncaught_exception_in_loop"
    assert "ValueError" in line["exception"]


def test_a_line_that_cannot_be_formatted_is_said_to_be_lost(lines: Lines) -> None:
    (handler,) = own_handlers()  # alone: those of pytest would raise
    handler.handle(logging.LogRecord("library", logging.WARNING, "", 0, f"%d {SECRET}", ("text",), None))
    assert lines() == [{"level": "error", "event": "log_line_lost", "logger": "library", "reason": "TypeError"}]


def test_a_closed_stream_stops_nobody() -> None:
    stream = io.StringIO()
    configure(LogSettings(format="json"), secrets=[], stream=stream)
    stream.close()
    get_logger("watcher.x").warning("still_alive")


def test_configuring_twice_writes_once_and_takes_the_newer(lines: Lines) -> None:
    logger = get_logger("watcher.x")
    logger.info("before")
    stream = io.StringIO()
    configure(LogSettings(format="json", level="warning"), secrets=["another"], stream=stream)
    logger.info("too_low")
    logger.warning("after", value="another")
    assert [line["event"] for line in lines()] == ["before"]
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["value"]) == ("after", "***")


@pytest.mark.parametrize(
    ("level", "logger", "told"),
    [
        ("info", "apscheduler.executors", "error"),
        ("info", "aiohttp.access", "warning"),
        ("info", "watcher.x", "info"),
        ("debug", "aiohttp.access", "debug"),
        ("debug", "sqlalchemy.engine", "warning"),
        ("debug", "aiosqlite", "warning"),
        ("error", "apscheduler", "error"),
    ],
)
def test_levels(level: Literal["debug", "info", "error"], logger: str, told: str) -> None:
    configure(LogSettings(format="json", level=level), secrets=[], stream=io.StringIO())
    assert logging.getLevelName(logging.getLogger(logger).getEffectiveLevel()) == told.upper()


def test_logging_before_configuring_writes_nothing_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("watcher.unconfigured").info("early")
    assert capsys.readouterr().out == ""


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(), secrets=[])  # captured, hence no terminal
    get_logger("watcher.x").info("said")
    assert json.loads(capsys.readouterr().err)["event"] == "said"


def test_a_terminal_gets_readable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = console()
    get_logger("watcher.x").info("upload_found", target="A71EV2A", token=SECRET)
    (line,) = stream.getvalue().splitlines()
    assert line[19:].split() == ["Z", "[info", "]", "upload_found", "[watcher.x]", "target=A71EV2A", "token=***"]


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = console()
    get_logger("watcher.x").info("upload_found")
    assert "\x1b[" in stream.getvalue()
    plain = io.StringIO()
    configure(LogSettings(format="console"), secrets=[], stream=plain)
    get_logger("watcher.x").info("upload_found")
    assert "\x1b[" not in plain.getvalue()


def test_no_value_forges_a_line_or_moves_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = console()
    forged = "x\n2026-01-01T00:00:00Z [info] forged\r\x1b[2J\u202e\u2028\u00e9"
    try:
        int(forged)
    except ValueError:
        get_logger("watcher.x").exception(forged, value=forged, nested=[{forged: forged}])
    logging.getLogger("library").warning(forged)
    first, *rest = stream.getvalue().splitlines()
    assert all(line.startswith("  | ") for line in rest[:-1])
    assert "forged" in first
    assert rest[-1].startswith("20")
    assert not any(character in stream.getvalue() for character in "\r\x1b\u202e\u2028\u00e9")
