"""`watcher targets`, `watcher uploads`, `watcher history`: looking into the record, beside whoever uses it."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watcher.cli.common import TARGET_FORM, AsJson, OneTarget, log_quietly, named_targets, now, record, settings_of
from watcher.cli.completion import target_names
from watcher.cli.output import counted, say, say_json, shown, size, table, when

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.target_views import Event, TargetView, UploadView

_ARCHIVE = {
    "wanted": "its archive is to be fetched",
    "stored": "its archive is stored",
    "unavailable": "its archive cannot be built by the server",
    "skipped": "its archive is not fetched",
    "quarantined": "its archive is set aside",
    "pruned": "its archive is removed",
}
_SCORING = {
    "detected": "its observations are to be read",
    "extracted": "its observations are read",
    "scored": "its compounds have their results",
    "history": "it does not count",
    "quarantined": "its observations are set aside",
}
_BATCH = {
    "submitting": "is about to be sent",
    "submitted": "is at Molecule.one",
    "finished": "is calculated",
    "collected": "has its results in the record",
    "closed": "was not bought",
    "unconfirmed": "may have been bought: nobody knows",
    "released": "is given up",
    "lost": "is not known to Molecule.one any more",
}


def targets(context: typer.Context, as_json: AsJson = False) -> None:
    """List the targets: what the last scan saw, what is recorded, and what is tried next.

    Works beside `watcher run`, and changes nothing.
    """
    settings = settings_of(context)
    log_quietly(settings)
    found = asyncio.run(_targets(settings))
    if as_json:
        say_json([asdict(one) for one in found])
    else:
        print_targets(found)


def uploads(
    context: typer.Context,
    target: OneTarget = None,
    as_json: AsJson = False,
) -> None:
    """List the uploads, and where the archive and the scoring of each stand.

    Works beside `watcher run`, and changes nothing.
    """
    settings = settings_of(context)
    log_quietly(settings)
    found = asyncio.run(_uploads(settings, target))
    if as_json:
        say_json([asdict(one) for one in found])
        return
    rows = [
        (
            one.target, one.target_access_string, one.upload_index, "now" if one.counts_now else "", one.committed_at,
            one.archive, size(one.archive_bytes) if one.archive_bytes else None, one.scoring, one.observations,
            one.scoring_error or one.archive_error,
        )
        for one in found
    ]  # fmt: skip
    headers = ("target", "TAS", "upload", "counts", "committed", "archive", "size", "scoring", "obs.", "why")
    table(headers, rows, numbers=(2, 6, 8)) if rows else say("There are no uploads yet.")


def history(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help=f"{TARGET_FORM} of a target.", autocompletion=target_names)
    ],
    as_json: AsJson = False,
) -> None:
    """Tell what happened to a target, to its uploads and to the batches of its compounds.

    In the order of time, in UTC, as far back as `database.keep_transitions`. Works beside `watcher run`, and changes
    nothing.
    """
    settings = settings_of(context)
    log_quietly(settings)
    stories = asyncio.run(_history(settings, target))
    if as_json:
        say_json(
            [{"target": label, **asdict(event), "text": told(event)} for label, found in stories for event in found]
        )
        return
    for number, (label, found) in enumerate(stories):
        if number:
            say()
        say(label, bold=True)
        for event in found:
            say(f"{shown(event.at)}  {told(event)}")


def told(event: "Event") -> str:
    """Tell one event in words: a pure function."""
    what = f"{event.subject}: {_what(event)}" if event.subject != "target" else _what(event)
    why = f": {event.why}" if event.why else ""
    return what + why + ("" if event.who == "watcher" else f" (by {event.who})")


def _what(event: "Event") -> str:
    old, new = event.old, event.new
    match event.field:
        case "seen" if event.subject == "target":
            return "first seen"
        case "seen":
            return f"recorded, committed {new}"
        case "current_upload_index":
            before = f", before it was upload {old}" if old else ""
            return f"upload {new} counts now{before}" if new else f"no upload counts any more{before}"
        case "archive":
            return _ARCHIVE.get(str(new), str(new))
        case "scoring":
            return _SCORING.get(str(new), str(new))
        case "state":
            return _BATCH.get(str(new), str(new))
        case "share":
            return f"{new} compounds of it are of this target"
        case "condition":
            return f"not well, {new}" if new else f"well again, no more {old}"
        case field:
            return f"{field} went from {old} to {new}"


def print_targets(found: "list[TargetView]") -> None:
    """Print the targets as a table, times as ages."""
    if not found:
        say("There are no targets yet.")
        return
    moment = now()
    rows = [
        (
            one.target,
            one.target_access_string,
            one.remote_index,
            one.recorded_index,
            one.archive,
            one.scoring,
            when(one.recorded_at, moment),
            when(one.last_success_at, moment),
            when(one.next_try_at, moment, due="now"),
            _remarks(one),
        )
        for one in found
    ]
    headers = (
        "target",
        "TAS",
        "remote",
        "recorded",
        "archive",
        "scoring",
        "since",
        "last success",
        "next try",
        "remarks",
    )
    table(headers, rows, title=counted(len(found), "target"), numbers=(2, 3))


def _remarks(one: "TargetView") -> str:
    facts = ((not one.open_to_public, "private"), (not one.followed, "not followed"), (not one.listed, "gone"))
    return ", ".join(words for holds, words in facts if holds)


async def _targets(settings: "Settings") -> "list[TargetView]":
    from watcher.store.target_views import target_views

    async with record(settings) as store, store.read() as session:
        return await target_views(session, archives=settings.download.enabled)


async def _uploads(settings: "Settings", target: str | None) -> "list[UploadView]":
    from watcher.store.target_views import upload_views

    async with record(settings) as store, store.read() as session:
        only = None if target is None else [one.id for one in await named_targets(session, target)]
        return await upload_views(session, only)


async def _history(settings: "Settings", target: str) -> "list[tuple[str, list[Event]]]":
    from watcher.pipeline.uploads import label_of
    from watcher.store.target_views import events

    async with record(settings) as store, store.read() as session:
        found: list[Any] = list(await named_targets(session, target))
        return [(f"{one.name}@{one.target_access_string}", await events(session, one, label_of(one))) for one in found]
