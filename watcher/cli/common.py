"""What the commands share: the settings, the way into the record, who is asking. Heavy modules are imported inside."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.completion import target_names
from watcher.cli.output import UsageProblem
from watcher.errors import WatcherError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watcher.settings import Settings
    from watcher.store.engine import Session, Store
    from watcher.store.schema import Profile, Target

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
TARGET_FORM = "NAME[@TAS]"
OneTarget = Annotated[
    str | None,
    typer.Option(metavar=TARGET_FORM, help="One target only; all by default.", autocompletion=target_names),
]


class NoRecord(WatcherError):
    """There is no record yet."""


@dataclass
class Call:
    """What is known of this call of the program; the settings once a command has read them."""

    config: Path | None = None
    settings: "Settings | None" = None

    def hide(self, text: str) -> str:
        """Return a text without the secrets of the settings."""
        if self.settings is None:
            return text
        from watcher.redaction import redactor
        from watcher.settings_source import secrets_of

        return str(redactor(secrets_of(self.settings))(text))


def settings_of(context: typer.Context) -> "Settings":
    """Read the settings that this call names. Raises SettingsError."""
    from watcher.settings_source import load

    call = context.find_root().obj
    call.settings = call.settings or load(call.config)
    settings: Settings = call.settings
    return settings


def log_as_set(settings: "Settings") -> None:
    """Send the log to standard error in the form of the settings; say what should be known of them."""
    from watcher import log
    from watcher.settings_source import secrets_of, warnings_of

    log.configure(settings.log, secrets=secrets_of(settings))
    for warning in warnings_of(settings):
        log.get_logger(__name__).warning("settings_warning", reason=warning)


def log_quietly(settings: "Settings") -> None:
    """Keep the log out of a command whose own words say everything; a fault of the program still shows."""
    from watcher import log
    from watcher.settings_source import secrets_of

    log.configure(settings.log.model_copy(update={"level": "error"}), secrets=secrets_of(settings))


@asynccontextmanager
async def record(settings: "Settings", *, write: bool = False) -> AsyncIterator["Store"]:
    """Open the record beside whoever uses it; a missing one is never made.

    Raises NoRecord when there is none, WatcherError when it has another schema, RecordUnavailable.
    """
    from watcher.notices import subscription_of
    from watcher.store import migrate
    from watcher.store.engine import Store

    store = Store(settings.database, read_only=True)  # opens nothing yet
    absent = NoRecord(f"there is no record at {store.label} yet; `watcher once` or `watcher run` makes it")
    if store.sqlite_file is not None and not store.sqlite_file.exists():
        raise absent
    if write:
        store = Store(settings.database, subscription=subscription_of(settings.notify))
    async with store:
        revision = await migrate.revision(store)
        if revision is None:
            raise absent
        if revision != migrate.HEAD:
            version = await migrate.written_by(store)
            raise WatcherError(
                f"the record {store.label} has schema {revision}{f' (of version {version})' if version else ''}, "
                f"this program reads {migrate.HEAD}; "
                "`watcher db upgrade` brings an older record up to date, a newer one needs the newer program"
            )
        yield store


async def named_targets(session: "Session", text: str) -> "Sequence[Target]":
    """Return the recorded targets of NAME, or of NAME@TAS. Raises UsageProblem when there is none."""
    from watcher.store import targets

    found = await targets.find_by_name(session, text, None)
    if not found and "@" in text:
        name, _, tas = text.rpartition("@")
        found = await targets.find_by_name(session, name, tas)
    if not found:
        raise UsageProblem(f"no target {text} is in the record; `watcher status` lists them")
    return found


async def profile_in_force(session: "Session", settings: "Settings") -> "Profile":
    """Return the scoring profile that the settings say, recorded if it is new."""
    from watcher.molecule_one import profile_of
    from watcher.store import profiles

    wanted = profile_of(settings.molecule_one)
    return await profiles.ensure_profile(session, wanted.key, wanted.api_version, wanted.normalised, now())


def now() -> datetime:
    """Return the time of day in UTC."""
    return datetime.now(UTC)


def who() -> str:
    """Return the name of the person who types, for the record."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"user {os.getuid()}"
