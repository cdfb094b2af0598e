"""Every metric of the program, in one place. Timestamps, not ages, so that a scrape never changes a value.

Labels are bounded: by targets followed, by the states of the record, by services and operations of the clients.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()
"""Ours alone; the process metrics of the library are added by the server."""

TARGET_LAST_SUCCESS = Gauge(
    "watcher_target_last_success_timestamp_seconds",
    "When the target's current upload was last settled, unix time",
    ["target", "tas"],
    registry=REGISTRY,
)
TARGET_REMOTE_INDEX = Gauge(
    "watcher_target_remote_upload_index",
    "Upload index that Fragalysis lists as newest",
    ["target", "tas"],
    registry=REGISTRY,
)
TARGET_RECORDED_INDEX = Gauge(
    "watcher_target_recorded_upload_index",
    "Upload index of the record's current upload",
    ["target", "tas"],
    registry=REGISTRY,
)
UPLOADS = Gauge("watcher_uploads", "Uploads by leg (archive, scoring) and state", ["leg", "state"], registry=REGISTRY)
BATCHES = Gauge("watcher_batches", "Batches by state", ["state"], registry=REGISTRY)
CLAIMS = Gauge(
    "watcher_claims", "Claims (one compound under one scoring profile) by state", ["state"], registry=REGISTRY
)
OLDEST_PENDING = Gauge(
    "watcher_oldest_pending_timestamp_seconds",
    "When the oldest unit that waits for a stage was recorded, unix time; 0: none",
    ["stage"],
    registry=REGISTRY,
)
STAGE_DURATION = Histogram(
    "watcher_stage_duration_seconds",
    "Time one unit of work took, by stage and outcome",
    ["stage", "outcome"],
    registry=REGISTRY,
    buckets=(0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200),
)
HTTP_REQUESTS = Counter(
    "watcher_http_requests_total",
    "Requests by service, operation and outcome (ok, or the kind of failure)",
    ["service", "operation", "outcome"],
    registry=REGISTRY,
)
COMPOUNDS_SUBMITTED = Counter(
    "watcher_compounds_submitted_total", "Compounds sent to Molecule.one by this process", registry=REGISTRY
)
LIMIT_REMAINING = Gauge(
    "watcher_limit_remaining_compounds",
    "Compounds that limits.compounds_per_day still allows; +Inf without a limit",
    registry=REGISTRY,
)
SERVICE_UP = Gauge(
    "watcher_service_up", "1 while no condition says that the service is failing", ["service"], registry=REGISTRY
)
CONDITIONS = Gauge("watcher_conditions", "Open conditions by kind", ["kind"], registry=REGISTRY)
BUILD_INFO = Gauge("watcher_build_info", "Always 1; the version is a label", ["version"], registry=REGISTRY)
