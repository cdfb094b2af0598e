"""Choices that several commands offer."""

from enum import StrEnum


class Age(StrEnum):
    """The two ages of the Fragalysis API."""

    OLDER = "2024"
    NEWER = "2026"


class ApiVersion(StrEnum):
    """The two versions of the Molecule.one batch API."""

    V1 = "v1"
    V2 = "v2"
