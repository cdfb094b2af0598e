"""The names of the targets alone, read in the time that a person who types does not notice: without SQLAlchemy."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from watcher.settings import DatabaseSettings

_PREFIX = "sqlite+aiosqlite:///"
_PATIENCE_S = 0.2


def target_names(settings: DatabaseSettings) -> list[tuple[str, str]]:
    """Return name and target access string of each target in a SQLite record; none of another database.

    Raises sqlite3.Error when it cannot be read.
    """
    url = settings.url.get_secret_value()
    if not url.startswith(_PREFIX):
        return []
    file = Path(unquote(url.removeprefix(_PREFIX).partition("?")[0]))
    if not file.is_file():
        return []
    # A log that a crash left must stay: a connection that may write would move it into the record.
    log = Path(f"{file}-wal")
    mode = "ro" if log.exists() and log.stat().st_size else "rw"
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode={mode}", uri=True, timeout=_PATIENCE_S)) as connection:
        connection.execute("PRAGMA query_only=ON")
        return connection.execute("SELECT name, target_access_string FROM target ORDER BY name, id").fetchall()
