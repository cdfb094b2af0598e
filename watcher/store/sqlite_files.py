"""The files of a SQLite record: how they are named to SQLite, made, and kept as they are by whoever only reads.

Without SQLAlchemy, for the completion of the shell needs it too.
"""

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from watcher.errors import Ours

RESTORING = ".restoring-"
"""In the name of a copy that is about to take the place of the record; the time follows."""


def sqlite_uri(file: str | Path, mode: str) -> str:
    """Name a database file to SQLite as a URI, whatever characters its name has."""
    return f"file:{quote(str(file))}?mode={mode}"


def mode_to_read(record: Path) -> str:
    """Return the mode of the URI for a connection that only reads; neither creates the file.

    A log that a crash left must stay: closing a connection that may write would move it into the record.
    """
    log = Path(f"{record}-wal")
    return "ro" if log.exists() and log.stat().st_size else "rw"


def create_private(file: Path) -> None:
    """Create the file, if it is missing, readable by its owner only; SQLite gives its side files the same mode.

    One that is there is never opened here: closing it again would drop the locks that SQLite holds on it in this
    process (POSIX locks belong to the process), and another process would delete the log of a record in use.
    Raises Ours.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with suppress(FileExistsError):  # another process was faster
                os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        raise Ours(
            f"the database file {file} cannot be opened: {error.strerror}",
            action="set database.url to a place that this user may write to",
        ) from error


def interrupted_restore(record: Path) -> Path | None:
    """Return the copy that was about to take the place of a record when `watcher db restore` was interrupted."""
    with suppress(OSError):
        return next(
            (path for path in record.parent.iterdir() if path.name.startswith(f"{record.name}{RESTORING}")), None
        )
    return None


def refuse_interrupted_restore(record: Path) -> None:
    """Raise Ours when a restore of the record was interrupted: what is there may lack what was paid for."""
    if (copy := interrupted_restore(record)) is not None:
        raise Ours(
            f"a restore of the record {record} was interrupted, so that what is there now may lack what was paid for",
            action=f"call `watcher db restore {copy}`, or `watcher db restore` with another copy",
        )
