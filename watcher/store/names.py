"""The names of the targets alone, read in the time that a person who types does not notice: without SQLAlchemy."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from watcher.settings import DatabaseSettings
from watcher.store.sqlite_files import mode_to_read, sqlite_uri

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
    uri = sqlite_uri(file, mode_to_read(file))
    with closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S)) as connection:
        connection.execute("PRAGMA query_only=ON")
        return connection.execute("SELECT name, target_access_string FROM target ORDER BY name, id").fetchall()
