"""The scoring profile: which settings change a score, so that a score is bought once under each.

Sources: the public Molecule.one batch scoring API documents v1 and v2 for keys and defaults.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from watcher.settings import MoleculeOneSettings

_KEY_LENGTH = 16

_NOT_RESULT_CHANGING = frozenset({"priority", "name"})
"""Keys that may stand among the parameters and leave a score as it is."""

_DEFAULTS_2021 = {
    "availability_tier": 3,
    "length": "regular",
    "model": "gat",
    "supplier_redundancy": True,
    "synthesis_scale": "molar",
    "time_limit": False,
}
"""v2 document of 2021, whose detail levels are `score` and `synthesis`."""

_DEFAULTS_2023 = {"availability_tier": 3, "length": "short"}
"""v2 document of 2023, whose detail levels are `best_path` and `all_paths`: other defaults under the same version."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a score depends on beside the compound."""

    key: str
    """Hash of `normalised`; the same settings give the same key forever."""
    api_version: str
    normalised: str
    """Canonical JSON of what changes a score, without what is at its documented default."""


def profile_of(settings: MoleculeOneSettings) -> Profile:
    """Return the profile of some settings.

    A documented default counts the same whether it is written out or left out. With a preset nothing is a default,
    for parameters take the place of what the preset says.
    """
    content = {
        "api_version": settings.api_version,
        **(_v1(settings) if settings.api_version == "v1" else _v2(settings)),
    }
    normalised = json.dumps(_canonical(content), sort_keys=True, separators=(",", ":"), default=str)
    key = hashlib.sha256(normalised.encode()).hexdigest()[:_KEY_LENGTH]
    return Profile(key, settings.api_version, normalised)


def _v1(settings: MoleculeOneSettings) -> dict[str, Any]:
    sent = {
        "exploratorySearch": settings.exploratory_search,
        "detailLevel": settings.detail_level,
        **settings.parameters,
    }
    return _without(sent, {"exploratorySearch": False, "detailLevel": "score"})


def _v2(settings: MoleculeOneSettings) -> dict[str, Any]:
    newer = settings.detail_level in ("best_path", "all_paths")
    defaults: dict[str, Any] = {} if settings.preset else _DEFAULTS_2023 if newer else _DEFAULTS_2021
    return {
        "detail_level": settings.detail_level,
        **({"preset": settings.preset} if settings.preset else {}),
        "parameters": _without(settings.parameters, defaults),
    }


def _without(sent: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in sent.items()
        if key not in _NOT_RESULT_CHANGING and not (key in defaults and _same(value, defaults[key]))
    }


def _same(value: object, default: object) -> bool:
    return isinstance(value, bool) == isinstance(default, bool) and value == default


def _canonical(value: Any) -> Any:
    """Write numbers one way: 1.0 and 1 are the same JSON number."""
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
