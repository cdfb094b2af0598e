"""Plan: what a pass would do, found out by doing it on a copy of the record, without a purchase or a download.

The copy lies in a folder of its own for the moment of the plan. The stages that read Fragalysis and decide are those of
a real pass, so that the plan and the pass cannot differ; what they would send stays in the copy.
"""

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from watcher.chemistry_process import Chemistry
from watcher.clock import Clock
from watcher.errors import Failure, Ours
from watcher.fragalysis import Fragalysis
from watcher.molecule_one import MoleculeOne
from watcher.notify_process import Notifier
from watcher.pipeline.extract import Extract
from watcher.pipeline.holds import holds, told
from watcher.pipeline.profile import adopt_settings, profile_in_force
from watcher.pipeline.scan import Scan
from watcher.pipeline.stage import Context
from watcher.settings import DatabaseSettings, Settings
from watcher.store import allowance, migrate, overview, purchases, rehearsal
from watcher.store.conditions import find
from watcher.store.engine import Store
from watcher.store.profiles import SERVICE
from watcher.store.schema import Target, Upload


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What a pass would do for one target. A compound counts for the first target that holds it."""

    target: str
    target_access_string: str
    uploads_new: tuple[int, ...]
    """Indexes of uploads that the record does not know."""
    upload_index: int | None
    """The upload that would count."""
    download: bool
    observations: int
    send: int
    bought: int
    """Compounds that have their result, or are in a batch already."""
    shared: int
    """Compounds that another target above holds too."""
    withheld: dict[str, int]
    rejected: dict[str, int]
    """Observations without a compound, by the reason."""
    problem: str
    """Why its observations could not be read; empty when they were."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pass would do now."""

    targets: tuple[TargetPlan, ...]
    compounds: int
    """To be sent, each once."""
    batches: int
    cost: float | None
    allowance: int | None
    """Compounds that the daily limit allows before this pass; None without a limit."""
    withheld: dict[str, int]
    profile: str
    profile_approved: bool
    notes: tuple[str, ...]
    """What would keep the pass from doing so."""


async def make_plan(settings: Settings, record: Store | None, *, clock: Clock) -> Plan:
    """Rehearse a pass on a copy of the record (None: there is none yet). Raises the Failure of an unreadable scan."""
    async with _rehearsal(settings, record, clock) as context:
        async with context.store.read() as session:
            known = {upload.id for upload in await rehearsal.all_uploads(session)}
        await adopt_settings(context)
        await Scan(context).step(0)
        problems = await _extract(context)
        notes = await _notes(context)
        async with context.store.read() as session:
            allowed = await allowance.daily_allowance(session, context.policy, clock.now())
        sent = await _reserve(context)
        return await _describe(context, known, sent, problems, notes, allowed)


@asynccontextmanager
async def _rehearsal(settings: Settings, record: Store | None, clock: Clock) -> AsyncIterator[Context]:
    async with AsyncExitStack() as stack:
        try:
            folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="watcher-plan-")
        except OSError as error:
            raise Ours(f"no temporary folder for the plan: {error}", action="set TMPDIR to a writable folder") from None
        stack.push_async_callback(asyncio.to_thread, folder.cleanup)
        place = Path(folder.name) / "copy.db"
        store = await stack.enter_async_context(Store(DatabaseSettings(url=f"sqlite+aiosqlite:///{place}")))
        await migrate.upgrade(store, name="plan", now=clock.now())
        if record is not None:
            async with record.read() as source, store.write() as copy:
                await rehearsal.copy_for_rehearsal(source, copy)
        chemistry = Chemistry(max_heavy_atoms=settings.limits.max_heavy_atoms)
        yield Context(
            settings=settings,
            store=store,
            clock=clock,
            fragalysis=await stack.enter_async_context(Fragalysis(settings, clock=clock)),
            molecule_one=MoleculeOne(settings, clock=clock),  # it is never asked
            chemistry=await stack.enter_async_context(chemistry),
            notifier=Notifier(settings.http),  # nobody is told of a rehearsal
        )


async def _extract(context: Context) -> dict[int, str]:
    """Read what changed; returns what could not be read, by upload."""
    extract = Extract(context)
    problems = {}
    async with context.store.read() as session:
        units = await extract.due(session)
    for unit in units:
        try:
            await extract.step(unit)
        except Failure as failure:
            problems[unit] = failure.message
    return problems


async def _notes(context: Context) -> tuple[str, ...]:
    async with context.store.read() as session:
        held = await holds(session, context.clock.now())
        found = [await find(session, SERVICE, kind) for kind in ("credentials", "read_back")]
    if not context.settings.molecule_one.token.get_secret_value():
        return ("no molecule_one.token is set: nothing is sent",)
    return (*held, *(told(one) for one in found if one is not None))


async def _reserve(context: Context) -> set[int]:
    """Let the copy take the claims batch by batch, as submitting would; returns these batches."""
    sent: set[int] = set()
    while True:
        async with context.store.write() as session:
            batch = await purchases.reserve(
                session,
                await profile_in_force(session, context),
                context.policy,
                token=uuid.uuid4().hex,
                batch_size=context.settings.molecule_one.batch_size,
                build=lambda _: b"",
                now=context.clock.now(),
            )
            if batch is None:
                return sent
            sent.add(batch.id)


async def _describe(
    context: Context,
    known: set[int],
    sent: set[int],
    problems: dict[int, str],
    notes: tuple[str, ...],
    allowed: int | None,
) -> Plan:
    seen: set[int] = set()
    withheld: Counter[str] = Counter()
    async with context.store.write() as session:
        profile = await profile_in_force(session, context)
        uploads = await rehearsal.all_uploads(session)
        planned = []
        for target, upload in await overview.targets_with_current(session):
            if not target.followed or target.stack != context.settings.fragalysis.url:
                continue
            standings = await rehearsal.standings(session, upload.id, profile) if upload else []
            verdicts = await rehearsal.verdicts(session, upload.id) if upload else {}
            new = sorted(one.upload_index for one in uploads if one.target_id == target.id and one.id not in known)
            mine = [one for one in standings if one.compound_id not in seen]
            held = Counter(one.reason or "" for one in mine if one.state == "withheld")
            seen |= {one.compound_id for one in mine}
            withheld += held
            planned.append(
                TargetPlan(
                    target=target.name,
                    target_access_string=target.target_access_string,
                    uploads_new=tuple(new),
                    upload_index=upload.upload_index if upload else None,
                    download=_would_download(context, target, upload),
                    observations=sum(verdicts.values()),
                    send=sum(one.batch_id in sent for one in mine),
                    bought=sum(one.state not in ("wanted", "withheld") and one.batch_id not in sent for one in mine),
                    shared=len(standings) - len(mine),
                    withheld=dict(held),
                    rejected={reason: number for reason, number in verdicts.items() if reason},
                    problem=problems.get(upload.id, "") if upload else "",
                )
            )
    price = context.settings.molecule_one.price_per_compound
    compounds = sum(one.send for one in planned)
    return Plan(
        targets=tuple(planned),
        compounds=compounds,
        batches=len(sent),
        cost=None if price is None else compounds * price,
        allowance=allowed,
        withheld=dict(withheld),
        profile=profile.key,
        profile_approved=profile.approved_at is not None,
        notes=notes,
    )


def _would_download(context: Context, target: Target, upload: Upload | None) -> bool:
    wanted = upload is not None and upload.archive_state == "wanted"
    return wanted and target.listed and context.settings.download.enabled
