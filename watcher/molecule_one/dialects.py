"""What differs between the two versions of the batch API: paths and the body of a create request.

Sources: the public Molecule.one batch scoring API documents v1 and v2, and the vendor's Python client. Answers are read
alike for both, in camelCase or snake_case: see `watcher.molecule_one.records`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from watcher.settings import MoleculeOneSettings


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version of the API."""

    version: str
    status_root: str
    """Last part of the path that counts are read from."""
    names_batches: bool
    """Whether a batch carries a name, can be asked for its details, and a listing is documented."""
    create_request: Callable[[MoleculeOneSettings, Sequence[str], str], dict[str, Any]]
    """The body of a create request from settings, SMILES and the batch name."""

    @property
    def batches_path(self) -> str:
        """Path to create (POST) and list (GET) batches."""
        return f"/api/{self.version}/batch-search"

    def batch_path(self, remote_id: str) -> str:
        """Path of one batch: details in v2 (GET), counts in v1 (GET), removal (DELETE)."""
        return f"{self.batches_path}/{_segment(remote_id)}"

    def status_path(self, remote_id: str) -> str:
        """Path of the counts of one batch."""
        return f"/api/{self.version}/{self.status_root}/{_segment(remote_id)}"

    def results_path(self, remote_id: str) -> str:
        """Path of the results of one batch."""
        return f"/api/{self.version}/batch-search-result/{_segment(remote_id)}"


def _segment(remote_id: str) -> str:
    """Quote an id as one path segment; it came from a server, so `..` and `/` must not lead elsewhere."""
    return "%2E" * len(remote_id) if remote_id in (".", "..") else quote(remote_id, safe="")


def _create_v1(settings: MoleculeOneSettings, smiles: Sequence[str], _name: str) -> dict[str, Any]:
    return {
        "targets": list(smiles),
        "params": {
            "exploratorySearch": settings.exploratory_search,
            "detailLevel": settings.detail_level,
            "priority": settings.priority,
            **settings.parameters,
        },
    }


def _create_v2(settings: MoleculeOneSettings, smiles: Sequence[str], name: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "targets": list(smiles),
        "parameters": settings.parameters,
        "detail_level": settings.detail_level,
        "priority": settings.priority,
        "invalid_target_strategy": settings.invalid_target_strategy,
        "name": name,
    }
    if settings.preset:
        body["preset"] = settings.preset
    return body


V1 = Dialect("v1", "batch-search", names_batches=False, create_request=_create_v1)
V2 = Dialect("v2", "batch-search-status", names_batches=True, create_request=_create_v2)
DIALECTS = {"v1": V1, "v2": V2}
