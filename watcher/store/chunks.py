"""Pieces of a size that a statement can take: both databases limit its parameters."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

CHUNK = 500
T = TypeVar("T")


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut values into pieces, in their order."""
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]
