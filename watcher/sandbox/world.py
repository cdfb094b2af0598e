"""What the Fragalysis server holds: projects, targets, uploads, observations; and every change that can befall them.

The rules, as seen on a real backend: an upload brings new observations and keeps the others; the same code with other
content supersedes the older row; a withdrawn upload takes its rows along, and its index is used again (a newer upstream
deletes the latest upload). Times grow with every change, so that no two uploads share one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from string import ascii_uppercase

from watcher.sandbox.catalogue import CatalogueTarget, Row

EPOCH = datetime(2024, 9, 1, 9, 14, 7, 123456, tzinfo=UTC)
STEP = timedelta(hours=1)


@dataclass
class Project:
    """A proposal; `listed` without `public` is what a server's PUBLIC_TAS setting makes (capture `projects`)."""

    id: int
    target_access_string: str
    public: bool
    listed: bool


@dataclass
class Upload:
    """One upload of a target, prepared or published."""

    rows: tuple[Row, ...]
    status: str = "LOADING"
    committed: datetime = EPOCH


@dataclass
class Compound:
    """What was soaked: one row per experiment, so SMILES repeat (capture `real_loader_v1_compounds`)."""

    id: int
    smiles: str
    code: str
    upload: int


@dataclass
class Observation:
    """A ligand seen in a crystal."""

    id: int
    row: Row
    experiment: str
    experiment_id: int
    compound: Compound | None
    chain: str
    version: int
    upload: int
    superseded_by: int | None = None


@dataclass
class Target:
    """A target; its uploads are numbered from 1, the first `published` are visible."""

    id: int
    name: str
    project: Project
    display_name: str
    uploads: list[Upload] = field(default_factory=list)
    published: int = 0
    observations: list[Observation] = field(default_factory=list)
    compounds: dict[tuple[str, str], Compound] = field(default_factory=dict)
    experiments: dict[str, int] = field(default_factory=dict)
    vanished: bool = False
    buildable: bool = True

    @property
    def current(self) -> list[Observation]:
        """The observations that no later one supersedes."""
        return [observation for observation in self.observations if observation.superseded_by is None]


class World:
    """All data of one Fragalysis server, and the changes to it."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.targets: list[Target] = []
        self._changes = 0
        self._next_id = 100

    def fill(self, targets: Iterable[CatalogueTarget], published: int | None) -> None:
        """Add the catalogue's targets and publish the first uploads of each."""
        for entry in targets:
            target = self.add_target(
                entry.name, entry.target_access_string, entry.public, display_name=entry.display_name
            )
            target.uploads = [Upload(rows) for rows in entry.uploads]
            wanted = entry.published if published is None else published
            for _ in range(min(wanted, len(target.uploads))):
                self.publish(entry.name, entry.target_access_string)

    def visible(self, *, member: bool) -> Iterator[Target]:
        """Yield what a member of every project sees, or else what anybody sees."""
        return (target for target in self.targets if not target.vanished and (member or target.project.listed))

    def find(self, name: str, tas: str) -> Target:
        """Return the target of that name and TAS."""
        for target in self.targets:
            if target.name == name and target.project.target_access_string == tas:
                return target
        raise LookupError(f"no target {name} under {tas}")

    def add_target(
        self, name: str, tas: str, public: bool = True, *, listed: bool | None = None, display_name: str | None = None
    ) -> Target:
        """Add a target without uploads; its project is made if there is none of that TAS."""
        target = Target(len(self.targets) + 1, name, self._project(tas, public, listed), display_name or name)
        self.targets.append(target)
        return target

    def add_upload(
        self,
        name: str,
        tas: str,
        rows: Sequence[Row | Sequence[str | None]],
        *,
        publish: bool = True,
        status: str = "LOADING",
    ) -> Target:
        """Put an upload behind the published ones, and publish it.

        A row is (code, smiles, compound_code). Rows that are there already are kept as they are, so `rows` may be the
        whole set or the new ones alone. `status` shows in the 2024 shape; an upload with "FAILURE" changes nothing
        else.
        """
        target = self.find(name, tas)
        target.uploads.insert(target.published, Upload(tuple(_row(row) for row in rows), status))
        return self.publish(name, tas) if publish else target

    def publish(self, name: str, tas: str) -> Target:
        """Make the next prepared upload visible."""
        target = self.find(name, tas)
        if target.published == len(target.uploads):
            raise LookupError(f"no prepared upload is left for {name} under {tas}")
        upload = target.uploads[target.published]
        target.published += 1
        upload.committed = self._tick()
        if upload.status != "FAILURE":
            self._load(target, upload, target.published)
        return target

    def withdraw(self, name: str, tas: str) -> Target:
        """Take the latest upload back: the index goes down, and a later publish uses it again under another time."""
        target = self.find(name, tas)
        if not target.published:
            raise LookupError(f"no upload to withdraw for {name} under {tas}")
        index = target.published
        target.published -= 1
        target.observations = [observation for observation in target.observations if observation.upload != index]
        target.compounds = {key: compound for key, compound in target.compounds.items() if compound.upload != index}
        for observation in target.observations:
            if observation.superseded_by == index:
                observation.superseded_by = None
        return target

    def touch(self, name: str, tas: str) -> Target:
        """Give the latest upload a new time and change nothing else."""
        target = self.find(name, tas)
        if not target.published:
            raise LookupError(f"no upload to touch for {name} under {tas}")
        target.uploads[target.published - 1].committed = self._tick()
        return target

    def rename(self, name: str, tas: str, to: str) -> Target:
        """Give a target another name."""
        target = self.find(name, tas)
        target.name = to
        return target

    def move(self, name: str, tas: str, to: str) -> Target:
        """Move a target to another TAS; a project made for it is as public as the old one."""
        target = self.find(name, tas)
        target.project = self._project(to, target.project.public, target.project.listed)
        return target

    def vanish(self, name: str, tas: str) -> Target:
        """Hide a target from everybody."""
        target = self.find(name, tas)
        target.vanished = True
        return target

    def reappear(self, name: str, tas: str) -> Target:
        """Show a vanished target again."""
        target = self.find(name, tas)
        target.vanished = False
        return target

    def set_public(self, tas: str, public: bool) -> Project:
        """Open a project to the public, or close it."""
        project = self.projects[tas]
        project.public = project.listed = public
        return project

    def break_builds(self, name: str, tas: str, broken: bool = True) -> Target:
        """Let every download of this target fail, as one missing ligand file does on a real server."""
        target = self.find(name, tas)
        target.buildable = not broken
        return target

    def _project(self, tas: str, public: bool, listed: bool | None) -> Project:
        if tas not in self.projects:
            shown = public if listed is None else listed
            self.projects[tas] = Project(len(self.projects) + 1, tas, public, shown)
        return self.projects[tas]

    def _load(self, target: Target, upload: Upload, index: int) -> None:
        before = target.current
        kept = {observation.row for observation in before}
        new = [row for row in upload.rows if row not in kept]
        codes = {row.code for row in new}
        replaced = [observation for observation in before if observation.row.code in codes]
        for observation in replaced:
            observation.superseded_by = index
        for row in new:
            version = 1 + max((old.version for old in replaced if old.row.code == row.code), default=0)
            target.observations.append(self._observe(target, row, index, version))

    def _observe(self, target: Target, row: Row, index: int, version: int) -> Observation:
        crystal = re.sub(r"^[A-Z](?=\d)", "x", re.sub(r"[a-z]+$", "", row.code))
        experiment = f"{target.name}-{crystal}"
        if experiment not in target.experiments:
            target.experiments[experiment] = self._identity()
        taken = {each.chain for each in target.current if each.experiment == experiment}
        chain = next((letter for letter in ascii_uppercase if letter not in taken), "Z")
        compound = None
        if row.compound_code is not None:
            soaked = (experiment, row.compound_code)
            compound = target.compounds.get(soaked) or Compound(self._identity(), row.smiles, row.compound_code, index)
            target.compounds[soaked] = compound
        return Observation(
            self._identity(), row, experiment, target.experiments[experiment], compound, chain, version, index
        )

    def _identity(self) -> int:
        self._next_id += 1
        return self._next_id

    def _tick(self) -> datetime:
        self._changes += 1
        return EPOCH + self._changes * STEP


def _row(row: Row | Sequence[str | None]) -> Row:
    if isinstance(row, Row):
        return row
    code, smiles, *rest = row
    return Row(code or "", smiles or "", rest[0] if rest else None)
