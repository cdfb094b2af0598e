"""`watcher approve`: lets a withheld purchase go ahead."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from watcher.cli.common import (
    TARGET_FORM,
    log_quietly,
    named_targets,
    now,
    profile_in_force,
    record,
    settings_of,
    who,
)
from watcher.cli.completion import target_names
from watcher.cli.output import UsageProblem, counted, money, say
from watcher.errors import WatcherError

if TYPE_CHECKING:
    from watcher.settings import Settings
    from watcher.store.engine import Session
    from watcher.store.schema import Profile


def approve(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar=TARGET_FORM, autocompletion=target_names, help="The target whose current upload is approved."
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Approve the scoring profile of the settings instead.")
    ] = False,
) -> None:
    """Let a withheld purchase go ahead.

    That is what `limits` or `first_seen = "baseline"` hold back of a target, or everything under a changed scoring
    profile. Approving a target is for the compounds of its current upload, now, not for what comes later. It never
    lifts privacy or the limit of size: those are `limits.submit_private` and `limits.max_heavy_atoms`.
    """
    if (target is None) != profile:
        raise UsageProblem("name a target, or --profile; one of the two")
    settings = settings_of(context)
    log_quietly(settings)
    ahead, stays = asyncio.run(_approve_profile(settings) if target is None else _approve(settings, target))
    if target is not None and not ahead and not stays:
        say(f"Nothing of {target} is withheld.")
        return
    price = settings.molecule_one.price_per_compound
    cost = "" if price is None else f", at a cost of {money(ahead * price)}"
    say(f"{counted(ahead, 'compound')} of {target or 'the scoring profile'} may be sent now{cost}.")
    for reason, number in stays.items():
        say(f"{counted(number, 'compound stays', 'compounds stay')} withheld: {_explained(reason)}")
    if ahead:
        say("`watcher run` sends within seconds, else the next `watcher once` does.")


def _explained(reason: str) -> str:
    from watcher.store.standing import PRIVATE, TOO_LARGE

    if reason == PRIVATE:
        return f"{reason}. Approval does not lift privacy; limits.submit_private = true does"
    if reason == TOO_LARGE:
        return f"{reason}. Approval does not lift it; a higher number does"
    return reason


async def _approve(settings: "Settings", named: str) -> tuple[int, dict[str, int]]:
    from watcher.pipeline.profile import ask_for_approval
    from watcher.store import claims
    from watcher.store.standing import PRIVATE, TOO_LARGE, Policy

    async with record(settings, write=True) as store, store.write() as session:
        found = await named_targets(session, named)
        if len(found) > 1:
            candidates = ", ".join(f"{target.name}@{target.target_access_string}" for target in found)
            raise UsageProblem(f"{named} can be {candidates}; name one of them")
        ids = [found[0].id]
        profile, policy = await _claimed(session, settings), Policy.of(settings.limits)
        held = await claims.withheld_of(session, profile, ids)
        if not held:
            return 0, {}
        if held.keys() <= {PRIVATE, TOO_LARGE}:
            stay = f"{counted(sum(held.values()), 'compound')} of {named} stay withheld"
            raise WatcherError(f"{stay}: {'; '.join(map(_explained, held))}")
        ahead = await claims.approve(session, ids, who=who(), now=now(), profile=profile, policy=policy)
        await ask_for_approval(session, profile, now())
        return ahead, await claims.withheld_of(session, profile, ids)


async def _approve_profile(settings: "Settings") -> tuple[int, dict[str, int]]:
    from watcher.pipeline.profile import ask_for_approval
    from watcher.store import claims, profiles
    from watcher.store.standing import Policy

    async with record(settings, write=True) as store, store.write() as session:
        profile = await _claimed(session, settings)
        await profiles.approve_profile(session, profile, Policy.of(settings.limits), who=who(), now=now())
        await ask_for_approval(session, profile, now())
        waiting = await claims.count_open(session, profile)
        return waiting.pop(None, 0), {reason: number for reason, number in waiting.items() if reason}


async def _claimed(session: "Session", settings: "Settings") -> "Profile":
    """Return the profile in force with a claim for every compound, also when nothing ran under it yet."""
    from watcher.store import claims
    from watcher.store.instance import instance
    from watcher.store.standing import Policy

    profile, policy = await profile_in_force(session, settings), Policy.of(settings.limits)
    scan_no = (await instance(session)).scan_no
    await claims.add_missing(session, profile, policy, upload=None, scan_no=scan_no, now=now())
    await claims.review(session, profile, policy, now=now())
    return profile
