"""The folder of a demo: made, or emptied of what an earlier demo left there, and of nothing else."""

import fcntl
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from watcher.cli.output import UsageProblem
from watcher.errors import AlreadyRunning, Ours
from watcher.settings_source import load

if TYPE_CHECKING:
    from watcher.cli.shapes import ApiVersion
    from watcher.sandbox import Sandbox
    from watcher.settings import Settings

CONFIG, RECORD, DOWNLOADS, LOG, SCORES = "config.toml", "watcher.db", "downloads", "demo.log", "scores.csv"
PRICE = 1.0
"""Example price of a compound."""
_MARK = "# Written by `watcher demo`.\n"


def prepared(directory: Path) -> Path:
    """Return the folder, empty. Raises UsageProblem when it holds anything but an earlier demo."""
    place = directory.absolute()
    if "?" in str(place):
        raise UsageProblem(f"{place}: a folder with a question mark in its name cannot hold a record")
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            _empty(place)
        (place / CONFIG).write_text(_MARK, encoding="utf-8")  # from here on it is a demo's, however this one ends
    except OSError as error:
        raise Ours(
            f"{place} cannot be used: {(error.strerror or str(error)).lower()}",
            action="name a folder that can be written with --directory",
        ) from None
    return place


def _empty(place: Path) -> None:
    config = place / CONFIG
    if not config.is_file() or not config.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        raise UsageProblem(f"{place} is not empty and no earlier demo; name another folder with --directory")
    lock = place / f"{RECORD}.lock"
    if lock.exists():
        with lock.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise AlreadyRunning(f"{place} is in use by {handle.read(500).strip() or 'another process'}") from None
    shutil.rmtree(place / DOWNLOADS, ignore_errors=True)
    for name in (RECORD, f"{RECORD}-wal", f"{RECORD}-shm", f"{RECORD}.lock", LOG, SCORES):
        (place / name).unlink(missing_ok=True)


def settings_for(place: Path, sandbox: "Sandbox", api_version: "ApiVersion") -> "Settings":
    """Write the settings of the demo into its folder, and return them. The environment has no say."""
    text = _MARK + _SETTINGS.format(
        stack=sandbox.fragalysis.url,
        session=sandbox.fragalysis.session_token,
        downloads=json.dumps(str(place / DOWNLOADS)),
        base_url=sandbox.molecule_one.url,
        api_version=api_version.value,
        token=sandbox.molecule_one.token,
        price=PRICE,
        record=json.dumps(f"sqlite+aiosqlite:///{place / RECORD}"),
    )
    (place / CONFIG).write_text(text, encoding="utf-8")
    return load(place / CONFIG, environ={})


_SETTINGS = """\
# The two services were up while the demo ran; `watcher sandbox` starts others.

[fragalysis]
stack = "{stack}"
token = "{session}"
requests_per_second = 50.0
max_concurrent_downloads = 2
settle = "0s"

[download]
directory = {downloads}

[molecule_one]
base_url = "{base_url}"
api_version = "{api_version}"
token = "{token}"
requests_per_second = 50.0
poll_interval = "0.5s"
price_per_compound = {price}

[database]
url = {record}

[http]
trust_env = false

[log]
format = "json"
"""
