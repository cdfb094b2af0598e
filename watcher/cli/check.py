"""`watcher check`: whether a run would find what it needs."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from watcher.cli.common import AsJson, log_quietly, settings_of
from watcher.cli.output import say, say_json
from watcher.errors import AuthFailure, Failure, Invalid, SettingsError, WatcherError

if TYPE_CHECKING:
    from watcher.settings import Settings

LEAST_FREE = 10**9
"""Bytes; below that the next archive may not fit."""
Verdict = tuple[str, str]
"""What was found, and what to do about it (empty: nothing)."""


def check(context: typer.Context, as_json: AsJson = False) -> None:
    """Check settings, database, disk, services and credentials.

    It prints a line each: "ok", or what is wrong and what to do. Nothing is changed, bought or downloaded. Exit code 1
    when a line is not ok.
    """
    settings = settings_of(context)
    log_quietly(settings)
    hide = context.find_root().obj.hide
    lines = [
        {"subject": subject, "ok": not action, "found": hide(found), "action": hide(action)}
        for subject, (found, action) in asyncio.run(_check(settings, context.find_root().obj.config))
    ]
    if as_json:
        say_json(lines)
    else:
        for line in lines:
            say(f"{line['subject']:13}{'ok' if line['ok'] else 'NOT OK'}: {line['found']}")
            if not line["ok"]:
                say(f"{'':13}what to do: {line['action']}")
    raise typer.Exit(0 if all(line["ok"] for line in lines) else 1)


async def _check(settings: "Settings", config: Path | None) -> list[tuple[str, Verdict]]:
    database, fragalysis, molecule_one, notify = await asyncio.gather(
        _database(settings), _fragalysis(settings), _molecule_one(settings), _notify(settings)
    )
    return [
        *(("settings", verdict) for verdict in await asyncio.to_thread(_settings, settings, config)),
        ("database", database),
        ("disk", await asyncio.to_thread(_disk, settings)),
        ("fragalysis", fragalysis),
        ("molecule_one", molecule_one),
        ("notify", notify),
    ]


def _settings(settings: "Settings", config: Path | None) -> list[Verdict]:
    from watcher.settings_files import find_config
    from watcher.settings_source import warnings_of

    found = find_config(config, os.environ)
    origin = f"from {found} and the environment" if found else "no file found: defaults and the environment"
    return [(origin, ""), *((f"{warning}", "") for warning in warnings_of(settings))]


async def _database(settings: "Settings") -> Verdict:
    from watcher.store import migrate
    from watcher.store.engine import Store

    store = Store(settings.database, read_only=True)
    file = store.sqlite_file
    if file is not None and not await asyncio.to_thread(file.exists):
        problem = await asyncio.to_thread(_unwritable, file.parent)
        found = f"{file} is not there yet; the first `watcher once` or `watcher run` makes it"
        return (problem, "set database.url to a place that this user may write to") if problem else (found, "")
    if file is not None and not os.access(file, os.W_OK):
        return f"{file} may not be written by this user", "give the user the file, or set database.url elsewhere"
    try:
        async with store:
            revision = await migrate.revision(store)
            version = await migrate.written_by(store) if revision else None
    except WatcherError as error:
        return str(error), "look at database.url, and whether the database runs"
    if revision in (None, migrate.HEAD):
        state = f"schema {revision}, written by version {version}" if revision else "empty; the first run fills it"
        return f"{store.label}, {state}", ""
    state = f"schema {revision}{f' (of version {version})' if version else ''}"
    return (
        f"{store.label} has {state}, this program writes {migrate.HEAD}",
        "`watcher db upgrade` for an older record; the newer program for a newer one",
    )


def _disk(settings: "Settings") -> Verdict:
    if not settings.download.enabled:
        return "download.enabled is false: nothing is kept on the disk", ""
    directory = settings.download.directory.absolute()
    if problem := _unwritable(directory):
        return problem, "set download.directory to a place that this user may write to"
    free = shutil.disk_usage(_existing(directory)).free
    found = f"{directory}, {free / 10**9:.1f} GB free"
    return found, "make room: archives reach several GB" if free < LEAST_FREE else ""


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def _unwritable(directory: Path) -> str:
    """Say why files cannot be made in a directory, or in what is there of it; empty when they can."""
    place = _existing(directory.absolute())
    if not place.is_dir():
        return f"{place} is no directory"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} may not be written by this user"


async def _fragalysis(settings: "Settings") -> Verdict:
    from watcher.clock import SystemClock
    from watcher.fragalysis import Fragalysis

    url = settings.fragalysis.url
    has_token = bool(settings.fragalysis.token.get_secret_value())
    try:
        async with Fragalysis(settings, clock=SystemClock()) as fragalysis:
            user = await fragalysis.user()
            targets = await fragalysis.target_list()
    except Failure as failure:
        return _failed(url, failure, "fragalysis.stack")
    if has_token and user is None:
        return (
            f"{url} does not know the session of fragalysis.token: it answers as to anybody",
            "sign in with a browser and copy the new value of the `sessionid` cookie to fragalysis.token",
        )
    private = sum(not target.open_to_public for target in targets)
    seen = f"{len(targets)} targets, {private} of them not open to the public"
    if has_token:
        return f"{url}, signed in as {user}, {seen}", ""
    return f"{url}, anonymous (fragalysis.token is empty: public targets only), {seen}", ""


async def _molecule_one(settings: "Settings") -> Verdict:
    from watcher.clock import SystemClock
    from watcher.molecule_one import BatchUnknown, MoleculeOne

    own = settings.molecule_one
    place = f"{own.base_url}, API {own.api_version}"
    if not own.token.get_secret_value():
        return "no token is set, so nothing can be bought", "set molecule_one.token or molecule_one.token_file"
    try:
        async with MoleculeOne(settings, clock=SystemClock()) as service:
            listing = await service.list_batches()
            if listing is not None:
                return f"{place}, the token is accepted, {len(listing.batches)} batches are listed", ""
            # without a listing, the service's own words about a batch that cannot be are what proves it
            await service.status("00000000-0000-0000-0000-000000000000")
    except BatchUnknown:
        pass
    except Invalid:
        pass  # it reads the id and does not like it: it is there, and knows us
    except Failure as failure:
        return _failed(place, failure, "molecule_one.base_url and api_version")
    return f"{place}, the token is accepted; it has no list of batches, so doubtful purchases need a person", ""


async def _notify(settings: "Settings") -> Verdict:
    from watcher.notify_process import Notifier
    from watcher.notify_process import check as check_urls

    if not settings.notify.urls:
        return "notify.urls is empty: nobody is told anything", ""
    try:
        await check_urls(settings.notify, Notifier(settings.http))
    except SettingsError as error:
        return str(error).replace("\n", "; "), "write it as the documentation of Apprise says for this service"
    except Failure as failure:
        return failure.message, failure.action or "look at the memory and processes of this machine"
    return f"{len(settings.notify.urls)} URLs that Apprise can use; `watcher notify test` sends something", ""


def _failed(place: str, failure: Failure, key: str) -> Verdict:
    """Say what stands in the way, and whose turn it is."""
    found = f"{place}: {failure.message}"
    if isinstance(failure, AuthFailure) and failure.action:
        return found, failure.action
    network = ("does not resolve", "no connection to", "timed out", "certificate", "proxy")
    if any(words in failure.message for words in network):
        return found, f"look at the network and proxy of this machine, and whether {key} is right"
    return found, failure.action or f"look at {key}: this is not the answer of the service that belongs there"
