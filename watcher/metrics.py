"""Every metric of the program, in one place. Timestamps, not ages, so that a scrape never changes a value.

Labels are bounded: by targets followed, by the states of the record, by services and operations of the clients.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

REGISTRY = CollectorRegistry()
"""Ours, and the library's metrics of the process: `process_start_time_seconds`, `process_resident_memory_bytes` ..."""
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

# The series of each target are written by the server: the library takes too long over hundreds of them.
TARGET_LAST_SUCCESS = Gauge(
    "watcher_target_last_success_timestamp_seconds",
    "When the target's current upload was last settled, unix time",
    ["target", "tas"],
    registry=None,
)
TARGET_REMOTE_INDEX = Gauge(
    "watcher_target_remote_upload_index",
    "Newest upload index that the last scan saw",
    ["target", "tas"],
    registry=None,
)
TARGET_RECORDED_INDEX = Gauge(
    "watcher_target_recorded_upload_index",
    "Upload index of the record's current upload",
    ["target", "tas"],
    registry=None,
)
LAST_SCAN = Gauge(
    "watcher_last_scan_timestamp_seconds",
    "When the uploads on Fragalysis were last read and recorded, unix time; 0: never",
    registry=REGISTRY,
)
SCAN_INTERVAL = Gauge(
    "watcher_scan_interval_seconds",
    "Time between two scans by the settings; by a cron expression, the mean over the three that follow the last scan",
    registry=REGISTRY,
)
SCHEDULER_MISSES = Counter(
    "watcher_scheduler_misses_total",
    "Turns that a task of the scheduler (scan, poll, check_lock, keep_house) missed, because its last one still ran",
    ["task"],
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
    "Requests by service, operation and outcome: ok; the kind of failure (transient, auth, invalid, ours); not_sent or "
    "no_answer (purchases); redirect, cancelled, error",
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
LIMIT = Gauge("watcher_limit_compounds_per_day", "limits.compounds_per_day; +Inf without a limit", registry=REGISTRY)
DISK_FREE = Gauge(
    "watcher_disk_free_bytes",
    "Room that is left to the program where the record lies (SQLite only), and the downloads",
    ["of"],
    registry=REGISTRY,
)
DISK_SIZE = Gauge("watcher_disk_size_bytes", "Size of the file systems of the same places", ["of"], registry=REGISTRY)
SERVICE_UP = Gauge(
    "watcher_service_up",
    "0 while a condition says that the service is unreachable, refuses us, or gives unreadable answers; else 1",
    ["service"],
    registry=REGISTRY,
)
CONDITIONS = Gauge("watcher_conditions", "Open conditions by kind", ["kind"], registry=REGISTRY)
NOTIFICATIONS = Counter(
    "watcher_notifications_total",
    "Messages by what became of a try to send them: sent, or failed and tried again",
    ["outcome"],
    registry=REGISTRY,
)
NOTIFICATIONS_PENDING = Gauge(
    "watcher_notifications_pending", "Messages that wait to be sent, one for each address", registry=REGISTRY
)
BUILD_INFO = Gauge("watcher_build_info", "Always 1; the version is a label", ["version"], registry=REGISTRY)
