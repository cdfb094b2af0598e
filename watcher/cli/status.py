"""`watcher status`: what the record holds, what is allowed, and what is not well."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from watcher.cli.common import AsJson, NoRecord, log_quietly, now, record, settings_of
from watcher.cli.output import in_words, money, say, say_json, shown
from watcher.cli.targets import print_targets

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.target_views import TargetView


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what there is, and what needs attention.

    Targets, uploads, batches, claims and the budget. Works beside `watcher run`. A claim is one compound to be scored
    under one scoring profile.
    """
    settings = settings_of(context)
    log_quietly(settings)
    try:
        document, targets = asyncio.run(_status(settings))
    except NoRecord as absent:
        document, targets = _empty(settings), []
        if not as_json:
            say(str(absent))
            return
    if as_json:
        say_json(document)
    else:
        _print(document, targets)


async def _status(settings: "Settings") -> "tuple[dict[str, Any], list[TargetView]]":
    from watcher.store import allowance, migrate, overview, target_views
    from watcher.store.instance import instance
    from watcher.store.standing import Policy

    policy = Policy.of(settings.limits)
    async with record(settings) as store, store.read() as session:
        counts = await overview.counts(session)
        attention = await overview.needs_attention(session)
        own = await instance(session)
        targets = await target_views.target_views(session, archives=settings.download.enabled)
        document: dict[str, Any] = {
            "targets": counts.targets,
            "targets_detail": [asdict(one) for one in targets],
            "uploads": _both_legs(counts.archives, counts.scorings),
            "upload_legs": {"archive": counts.archives, "scoring": counts.scorings},
            "batches": counts.batches,
            "claims": counts.claims,
            "withheld": counts.withheld,
            "needs_attention": [
                {"kind": c.kind, "subject": c.subject, "reason": c.reason, "action": c.action, "since": c.since}
                for c in attention
            ],
            "last_scan_at": own.last_scan_at,
            "schema_version": migrate.HEAD,
            "program_version": own.program_version,
            "record": store.label,
            "budget": {
                "sent_in_24_hours": await allowance.sent_within_a_day(session, now()),
                "compounds_per_day": policy.compounds_per_day or None,
                "allowance": await allowance.daily_allowance(session, policy, now()),
                "price_per_compound": settings.molecule_one.price_per_compound,
            },
        }
    return document, targets


def _both_legs(*legs: dict[str, int]) -> dict[str, int]:
    """Count states over both legs: an upload has one state in each, and only `quarantined` can be in both."""
    return {state: sum(leg.get(state, 0) for leg in legs) for state in dict.fromkeys(s for leg in legs for s in leg)}


def _empty(settings: "Settings") -> dict[str, Any]:
    limit = settings.limits.compounds_per_day or None
    return {
        "targets": {},
        "targets_detail": [],
        "uploads": {},
        "upload_legs": {"archive": {}, "scoring": {}},
        "batches": {},
        "claims": {},
        "withheld": {},
        "needs_attention": [],
        "last_scan_at": None,
        "schema_version": None,
        "program_version": None,
        "record": None,
        "budget": {
            "sent_in_24_hours": 0,
            "compounds_per_day": limit,
            "allowance": limit,
            "price_per_compound": settings.molecule_one.price_per_compound,
        },
    }


def _print(document: dict[str, Any], targets: "list[TargetView]") -> None:
    legs, budget = document["upload_legs"], document["budget"]
    say(
        f"Record        {document['record']}, schema {document['schema_version']}, "
        f"written by version {document['program_version']}"
    )
    say(f"Last scan     {shown(document['last_scan_at']) or 'none yet'}")
    say(f"Archives      {in_words(legs['archive'])}")
    say(f"Scoring       {in_words(legs['scoring'])}")
    say(f"Batches       {in_words(document['batches'])}")
    say(f"Claims        {in_words({name.replace('_', ' '): n for name, n in document['claims'].items()})}")
    for reason, number in document["withheld"].items():
        say(f"  withheld    {number}: {reason}")
    say(f"Sent in 24 h  {_budget(budget)}")
    say()
    print_targets(targets)
    say()
    if not document["needs_attention"]:
        say("Nothing needs attention.")
        return
    say(f"Needs attention: {len(document['needs_attention'])}", bold=True)
    for one in document["needs_attention"]:
        say(f"  {one['subject']}: {one['kind']}, since {shown(one['since'])}")
        say(f"    why         {one['reason']}")
        say(f"    what to do  {one['action']}")


def _budget(budget: dict[str, Any]) -> str:
    sent, price = budget["sent_in_24_hours"], budget["price_per_compound"]
    cost = "" if price is None else f" (cost {money(sent * price)})"
    if budget["allowance"] is None:
        return f"{sent}{cost}; there is no daily limit"
    return f"{sent} of {budget['compounds_per_day']} compounds{cost}; {budget['allowance']} more are allowed now"
