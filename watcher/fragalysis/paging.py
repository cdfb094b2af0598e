"""Reading a whole listing, page by page, or nothing: a listing that does not add up is never taken for the truth.

Fragalysis promises no order, so that between two pages rows may repeat or be skipped. The proof of a complete listing
is that its distinct keys add up to its `count`, which may change on the way: the last one counts.
"""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import msgspec
from yarl import URL

from watcher.answers import is_crowded
from watcher.errors import Invalid, Transient
from watcher.fragalysis.records import Row
from watcher.fragalysis.session import Session

R = TypeVar("R", bound=Row)

PAGE_LIMIT = 5000
"""Rows asked for at a time; the server's own default and no maximum are known (5000 observations are 2.7 MB)."""
_READS = 3
_MAX_PAGES = 10_000
_MOST_BYTES = 128 * 10**6
"""Of a listing of more than one page; one page alone may have what the settings allow."""


class Page(msgspec.Struct, Generic[R], frozen=True):
    """One page of a listing."""

    count: int | str
    results: list[R]
    next: str | None = None


class _AnyPage(msgspec.Struct, frozen=True):
    results: list[msgspec.Raw]


class _AnyRow(msgspec.Struct, frozen=True):
    id: int | float | str | bool | None = None


class _Mismatch(Exception):
    """One reading of a listing that does not add up; says why."""


async def read_listing(
    session: Session,
    path: str,
    row_type: type[R],
    *,
    operation: str,
    filters: Mapping[str, int] | None = None,
    limit: int = PAGE_LIMIT,
) -> list[R]:
    """Return every row once, in no promised order.

    A reading that does not add up is repeated at once, then Transient. Raises Invalid for a row of another shape,
    naming endpoint, row and field; else what Session raises.
    """
    for _ in range(_READS):
        try:
            return await _read(session, path, row_type, operation, filters or {}, limit)
        except _Mismatch as mismatch:
            reason = mismatch
    raise Transient(f"the listing {path} does not add up: {reason}; it is read again later")


async def _read(
    session: Session, path: str, row_type: type[R], operation: str, filters: Mapping[str, int], limit: int
) -> list[R]:
    rows: dict[Hashable, R] = {}
    query: dict[str, str | int] = {"limit": limit, **filters}
    seen: set[str] = set()
    size = 0
    for _ in range(_MAX_PAGES):
        answer = await session.get(path, operation=operation, params=query)
        size += len(answer.body)
        if rows and size > _MOST_BYTES:
            raise Transient(f"the pages of the listing {path} are more than {_MOST_BYTES} bytes")
        try:
            page: Page[R] = session.json(answer, Page[row_type])  # type: ignore[valid-type]
        except Invalid:
            if not is_crowded(answer.body):
                _find_bad_row(session.json(answer, _AnyPage), path, row_type)
            raise
        before = len(rows)
        for row in page.results:
            try:
                rows[row.key()] = row
            except ValueError as error:
                raise Invalid(f"{path} row {getattr(row, 'id', None)}: {error}") from None
        if not page.next:
            if str(len(rows)) != str(page.count):
                raise _Mismatch(f"{len(rows)} different rows, but its count is {str(page.count)[:20]!r}")
            return list(rows.values())
        if len(rows) == before or page.next in seen:
            raise _Mismatch("its `next` links lead in a circle")
        seen.add(page.next)
        query = {**_next_query(page.next, path), **filters}
    raise _Mismatch(f"more than {_MAX_PAGES} pages")


def _next_query(link: str, path: str) -> dict[str, str | int]:
    """Take only the query of a `next` link: scheme, host and path are ours to know (`targets_behind_proxy_noproto`).

    The filter stays ours as well, so that a link without it cannot mix rows of another target in.
    """
    try:
        return dict(URL(link).query)
    except ValueError:
        raise Transient(f"the listing {path} has a `next` link that cannot be read") from None


def _find_bad_row(page: _AnyPage, path: str, row_type: type[Row]) -> None:
    """Raise Invalid for the first row that is not of `row_type`, with its id."""
    for row in page.results:
        try:
            msgspec.json.decode(row, type=row_type)
        except msgspec.ValidationError as error:
            raise Invalid(f"{path} row {_id_of(row)}: {error}") from None


def _id_of(row: msgspec.Raw) -> str:
    """Return the id of a row of any shape, for messages."""
    try:
        return str(msgspec.json.decode(row, type=_AnyRow).id)[:40]
    except msgspec.ValidationError:
        return "without an id"
