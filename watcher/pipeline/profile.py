"""What follows from the settings in force: the scoring profile with its claims, and the archives."""

from datetime import datetime

from watcher.molecule_one import profile_of
from watcher.pipeline.stage import Context
from watcher.pipeline.uploads import forget_archive_troubles, leave_alone
from watcher.store import claims, legs, overview, profiles, standing, upload_queues
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.instance import instance
from watcher.store.schema import Profile


async def profile_in_force(session: Session, context: Context) -> Profile:
    """Return the profile that the settings say, recorded if it is new."""
    wanted = profile_of(context.settings.molecule_one)
    return await profiles.ensure_profile(
        session, wanted.key, wanted.api_version, wanted.normalised, context.clock.now()
    )


async def adopt_settings(context: Context) -> None:
    """At the start: record the profile in force, claim under it every compound of the current uploads, want archives.

    Or want none: nobody can do anything about an archive that is not asked for.

    Under a profile that nobody approved the claims are withheld, so that it can be seen what they would cost. Targets
    of another stack are left alone until the settings name it again: their ids mean something else on this one.
    """
    now = context.clock.now()
    async with context.store.write() as session:
        for target, _ in await overview.targets_with_current(session):
            if target.followed and target.stack != context.settings.fragalysis.url:
                await leave_alone(session, target, now=now, why="the stack is another now")
        await session.flush()
        profile = await profile_in_force(session, context)
        scan_no = (await instance(session)).scan_no
        await claims.add_missing(session, profile, context.policy, upload=None, scan_no=scan_no, now=now)
        await claims.review(session, profile, context.policy, now=now)
        await ask_for_approval(session, profile, now)
        if context.settings.download.enabled:
            for upload in await upload_queues.left_without_archive(session):
                legs.set_archive_state(session, upload, "wanted", now=now, why="download.enabled is set now")
        else:
            for upload, target in await upload_queues.archives_to_come(session):
                legs.set_archive_state(session, upload, "skipped", now=now, why="download.enabled is not set now")
                await forget_archive_troubles(session, target, upload, now)


async def ask_for_approval(session: Session, profile: Profile, now: datetime) -> None:
    """Say, or stop saying, that compounds wait for a person."""
    waiting = await claims.count_open(session, profile)
    for reason, kind, action in (
        (standing.PROFILE, "profile_waits", "look with `watcher plan`, then `watcher approve --profile`"),
        (standing.SCAN_LIMIT, "scan_limit", "look with `watcher plan`, then `watcher approve TARGET`"),
    ):
        if count := waiting.get(reason):
            await open_condition(
                session,
                "molecule_one",
                kind,
                reason=f"{count} compounds are held back: {reason}",
                action=action,
                now=now,
            )
        else:
            await close_condition(session, "molecule_one", kind, now=now)
