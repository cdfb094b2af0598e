"""What every command prints with: plain text when piped, Rich on a terminal, and nothing that moves the cursor.

Names come from servers and may hold anything, so each text is made printable before it is shown, and none is read as
markup.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from watcher.errors import WatcherError


class UsageProblem(WatcherError):
    """The command was called with something that cannot be; exit 2."""


def clean(text: object) -> str:
    """Return a text on one line without control characters; they are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def on_terminal(stream: TextIO | None = None) -> bool:
    """Say whether a person looks at the stream (default: standard output) and it can show more than lines."""
    stream = stream or sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def say(text: str = "", *, bold: bool = False, error: bool = False) -> None:
    """Print one line; no name within the text begins another one."""
    stream = sys.stderr if error else sys.stdout
    line = clean(text)
    if bold and on_terminal(stream) and not os.environ.get("NO_COLOR"):
        line = f"\033[1m{line}\033[0m"
    try:
        print(line, file=stream)
    except UnicodeEncodeError:
        print(line.encode("ascii", "backslashreplace").decode(), file=stream)


def say_json(document: object) -> None:
    """Print a document as JSON; what is not ASCII is escaped, so that it passes any terminal and pipe."""
    print(json.dumps(document, indent=2, default=_plain))  # noqa: T201


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", numbers: Sequence[int] = ()
) -> None:
    """Print a table; the columns of `numbers` are aligned to the right. Piped, no cell is ever cut or wrapped."""
    cells = [[clean(shown(cell)) for cell in row] for row in rows]
    if title:
        say(title, bold=True)
    if on_terminal():
        _rich_table(headers, cells, numbers)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        padded = [
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(padded).rstrip())


def shown(value: object) -> str:
    """Return a value as people read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        case _:
            return str(value)


def when(moment: datetime | None, now: datetime, *, due: str = "") -> str:
    """Return how long ago a moment was, or in how long it will be: `2 h ago`, `in 5 min`; `due` for one in the past."""
    if moment is None:
        return ""
    ahead = (moment - now).total_seconds()
    if ahead <= 0 and due:
        return due
    seconds = abs(ahead)
    units = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
    name, length = next((unit for unit in units if seconds >= 2 * unit[1]), units[-1])
    return f"in {seconds / length:.0f} {name}" if ahead > 0 else f"{seconds / length:.0f} {name} ago"


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 batch`, `2 batches`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def in_words(counts: dict[str, int]) -> str:
    """Return counts by name as one phrase: `3 scored, 1 failed`; `none` when there are none."""
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "none"


def size(number: int) -> str:
    """Return a number of bytes as people read it."""
    for unit, bytes_ in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= bytes_:
            return f"{number / bytes_:.1f} {unit}"
    return f"{number} bytes"


def money(amount: float) -> str:
    """Return an amount in the currency of `molecule_one.price_per_compound`."""
    return f"{amount:,.2f}"


def _plain(value: object) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if sum(len(header) + 2 for header in headers) > console.width:  # not even the headers fit: a line for each cell
        for row in cells:
            for header, cell in zip(headers, row, strict=True):
                if cell:
                    say(f"{header}: {cell}")
            say()
        return
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, header in enumerate(headers):
        grid.add_column(Text(header), justify="right" if place in numbers else "left", overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)
