"""The files that settings come from: where they are looked for, and how a secret is read.

Free of heavy libraries, for commands that must be quick.
"""

from collections.abc import Mapping
from pathlib import Path

_LARGEST_SECRET_FILE = 64 * 1024


def find_config(path: Path | None, environ: Mapping[str, str], cwd: Path = Path()) -> Path | None:
    """Return the settings file that counts: `path`, `$WATCHER_CONFIG`, `cwd`/config.toml, /etc/watcher/config.toml.

    None when nothing is named and none of the usual places has one. A named file is returned whether it exists or not.
    """
    if path is not None:
        return path
    if named := environ.get("WATCHER_CONFIG"):
        return Path(named)
    return next((place for place in (cwd / "config.toml", Path("/etc/watcher/config.toml")) if _exists(place)), None)


def _exists(place: Path) -> bool:
    try:
        place.stat()
    except FileNotFoundError:
        return False
    except OSError:
        return True  # something is in the way; reading it will say what
    return True


def read_secret(path: Path) -> str:
    """Return the content without its last line end. Raises OSError, or ValueError with a reason."""
    with path.open("rb") as file:
        content = file.read(_LARGEST_SECRET_FILE + 1)
    if len(content) > _LARGEST_SECRET_FILE:
        raise ValueError("larger than 64 KiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    if not text.strip():
        raise ValueError("the file is empty")  # an open door instead of a locked one, if it were accepted
    return text.removesuffix("\n").removesuffix("\r")
