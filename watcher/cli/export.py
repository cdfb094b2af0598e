"""`watcher export`: the scores as a table."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import astuple
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import OneTarget, log_quietly, named_targets, record, settings_of
from watcher.cli.output import clean, on_terminal
from watcher.errors import Ours

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.export import Row


_PLAIN = re.compile(r"[^,;\t\r\n\"]*")


class Format(StrEnum):
    """What the table is written as."""

    CSV = "csv"
    JSONL = "jsonl"


def export(
    context: typer.Context,
    form: Annotated[Format, typer.Option("--format", help="csv, or jsonl: one JSON object a line.")] = Format.CSV,
    target: OneTarget = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it; standard output by default.")
    ] = None,
) -> None:
    """Write the scores as a table.

    It has one row for each observation of each target's current upload. A file appears whole or not at all. In CSV,
    text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    settings = settings_of(context)
    log_quietly(settings)
    asyncio.run(write_table(settings, form, target, output))


async def write_table(settings: "Settings", form: Format, target: str | None, output: Path | None) -> None:
    """Write the scores to a file, or to standard output. Raises NoRecord, UsageProblem and Ours."""
    with _opened(output) as file:
        await _write(settings, form, target, file)


async def _write(settings: "Settings", form: Format, target: str | None, file: IO[bytes]) -> None:
    from watcher.store.export import COLUMNS

    text = _csv_line(COLUMNS) if form is Format.CSV else ""
    write = _csv if form is Format.CSV else _jsonl
    seen = file is sys.stdout.buffer and on_terminal()
    async with aclosing(_by_target(settings, target)) as found:
        async for rows in found:
            text += "".join(map(write, rows))
            await asyncio.to_thread(file.write, _encoded(_harmless(text) if seen else text))
            text = ""
    await asyncio.to_thread(file.write, _encoded(text))


async def _by_target(settings: "Settings", named: str | None) -> AsyncGenerator[list["Row"], None]:
    """Yield the rows of one target after the other; the record is not kept open while they are written."""
    from watcher.molecule_one import profile_of
    from watcher.store import overview
    from watcher.store.export import rows

    key = profile_of(settings.molecule_one).key
    async with record(settings) as store:
        async with store.read() as session:
            if named is None:
                ids = [target.id for target, _ in await overview.targets_with_current(session)]
            else:
                ids = [target.id for target in await named_targets(session, named)]
        for target_id in ids:
            async with store.read() as session:
                found = [row async for row in rows(session, profile_key=key, target_ids=[target_id])]
            yield found


def _csv(row: "Row") -> str:
    return _csv_line([_cell(value) for value in astuple(row)])


def _csv_line(cells: Iterable[object]) -> str:
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: object) -> str:
    """Quote a cell as RFC 4180 says, and also where a spreadsheet that separates by `;` or tab would begin another."""
    text = str(cell)
    return text if _PLAIN.fullmatch(text) else '"{}"'.format(text.replace('"', '""'))


def _cell(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case str() if value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
            return f"'{value}"
        case _:
            return value


def _jsonl(row: "Row") -> str:
    from watcher.store.export import COLUMNS

    values = (value.isoformat() if isinstance(value, datetime) else value for value in astuple(row))
    return json.dumps(dict(zip(COLUMNS, values, strict=True))) + "\n"


def _harmless(text: str) -> str:
    """Return what a terminal may show: without what moves its cursor."""
    return "\n".join(clean(line) for line in text.split("\n"))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # a server can send half of a character


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """Open standard output, or a file that takes the place of the old one once all is written."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    output = output.resolve()
    if output.exists() and not output.is_file():  # a pipe or device is written to, never replaced
        with _disk(output), output.open("wb") as file:
            yield file
        return
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with _disk(output), part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _disk(output):
            part.replace(output)
    finally:
        with _disk(output):
            part.unlink(missing_ok=True)


@contextmanager
def _disk(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Ours(
            f"{output} cannot be written: {(error.strerror or str(error)).lower()}",
            action="name a file in a writable folder with --output",
        ) from None
