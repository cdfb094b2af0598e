"""Extract: the observations of each current upload, their compounds, and a claim for each compound that is new.

An upload is read once more after `fragalysis.settle`, because rows can appear a little after the upload does.
"""

from collections.abc import Sequence
from datetime import datetime

from structlog.contextvars import bind_contextvars

from watcher.chemistry_records import Identity, Rejection
from watcher.errors import AuthFailure, Failure, Invalid, NotFound, Service
from watcher.fragalysis import Observation
from watcher.pipeline.failures import AFTER_SCAN, LONGEST_WAIT, believed, wait_after
from watcher.pipeline.profile import ask_for_approval, profile_in_force
from watcher.pipeline.spellings import Spellings, find_spellings
from watcher.pipeline.stage import Context
from watcher.pipeline.uploads import ask_for_scan, ask_whether_let_in, is_still_current, subject_of
from watcher.points import reach
from watcher.store import claims, compounds, legs, targets, upload_queues
from watcher.store.compounds import Seen, Verdict
from watcher.store.conditions import close_condition, open_condition
from watcher.store.engine import Session
from watcher.store.schema import Upload
from watcher.store.transitions import say_after_commit


class Extract:
    """The stage. A unit is an upload."""

    name = "extract"
    service: Service | None = "fragalysis"
    width = 2
    finishes_on_stop = False

    def __init__(self, context: Context) -> None:
        self._context = context

    async def due(self, session: Session) -> Sequence[int]:
        """Return the current uploads that are to be read, or read once more."""
        return await upload_queues.due_extractions(session, self._context.clock.now())

    async def step(self, unit: int) -> None:
        """Read the observations, judge the SMILES that are new, and record both with the claims that follow."""
        async with self._context.store.read() as session:
            upload, target = await targets.upload_with_target(session, unit)
        bind_contextvars(
            target=target.name, target_access_string=target.target_access_string, upload_index=upload.upload_index
        )
        try:
            observations = await self._context.fragalysis.get_target_compound_smiles(target.remote_id)
        except NotFound as failure:
            raise believed(failure, tries=upload.scoring_attempts, before=upload.scoring_error) from None
        # Asked after the reading: what was read before is of this upload then. A target that is not listed has no
        # observations either, which says nothing of the upload.
        if (current := await is_still_current(self._context, target, upload)) is not True:
            await self._look_again(unit, listed=current is not None)
            return
        version = await self._context.chemistry.version()
        recorded = False
        while not recorded:
            async with self._context.store.read() as session:
                raws = await compounds.unjudged(session, [one.smiles for one in observations], version)
            verdicts, spellings = await self._judge(raws)
            recorded = await self._record(unit, observations, verdicts, spellings, version)

    async def put_off(self, unit: int, failure: Failure) -> None:
        """Read again after a while; set the leg aside when the answer breaks the contract."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, target = await targets.upload_with_target(session, unit)
            if target.current_upload_id != unit:
                return  # superseded meanwhile: there is nothing to read of it any more
            upload.scoring_attempts += 1
            upload.scoring_error = failure.message
            upload.scoring_due_at = now + wait_after(failure, upload.scoring_attempts, self._context.random)
            if isinstance(failure, AuthFailure):
                await ask_whether_let_in(session, now)
            if isinstance(failure, Invalid) and upload.scoring_state != "detected":
                # The second reading only; what the first one found stands.
                upload.settle_due_at = upload.scoring_due_at = None
                say_after_commit(
                    session,
                    "second_reading_given_up",
                    level="warning",
                    reason=failure.message,
                    action="nothing: what the first reading found stands; later rows come with the next upload",
                )
            elif isinstance(failure, Invalid):
                legs.set_scoring_state(
                    session, upload, "quarantined", now=now, why=failure.message, error=failure.message
                )
                await open_condition(
                    session,
                    subject_of(target, upload),
                    "scoring_quarantined",
                    reason=failure.message,
                    action="`watcher retry` once it is fixed, or install a newer version",
                    now=now,
                )

    async def _look_again(self, unit: int, *, listed: bool) -> None:
        """Read again later, and let a scan say what the server holds now: what was read may be of another upload."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, _ = await targets.upload_with_target(session, unit)
            upload.scoring_due_at = now + (AFTER_SCAN if listed else LONGEST_WAIT)
            await ask_for_scan(session, now)

    async def _judge(self, raws: Sequence[str]) -> tuple[list[Verdict], Spellings]:
        """Ask the chemistry, and find the compounds that are stored under another spelling."""
        identities = await self._context.chemistry.identify(raws)
        found = {one.smiles: one.inchikey for one in identities if isinstance(one, Identity)}
        spellings = await find_spellings(self._context, found)
        return [_verdict(raw, one, spellings) for raw, one in zip(raws, identities, strict=True)], spellings

    async def _record(
        self,
        upload_id: int,
        observations: Sequence[Observation],
        verdicts: Sequence[Verdict],
        spellings: Spellings,
        version: str,
    ) -> bool:
        """Record what was read; false if a compound came meanwhile that may be one of it under another spelling."""
        now = self._context.clock.now()
        async with self._context.store.write() as session:
            upload, target = await targets.upload_with_target(session, upload_id)
            if target.current_upload_id != upload.id:
                return True  # superseded meanwhile: what was read belongs to another upload
            if not await spellings.hold(session, {one.smiles: one.inchikey for one in verdicts if one.smiles}):
                return False
            await compounds.record_verdicts(session, verdicts, chemistry=version, now=now)
            seen = [Seen(o.observation_id, o.code, o.longcode, o.compound_code, o.smiles) for o in observations]
            added = await compounds.record_observations(session, upload_id, seen, now=now)
            profile = await profile_in_force(session, self._context)
            new = await claims.add_missing(
                session, profile, self._context.policy, upload=upload, scan_no=upload.scan_no, now=now
            )
            await claims.review(session, profile, self._context.policy, now=now)
            await ask_for_approval(session, profile, now)
            late = added if upload.extracted_at is not None else 0
            self._advance(upload, now)
            if upload.scoring_state != "extracted" and (upload.scoring_state != "scored" or added or new):
                legs.set_scoring_state(
                    session, upload, "extracted", now=now, why=f"{len(observations)} observations read"
                )
            # Without observations there was nothing to pack; and an archive built before the late ones lacks them.
            unpacked = (seen and upload.archive_state == "skipped") or (late and upload.archive_state == "stored")
            if unpacked and self._context.settings.download.enabled:
                legs.set_archive_state(session, upload, "wanted", now=now, why="observations appeared")
            await close_condition(session, subject_of(target, upload), "scoring_quarantined", now=now)
            say_after_commit(
                session,
                "upload_extracted",
                observations=len(observations),
                observations_added=added,
                rejected=sum(one.reason is not None for one in verdicts),
                compounds_new=new,
            )
            reach("extract.recording")
        reach("extract.recorded")
        return True

    def _advance(self, upload: Upload, now: datetime) -> None:
        """Plan the second reading after the first, and none after that."""
        upload.scoring_attempts = 0
        upload.scoring_due_at = None
        upload.scoring_error = None
        settle = self._context.settings.fragalysis.settle
        first_reading = upload.extracted_at is None
        upload.extracted_at = upload.extracted_at or now
        upload.settle_due_at = now + settle if first_reading and settle else None


def _verdict(raw: str, found: Identity | Rejection, spellings: Spellings) -> Verdict:
    if isinstance(found, Rejection):
        return Verdict(raw, reason=found.reason, detail=found.detail, cxsmiles=found.cxsmiles, in_doubt=found.in_doubt)
    return Verdict(
        raw,
        smiles=found.smiles,
        inchikey=found.inchikey,
        heavy_atoms=found.heavy_atoms,
        sa_score=found.sa_score,
        removed=", ".join(found.removed) or None,
        cxsmiles=found.cxsmiles,
        compound_id=spellings.compound_of.get(found.smiles),
    )
