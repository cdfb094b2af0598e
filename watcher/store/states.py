"""Every state that the record knows, and what it means; the kinds of trouble too. The reference is made from these."""

ARCHIVE_STATES = {
    "wanted": "the archive is to be fetched",
    "stored": "it lies on the disk, whole, checked and unpacked",
    "unavailable": "the server failed to build it five times; tried every six hours",
    "skipped": "there is nothing to fetch: no observations, downloads are off, or the upload does not count any more",
    "quarantined": "it is unsafe, too large or unreadable; `watcher retry`, or a newer version, takes it up again",
    "pruned": "it is removed: newer uploads are kept (`download.keep_uploads`), or it was not whole when another came",
}
"""The archive leg of an upload."""
TO_FETCH = ("wanted", "unavailable")
"""States of an archive that is still to be fetched."""
SCORING_STATES = {
    "detected": "a scan has seen it; its observations are to be read",
    "extracted": "its observations are read, and compounds of it wait for their results",
    "scored": "no compound of it waits any more: each is scored, failed, rejected, or held back for good",
    "history": "it is not, or no longer, the upload that counts",
    "quarantined": "its observations break the contract; `watcher retry`, or a newer version, takes it up again",
}
"""The scoring leg of an upload."""
CLAIM_STATES = {
    "wanted": "to be bought with the next batch",
    "withheld": "not to be bought now; its reason says why: baseline, private, too large, over a limit, waits for "
    "approval, not current",
    "reserved": "in a batch that was sent, or may have been",
    "scored": "it has a score",
    "no_route": "it has a result: the service found no route",
    "failed": "it ended without a score: Molecule.one could not score it, refused it, or never listed it; it is never "
    "bought again by itself",
}
"""A claim: one compound to be scored under one profile."""
BATCH_STATES = {
    "submitting": "the intent is recorded; it is being sent",
    "submitted": "the service took it, and works on it",
    "finished": "Molecule.one is done with it; the last results are fetched",
    "collected": "all its results are in the record",
    "closed": "it was certainly not bought; its compounds are wanted again",
    "unconfirmed": "nobody knows whether the service took it; it is looked for, and a person is called",
    "released": "given up, by a person or by `molecule_one.on_unconfirmed`; its compounds may be bought again",
    "lost": "the service does not know it any more, though it had taken it; nothing is bought again without a person",
}
"""A batch at Molecule.one."""
AT_WORK = ("submitted", "finished")
"""States of a batch that the service has and has not told all results of."""
CONDITION_KINDS = {
    "unreachable": "a service does not answer, or not in order; it is asked again with growing waits",
    "credentials": "a service refuses us: token, account, address or a proxy in between, or no token is set; it is "
    "asked again every 5 to 60 minutes. Under the name of a stage: it refuses one target, and the others go on",
    "machine": "this machine, its disk or the database is in trouble; what needs it pauses and resumes by itself",
    "unexpected": "a fault of the program met one unit, which is set aside for a while; the others go on",
    "vanished": "a target is not listed any more; nothing recorded of it is touched",
    "archive_unavailable": "the server cannot build an archive; tried every six hours, scoring does not wait",
    "archive_quarantined": "an archive is unsafe, too large or unreadable; set aside",
    "scoring_quarantined": "the observations of an upload break the contract; set aside",
    "profile_waits": "the scoring profile is new: nothing is bought until a person approves it",
    "scan_limit": "more new compounds came at once than `limits.new_compounds_per_scan` lets go",
    "unconfirmed": "nobody knows whether the service took a batch; it is looked for",
    "lost": "the service does not know a batch any more that it had taken",
    "turned_up": "a batch that counted as not bought exists after all: its results are stored, it counts as spent",
    "read_back": "what the service has of ours and the record may not know, as after a restore, is being read back",
    "unreadable": "answers of a service, or results of a batch, have an unknown shape; they are asked for again",
    "submissions_refused": "the service refuses every compound with the same words; nothing more is sent",
    "backup_failed": "the daily copy of the record could not be made; tried again",
    "notifications_failing": "messages cannot be delivered; they are kept and tried again",
}
"""Kinds of condition: what is not well."""
