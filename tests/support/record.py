"""Words to fill a record with, as the stages do it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tests.support.clock import START
from watcher.settings import DatabaseSettings
from watcher.store import batches, claims, compounds, invariants, legs, profiles, purchases, results, targets
from watcher.store.compounds import Seen, Verdict
from watcher.store.engine import Store
from watcher.store.instance import instance
from watcher.store.invariants import Finding
from watcher.store.results import Result
from watcher.store.schema import Alias, Batch, Claim, Compound, Instance, Profile, Target, Upload
from watcher.store.standing import Policy

STACK = "https://fragalysis.example"
CHEMISTRY = "today"
SERVER = "127.0.0.1:5432"
"""PostgreSQL, where there is one."""
DAY = timedelta(days=1)
DRAWN = {
    None: {"submitting", "submitted"},  # the latter if it was read back
    "submitting": {"submitted", "closed", "unconfirmed"},
    "unconfirmed": {"submitted", "released"},
    "submitted": {"finished", "lost", "released"},
    "finished": {"collected", "lost", "released"},
    "lost": {"submitted", "released"},
    "released": {"submitted"},
    "closed": {"submitted"},
    "collected": set[str](),
}
"""What docs/architecture.md draws of a batch: the states that follow each. Nothing ever leaves `collected`."""


def settings_for_file(file: Path, **values: Any) -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{file}"), **values)


def settings_for_database(name: str, **values: Any) -> DatabaseSettings:
    return DatabaseSettings(url=SecretStr(f"postgresql+asyncpg://postgres@{SERVER}/{name}"), **values)


def verdict(raw: str) -> Verdict:
    """What a chemistry would say that takes every text for a molecule, except for those that begin with `bad`."""
    if raw.startswith("bad"):
        return Verdict(raw, reason="unparsable", detail="it is bad")
    return Verdict(raw, smiles=raw, inchikey=f"KEY-{raw}", heavy_atoms=len(raw), sa_score=2.5)


def seen(raws: Sequence[str], *, first: int = 1) -> list[Seen]:
    return [Seen(n, f"code-{n}", f"longcode-{n}", f"Z{n}", raw) for n, raw in enumerate(raws, start=first)]


def result(smiles: str, kind: str = "scored", value: float | None = 3.5, *, raw: str | None = None) -> Result:
    return Result(
        kind=kind,
        smiles=smiles,
        status="error" if kind == "failed" else "ok",
        reason="the service answered error" if kind == "failed" else None,
        result=value,
        certainty=0.75,
        price_usd=12.5,
        reaction_count=2,
        timed_out=False,
        route='{"step":1}',
        raw=raw or f'{{"targetSmiles":"{smiles}","result":{value},"kind":"{kind}"}}',
    )


@dataclass
class World:
    """A record, the time in it and the settings it is used with."""

    store: Store
    now: datetime = START
    policy: Policy = field(default_factory=Policy)
    profile_key: str = "profile-1"
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def begin(cls, store: Store) -> "World":
        world = cls(store)
        async with store.write() as session:
            await world.profile(session)
        return world

    async def profile(self, session: AsyncSession) -> Profile:
        return await profiles.ensure_profile(session, self.profile_key, "v1", "{}", self.now)

    async def scan(self) -> int:
        """Begin another scan."""
        async with self.store.write() as session:
            own = await instance(session)
            own.scan_no += 1
            return own.scan_no

    async def target(self, name: str = "A", *, tas: str = "lb1", public: bool | None = True) -> int:
        async with self.store.write() as session:
            target = await targets.add_target(
                session, stack=STACK, remote_id=next(self.numbers), name=name, tas=tas, open_to_public=public,
                now=self.now,
            )  # fmt: skip
            return target.id

    async def change(self, target_id: int, **values: object) -> None:
        """Change a target as a scan does, and review what follows."""
        async with self.store.write() as session:
            target = await session.get_one(Target, target_id)
            for name, value in values.items():
                setattr(target, name, value)
            await claims.review(session, await self.profile(session), self.policy, now=self.now)

    async def upload(
        self, target_id: int, raws: Sequence[str], *, extracted: bool = True, baseline: bool = False
    ) -> int:
        """Record an upload and make it current; with `extracted`, read its observations too."""
        async with self.store.write() as session:
            target = await session.get_one(Target, target_id)
            scan_no = (await instance(session)).scan_no
            key = (next(self.numbers), self.now + timedelta(seconds=next(self.numbers)))
            upload = await targets.add_upload(session, target, key, scan_no=scan_no, now=self.now)
            await legs.make_current(session, target, upload, keep_archive=True, now=self.now, why="new")
            if baseline:
                target.baseline_upload_id = upload.id
            upload_id = upload.id
        if extracted:
            await self.read(upload_id, raws)
        return upload_id

    async def read(self, upload_id: int, raws: Sequence[str]) -> int:
        """Read the observations of an upload, again or for the first time; returns how many claims were made."""
        async with self.store.write() as session:
            upload = await session.get_one(Upload, upload_id)
            unjudged = await compounds.unjudged(session, raws, CHEMISTRY)
            await compounds.record_verdicts(
                session, [verdict(raw) for raw in unjudged], chemistry=CHEMISTRY, now=self.now
            )
            await compounds.record_observations(session, upload_id, seen(raws), now=self.now)
            profile = await self.profile(session)
            made = await claims.add_missing(
                session, profile, self.policy, upload=upload, scan_no=upload.scan_no, now=self.now
            )
            await claims.review(session, profile, self.policy, now=self.now)
            upload.extracted_at = upload.extracted_at or self.now
            if upload.scoring_state != "extracted":
                legs.set_scoring_state(session, upload, "extracted", now=self.now, why="read")
            return made

    async def approve(self, *target_ids: int) -> int:
        async with self.store.write() as session:
            profile = await self.profile(session)
            return await claims.approve(
                session, target_ids, who="someone", now=self.now, profile=profile, policy=self.policy
            )

    async def approve_profile(self) -> None:
        async with self.store.write() as session:
            profile = await self.profile(session)
            await profiles.approve_profile(session, profile, self.policy, who="someone", now=self.now)

    async def review(self) -> None:
        async with self.store.write() as session:
            await claims.review(session, await self.profile(session), self.policy, now=self.now)

    async def reserve(self, batch_size: int = 1000) -> int | None:
        """Commit the intent to buy; returns the batch."""
        async with self.store.write() as session:
            batch = await purchases.reserve(
                session, await self.profile(session), self.policy, token=f"token-{next(self.numbers)}",
                batch_size=batch_size, build=lambda smiles: "\n".join(smiles).encode(), now=self.now,
            )  # fmt: skip
            return batch.id if batch else None

    async def buy(self, batch_size: int = 1000) -> int | None:
        """Reserve, and have it accepted."""
        batch_id = await self.reserve(batch_size)
        if batch_id is not None:
            await self.accept(batch_id)
        return batch_id

    async def accept(self, batch_id: int, remote_id: str | None = None) -> None:
        async with self.store.write() as session:
            batch = await batches.get(session, batch_id)
            batch.outcome = "accepted"
            await batches.accepted(
                session, batch, remote_id or batch.remote_id or f"remote-{batch_id}", due_at=self.now, now=self.now,
                why="accepted",
            )  # fmt: skip

    async def close_unsent(self, batch_id: int) -> None:
        async with self.store.write() as session:
            await batches.close_unsent(session, await batches.get(session, batch_id), why="not sent", now=self.now)

    async def refuse(self, batch_id: int, words: str = "no such molecule") -> None:
        async with self.store.write() as session:
            batch = await batches.get(session, batch_id)
            batch.outcome, batch.answer = "refused", words
            await batches.close_refused(session, batch, words=words, now=self.now)

    async def doubt(self, batch_id: int) -> None:
        async with self.store.write() as session:
            batch = await batches.get(session, batch_id)
            await batches.doubt(session, batch, why="no answer", due_at=self.now, now=self.now)

    async def release(self, batch_id: int) -> int:
        async with self.store.write() as session:
            batch = await batches.get(session, batch_id)
            return await batches.release(session, batch, who="someone", why="gave it up", now=self.now)

    async def lose(self, batch_id: int) -> None:
        async with self.store.write() as session:
            await batches.lose(session, await batches.get(session, batch_id), why="unknown there", now=self.now)

    async def results(self, batch_id: int, *items: Result) -> int:
        async with self.store.write() as session:
            return await results.record_results(session, await batches.get(session, batch_id), items, now=self.now)

    async def batch(self, batch_id: int) -> Batch:
        async with self.store.read() as session:
            return await batches.get(session, batch_id)

    async def sent(self, batch_id: int | None) -> list[str]:
        """The strings of a batch, in their order."""
        assert batch_id is not None
        async with self.store.read() as session:
            return list(await results.sent_smiles(session, batch_id))

    async def claims(self) -> dict[str, tuple[str, str | None]]:
        """State and reason of each claim under the profile in force, by SMILES."""
        async with self.store.read() as session:
            rows = await session.execute(
                select(Compound.smiles, Claim.state, Claim.reason)
                .join(Claim, Claim.compound_id == Compound.id)
                .join(Profile, Profile.id == Claim.profile_id)
                .where(Profile.key == self.profile_key)
            )
            return {smiles: (state, reason) for smiles, state, reason in rows}

    async def reasons(self) -> dict[str | None, int]:
        """How many open claims wait, by what holds them back."""
        async with self.store.read() as session:
            profile = await session.scalar(select(Profile).where(Profile.key == self.profile_key))
            return await claims.count_open(session, profile) if profile else {}

    async def broken(self) -> list[Finding]:
        async with self.store.read() as session:
            return await invariants.broken_rules(session)


async def count_rows(session: AsyncSession, *models: type) -> list[int]:
    return [await session.scalar(select(func.count()).select_from(model)) or 0 for model in models]


async def scan_number(session: AsyncSession) -> int:
    return (await session.scalars(select(Instance.scan_no))).one()


async def aliases(session: AsyncSession, raws: Iterable[str]) -> dict[str, Alias]:
    found = await session.scalars(select(Alias).where(Alias.raw.in_(list(raws))))
    return {alias.raw: alias for alias in found}
