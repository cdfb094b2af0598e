"""Molecule.one batch scoring: one client, two dialects of the API (v1, v2), typed records, the fate of a purchase.

`client` talks, `dialects` holds what differs between v1 and v2, `records` reads what comes back, `outcome` decides what
became of a purchase, `profile` names the settings that change a score.
"""

from watcher.molecule_one.client import BatchUnknown, MoleculeOne
from watcher.molecule_one.outcome import (
    Accepted,
    Later,
    NotSent,
    Outcome,
    Refused,
    ServiceRefused,
    Unknown,
    classify,
    same_words,
)
from watcher.molecule_one.profile import Profile, profile_of
from watcher.molecule_one.records import Counts, Listing, RemoteBatch, ResultItem

__all__ = [
    "Accepted",
    "BatchUnknown",
    "Counts",
    "Later",
    "Listing",
    "MoleculeOne",
    "NotSent",
    "Outcome",
    "Profile",
    "Refused",
    "RemoteBatch",
    "ResultItem",
    "ServiceRefused",
    "Unknown",
    "classify",
    "profile_of",
    "same_words",
]
