"""Sets the gauges from the record, at each scrape: the record is the only memory."""

import math
from datetime import datetime

from watcher import __version__, metrics
from watcher.store import allowance, overview
from watcher.store.claims import Policy
from watcher.store.engine import Session
from watcher.store.schema import ARCHIVE_STATES, BATCH_STATES, CLAIM_STATES, SCORING_STATES

_SERVICES = ("fragalysis", "molecule_one")


async def refresh(session: Session, policy: Policy, now: datetime) -> None:
    """Read the record and set every gauge that follows from it."""
    counts = await overview.counts(session)
    for leg, states, counted in (
        ("archive", ARCHIVE_STATES, counts.archives),
        ("scoring", SCORING_STATES, counts.scorings),
    ):
        for state in states:
            metrics.UPLOADS.labels(leg, state).set(counted.get(state, 0))
    for state in BATCH_STATES:
        metrics.BATCHES.labels(state).set(counts.batches.get(state, 0))
    for state in CLAIM_STATES:
        metrics.CLAIMS.labels(state).set(counts.claims.get(state, 0))
    for stage, since in (await overview.oldest_pending(session)).items():
        metrics.OLDEST_PENDING.labels(stage).set(since.timestamp() if since else 0)
    left = await allowance.daily_allowance(session, policy, now)
    metrics.LIMIT_REMAINING.set(math.inf if left is None else left)
    await _conditions(session)
    await _targets(session)
    metrics.BUILD_INFO.labels(__version__).set(1)


async def _conditions(session: Session) -> None:
    conditions = await overview.needs_attention(session)
    metrics.CONDITIONS.clear()
    for condition in conditions:
        metrics.CONDITIONS.labels(condition.kind).inc()
    ill = {condition.subject for condition in conditions if condition.kind in ("unreachable", "credentials")}
    for service in _SERVICES:
        metrics.SERVICE_UP.labels(service).set(service not in ill)


async def _targets(session: Session) -> None:
    for gauge in (metrics.TARGET_LAST_SUCCESS, metrics.TARGET_REMOTE_INDEX, metrics.TARGET_RECORDED_INDEX):
        gauge.clear()  # targets are renamed and left out
    for target, upload in await overview.targets_with_current(session):
        if not target.followed:
            continue
        labels = (target.name, target.target_access_string)
        if target.last_success_at is not None:
            metrics.TARGET_LAST_SUCCESS.labels(*labels).set(target.last_success_at.timestamp())
        if target.remote_index is not None:
            metrics.TARGET_REMOTE_INDEX.labels(*labels).set(target.remote_index)
        if upload is not None:
            metrics.TARGET_RECORDED_INDEX.labels(*labels).set(upload.upload_index)
