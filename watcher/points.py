"""Points at which a crash would be most unwelcome: around each commit and each effect outside of the record.

Production code says where it is, and nothing listens. Only a test that starts the program by its own launcher sets
`hook`; no setting, argument or environment variable does.
"""

from collections.abc import Callable, Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "store.committing": "the transaction is complete but not committed; counted within the process",
    "store.committed": "the transaction is committed, nothing has followed from it; counted within the process",
    "migrate.changing": "the tables are made or changed, their transaction is not committed",
    "migrate.changed": "the record is made or changed, and committed",
    "backup.written": "the copy of the record is whole and has no name yet",
    "backup.named": "the copy has its name, its temporary name is there too",
    "scan.recording": "what a scan found is written, not committed",
    "scan.recorded": "what a scan found is committed",
    "extract.recording": "observations, compounds and claims are written, not committed",
    "extract.recorded": "observations, compounds and claims are committed",
    "download.requested": "a build is asked for at the server, and its answer is not remembered",
    "download.task-remembered": "the build at the server is committed, and not waited for yet",
    "receive.written": "the archive is whole in its temporary file",
    "receive.renamed": "the archive is whole and named in a temporary folder, nothing of it is unpacked",
    "unpack.unpacked": "the files are whole in their temporary folder",
    "unpack.moved-aside": "the folder of an earlier try has made room, the new one has no name yet",
    "unpack.renamed": "the folder has its name, the earlier one is not removed yet, nor is the archive in its place",
    "current.made": "the new link to the current upload is made under its temporary name",
    "download.pointed": "`current` points to the upload, the record does not say `stored` yet",
    "download.recorded": "the record says `stored`",
    "submit.intending": "the intent to buy is written, not committed",
    "submit.intended": "the intent to buy is committed, and nothing is sent",
    "submit.answered": "the service has answered, the record does not know",
    "submit.recording": "the answer is written, not committed",
    "submit.recorded": "the answer is committed",
    "reconcile.doubted": "batches of an earlier process are committed as doubtful, and not looked for yet",
    "reconcile.found": "the service's list is read, nothing is concluded from it",
    "reconcile.concluding": "batches are adopted or given up in a transaction that is not committed",
    "reconcile.concluded": "batches are adopted or given up for good",
    "collect.fetched": "results are fetched, not stored",
    "collect.recording": "results are written, not committed",
    "collect.recorded": "results are committed",
    "collect.deleting": "a collected batch is about to be deleted at the service",
    "collect.deleted": "it is deleted there, the record does not know",
    "prune.intended": "an archive is noted as pruned, and is still there",
    "prune.set-aside": "it has its temporary names",
    "prune.removed": "it is removed, the record does not say so yet",
    "finish.recording": "an upload is scored in a transaction that is not committed",
    "notify.begun": "that a sending begins is committed, and nothing is sent",
    "notify.sent": "a message is sent, the record does not know",
    "adopt.recording": "`batches adopt` has written its change, not committed it",
    "release.recording": "`batches release` has written its change, not committed it",
    "restore.copied": "`db restore` has a copy beside the record, and has not checked it yet",
    "restore.begun": "the checked copy has the name that keeps others away, the record is still whole in its place",
    "restore.log-aside": "the record's log is moved aside, the record is not",
    "restore.aside": "the record is moved aside, and none is in its place",
    "restore.done": "the copy is the record",
}
"""Every point by its name: what is done, and what is not, when it is reached."""

hook: Callable[[str], None] | None = None
"""Told each point that is reached, in whatever thread; None but in tests."""


def reach(name: str) -> None:
    """Say that a point is reached; without a hook nothing happens."""
    if hook is not None:
        hook(name)
