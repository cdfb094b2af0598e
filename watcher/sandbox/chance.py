"""Chance that repeats itself: every choice of the sandbox is a hash of its seed and its subject."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def _digest(parts: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()


def unit(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`."""
    return int.from_bytes(_digest(parts)[:6]) / 2**48


def shuffled(items: Iterable[T], *seed: object) -> list[T]:
    """Return `items` in an order that looks random and is the same every time."""
    return [item for _, item in sorted(enumerate(items), key=lambda pair: unit(*seed, pair[0]))]


def identifier(*parts: object) -> str:
    """Return a UUID made of `parts`."""
    return str(uuid.UUID(bytes=_digest(parts)[:16], version=4))
