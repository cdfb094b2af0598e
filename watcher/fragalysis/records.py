"""What Fragalysis tells us, as typed records; the rows as they come, of both ages of the API, and the way between them.

A row of 2026 names its target and proposal and has no id, status or message; a row of 2024 has these and no names
(captures `target_experiment_uploads`, `2026/target_experiment_uploads_page1`). Each row is recognised by itself.
Fields that are not named here are neither kept nor decoded: the `message` of one upload can be 23 kB, the MOL text of
5000 observations is most of 2.7 MB.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

import msgspec

_LARGEST_ID = 2**63 - 1  # what a database column holds


@dataclass(frozen=True, slots=True)
class Target:
    """A protein target. Its id is its identity: two targets may share a name (capture `targets_by_title`)."""

    target_id: int
    name: str
    target_access_string: str
    """Empty: listed without a project."""
    open_to_public: bool | None
    """None: its project is not listed, so nobody said that it is public."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload of a target; identity: target id, index and commit time, for an index can be used again."""

    target_id: int
    upload_index: int
    committed_at: datetime
    """Aware, UTC, to the microsecond."""
    failed: bool
    """Marked `FAILURE` by somebody: no change of the data. Rows of 2026 never are."""


@dataclass(frozen=True, slots=True)
class TargetUploads:
    """A target and its uploads by commit time, oldest first; none for a target that holds nothing yet."""

    target: Target
    uploads: tuple[Upload, ...]

    @property
    def last_upload(self) -> Upload | None:
        """The newest upload by commit time, as the index can go down, that did not fail; None without one."""
        good = [upload for upload in self.uploads if not upload.failed]
        return max(good, key=attrgetter("committed_at", "upload_index"), default=None)


@dataclass(frozen=True, slots=True)
class Observation:
    """One ligand seen in one crystal. Codes and SMILES repeat within a target; only the id is unique."""

    observation_id: int
    code: str
    longcode: str
    smiles: str
    """Exactly as it came; empty when the server has none."""
    compound_code: str | None


class Row(msgspec.Struct, frozen=True):
    """One row of a listing, as it came. Its methods raise ValueError when a value breaks the contract.

    `key` does so for all of them: it is what a listing is checked with while it is read.
    """

    def key(self) -> Hashable:
        """Return what tells this row from every other one of the listing."""
        raise NotImplementedError


class ProjectRow(Row, frozen=True):
    """A row of `/api/projects/`."""

    id: int | str
    target_access_string: str
    open_to_public: bool | None = None

    def key(self) -> Hashable:
        """Return the project id."""
        return whole(self.id, "id")


class TargetRow(Row, frozen=True):
    """A row of `/api/targets/`."""

    id: int | str
    title: str
    project: int | str | None = None

    def key(self) -> Hashable:
        """Return the target id."""
        return self.record({}).target_id

    def record(self, projects: dict[int, ProjectRow]) -> Target:
        """Return the target with what its project says."""
        return _target(whole(self.id, "id"), self.title, self.project, None, projects)


class UploadRow(Row, frozen=True):
    """A row of `/api/target_experiment_uploads/`, of either age."""

    target: int | str
    upload_version: int | str
    commit_datetime: str
    id: int | str | None = None
    project: int | str | None = None
    status: str | None = None
    target_name: str | None = None
    proposal_number: str | None = None

    def key(self) -> Hashable:
        """Return the row id, or where rows have none (2026) the upload's identity."""
        upload = self.record()
        self.target_record({})
        return upload.target_id, upload.upload_index, upload.committed_at, self.id

    def record(self) -> Upload:
        """Return the upload."""
        return Upload(
            target_id=whole(self.target, "target"),
            upload_index=whole(self.upload_version, "upload_version"),
            committed_at=moment(self.commit_datetime, "commit_datetime"),
            failed=self.status == "FAILURE",
        )

    def target_record(self, projects: dict[int, ProjectRow]) -> Target | None:
        """Return the target as the row names it; None for a row of 2024, which does not."""
        if self.target_name is None or self.proposal_number is None:
            return None
        return _target(whole(self.target, "target"), self.target_name, self.project, self.proposal_number, projects)


class ObservationRow(Row, frozen=True):
    """A row of `/api/site_observations/`. `smiles` may be null but not absent: without it nothing would be scored."""

    id: int | str
    code: str | None
    smiles: str | None
    longcode: str | None = None
    compound_code: str | None = None
    superseded: bool | None = None

    def key(self) -> Hashable:
        """Return the observation id."""
        return whole(self.id, "id")

    def record(self) -> Observation:
        """Return the observation."""
        return Observation(
            observation_id=whole(self.id, "id"),
            code=self.code or "",
            longcode=self.longcode or "",
            smiles=self.smiles or "",
            compound_code=self.compound_code,
        )


def _target(
    target_id: int, name: str, project: int | str | None, tas: str | None, projects: dict[int, ProjectRow]
) -> Target:
    listed = None if project is None else projects.get(whole(project, "project"))
    return Target(
        target_id=target_id,
        name=name,
        target_access_string=tas if tas is not None else listed.target_access_string if listed else "",
        open_to_public=listed.open_to_public if listed else None,
    )


def whole(value: int | str, field: str) -> int:
    """Read a whole number from 0 on that a database can hold; digits in a string count. Raises ValueError."""
    number = int(value) if isinstance(value, int) or (value.isascii() and value.isdigit() and len(value) < 20) else -1
    if not 0 <= number <= _LARGEST_ID:
        raise ValueError(f"`{field}` is {str(value)[:40]!r}, which is no whole number from 0 on")
    return number


def moment(value: str, field: str) -> datetime:
    """Read a time with or without microseconds, `Z` or an offset; without a zone it is UTC. Raises ValueError."""
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"`{field}` is {value[:40]!r}, which is no time") from None
