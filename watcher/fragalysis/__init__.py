"""Client of the Fragalysis REST API, of 2024 and of 2026: targets, uploads, observations, downloads.

Where the published client has a function for the same job, ours carries its name.
"""

from watcher.fragalysis.builds import BuildFailed, Building, BuildReady, BuildTask, FileLink
from watcher.fragalysis.client import Fragalysis
from watcher.fragalysis.downloads import CannotBuild, LinkExpired, NoObservations, NotAMember
from watcher.fragalysis.records import Observation, Target, TargetUploads, Upload

__all__ = [
    "BuildFailed",
    "BuildReady",
    "BuildTask",
    "Building",
    "CannotBuild",
    "FileLink",
    "Fragalysis",
    "LinkExpired",
    "NoObservations",
    "NotAMember",
    "Observation",
    "Target",
    "TargetUploads",
    "Upload",
]
