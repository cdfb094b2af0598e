"""Sets the gauges from the record, at each scrape: the record is the only memory."""

import asyncio
import math
import shutil
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from prometheus_client import Gauge

from watcher import __version__, metrics
from watcher.heartbeat import ILL, SERVICES
from watcher.pipeline.stage import Context
from watcher.schedule import scan_interval
from watcher.store import allowance, outbox, overview
from watcher.store.engine import Session
from watcher.store.instance import instance
from watcher.store.overview import Mark
from watcher.store.states import ARCHIVE_STATES, BATCH_STATES, CLAIM_STATES, SCORING_STATES


async def refresh(context: Context) -> str:
    """Read the record, the settings and the disks, and set every gauge that follows from them. Raises Failure.

    Returns the series of the targets in the Prometheus text format.
    """
    async with context.store.read() as session:
        await _record(session, context)
        marks = await overview.marks(session)
        last_scan = (await instance(session)).last_scan_at
    metrics.LAST_SCAN.set(_timestamp(last_scan) or 0)
    interval = scan_interval(context.settings, last_scan or context.clock.now())
    metrics.SCAN_INTERVAL.set(interval.total_seconds())
    metrics.LIMIT.set(context.settings.limits.compounds_per_day or math.inf)
    metrics.BUILD_INFO.labels(__version__).set(1)
    for of, place in _places(context).items():
        await _disk(of, place)
    return _target_series(marks)


def _places(context: Context) -> dict[str, Path]:
    places = {"downloads": context.settings.download.directory} if context.settings.download.enabled else {}
    return places | ({"record": context.store.sqlite_file.parent} if context.store.sqlite_file else {})


async def _disk(of: str, place: Path) -> None:
    try:
        free, size = await asyncio.to_thread(_room, place)
    except OSError:  # nothing is known, and nothing is said
        for gauge in (metrics.DISK_FREE, metrics.DISK_SIZE):
            gauge.remove(of)
        return
    metrics.DISK_FREE.labels(of).set(free)
    metrics.DISK_SIZE.labels(of).set(size)


def _room(place: Path) -> tuple[int, int]:
    """Return the bytes left, and the size, of the file system where a folder lies, or will lie."""
    usage = shutil.disk_usage(next(path for path in (place.absolute(), *place.absolute().parents) if path.exists()))
    return usage.free, usage.total


async def _record(session: Session, context: Context) -> None:
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
    for stage, since in (await overview.oldest_pending(session, archives=context.settings.download.enabled)).items():
        metrics.OLDEST_PENDING.labels(stage).set(_timestamp(since) or 0)
    left = await allowance.daily_allowance(session, context.policy, context.clock.now())
    metrics.LIMIT_REMAINING.set(math.inf if left is None else left)
    metrics.NOTIFICATIONS_PENDING.set(sum((await outbox.pending(session)).values()))
    await _conditions(session)


async def _conditions(session: Session) -> None:
    conditions = await overview.needs_attention(session)
    metrics.CONDITIONS.clear()
    for condition in conditions:
        metrics.CONDITIONS.labels(condition.kind).inc()
    ill = {condition.subject for condition in conditions if condition.kind in ILL}
    for service in SERVICES:
        metrics.SERVICE_UP.labels(service).set(service not in ill)


def _target_series(marks: Iterable[Mark]) -> str:
    """Return the series of the targets in the Prometheus text format, which the library writes far more slowly."""
    of_target = {_labels(mark): mark for mark in marks}
    families: list[tuple[Gauge, dict[str, float | None]]] = [
        (metrics.TARGET_LAST_SUCCESS, {key: _timestamp(mark.last_success_at) for key, mark in of_target.items()}),
        (metrics.TARGET_REMOTE_INDEX, {key: mark.remote_index for key, mark in of_target.items()}),
        (metrics.TARGET_RECORDED_INDEX, {key: mark.recorded_index for key, mark in of_target.items()}),
    ]
    lines = []
    for gauge, values in families:
        (family,) = gauge.describe()
        lines += [f"# HELP {family.name} {family.documentation}", f"# TYPE {family.name} gauge"]
        lines += [f"{family.name}{{{key}}} {float(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _labels(mark: Mark) -> str:
    return f'target="{_escaped(mark.name)}",tas="{_escaped(mark.target_access_string)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
