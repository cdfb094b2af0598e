"""Logging: one event name and its key/values a line, in one form for the program and the libraries, without secrets.

Lines are JSON unless the stream is a terminal. What a unit of work binds with `structlog.contextvars` stands on each of
its lines. Standard-library logging, warnings and uncaught exceptions take the same way out.
"""

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from watcher.redaction import redactor
from watcher.settings import LogSettings

_QUIET = ("aiohttp.access", "alembic", "asyncio", "stamina")
"""Told to be quiet below debug: they speak of every tick, and conditions are told by the program itself."""
_SILENT = ("aiosqlite", "sqlalchemy")
"""Below warning they write rows, which hold unpublished structures."""
_FIRST = ("timestamp", "level", "event", "logger")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module. Events are named in snake_case; everything else goes into key/values."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure(settings: LogSettings, *, secrets: Iterable[str], stream: TextIO | None = None) -> None:
    """Send every log line to `stream` (default: standard error) in the form of the settings. May be called again.

    `secrets` are the values that must never appear (`watcher.settings_source.secrets_of`).
    """
    stream = stream or sys.stderr
    on_console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.contextvars.merge_contextvars, *_COMMON, structlog.stdlib.ExtraAdder()],
            processors=[
                _name_foreign,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _Redaction(secrets),
                *(_console(stream) if on_console else [_as_json]),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        # ours of an earlier call, or a stray that would write plain text; what a subclass does is its owner's affair
        if type(old) in (_Handler, logging.StreamHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    # The daemon tells itself of jobs that are left out, once.
    logging.getLogger("apscheduler").setLevel(level if level == logging.DEBUG else max(level, logging.ERROR))
    for name in _SILENT:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    _catch_the_uncaught()


def handle_loop_exception(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited; give it to `loop.set_exception_handler`."""
    get_logger("watcher").error(
        "uncaught_exception_in_loop", message=context.get("message"), exc_info=context.get("exception")
    )


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say that a line was lost, and nothing of its content: it could not be cleaned."""
        kind = getattr(sys.exc_info()[0], "__name__", "")
        line = {"level": "error", "event": "log_line_lost", "logger": record.name, "reason": kind}
        with suppress(OSError, ValueError):  # when the stream itself is gone there is no other
            self.stream.write(json.dumps(line) + "\n")


class _Redaction:
    """Cleans every value, and makes the line plain data in a steady order."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._clean = redactor(secrets)

    def __call__(self, _: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
        first = {key: event_dict.pop(key) for key in _FIRST if key in event_dict}
        rest = self._clean(event_dict)
        first["event"] = self._clean(first.get("event"))
        return {**first, **(rest if isinstance(rest, dict) else {})}


def _name_foreign(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    """Give a library's line an event name; its sentence becomes a value."""
    if not event_dict["_from_structlog"]:
        is_warning = event_dict.get("logger") == "py.warnings"
        event_dict["message"] = event_dict["event"]
        event_dict["event"] = "python_warning" if is_warning else "library_message"
    return event_dict


def _as_json(_: WrappedLogger, __: str, event_dict: EventDict) -> str:
    return json.dumps(event_dict)


def _console(stream: TextIO) -> list[Processor]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=28,
        sort_keys=False,
    )
    encoding = stream.encoding or "utf-8"

    def harmless(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
        """Escape what would move the cursor or begin a line of its own; a traceback keeps its lines, indented."""
        exception = event_dict.pop("exception", None)
        event_dict["timestamp"] = f"{event_dict.get('timestamp', '')[:19]}Z"
        clean = {key: _printable(value, encoding) for key, value in event_dict.items()}
        if exception:
            clean["exception"] = "\n".join(f"  | {_printable(line, encoding)}" for line in exception.splitlines())
        return clean

    return [harmless, renderer]


def _printable(value: object, encoding: str) -> object:
    if isinstance(value, dict):
        return {_printable(key, encoding): _printable(item, encoding) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item, encoding) for item in value]
    if not isinstance(value, str):
        return value
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _catch_the_uncaught() -> None:
    log = get_logger("watcher")

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            log.warning("interrupted")
        else:
            log.critical("uncaught_exception", exc_info=(kind, error, trace))

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            uncaught(args.exc_type, args.exc_value, args.exc_traceback)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            log.error("unraisable_exception", where=args.err_msg, exc_info=args.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


_COMMON: list[Processor] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# At import, so that a line written before `configure` never reaches standard output, which belongs to results.
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        *_COMMON,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=False,
)
