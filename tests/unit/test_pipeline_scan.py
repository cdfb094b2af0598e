"""What a listing says against the record, and which targets are followed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.fragalysis import Target, TargetUploads, Upload
from watcher.pipeline.scan import compare, is_followed
from watcher.settings import FragalysisSettings

T0 = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = Target(1, "A71EV2A", "lb32627-66", True)


def at(hours: int) -> datetime:
    return T0 + timedelta(hours=hours)


def listing(*uploads: tuple[int, int] | tuple[int, int, bool]) -> TargetUploads:
    """Index, hours, and perhaps whether it failed."""
    rows = [Upload(1, one[0], at(one[1]), failed=len(one) == 3) for one in uploads]
    return TargetUploads(TARGET, tuple(sorted(rows, key=lambda row: row.committed_at)))


@pytest.mark.parametrize(
    ("known", "current", "remote", "new", "now", "why"),
    [
        ([], None, listing((1, 1), (2, 2)), [(1, 1), (2, 2)], (2, 2), "first upload seen"),
        ([(1, 1)], None, listing((1, 1)), [], (1, 1), "an upload is listed again"),
        ([(1, 1)], None, listing((2, 2)), [(2, 2)], (2, 2), "an upload is listed again"),
        ([(1, 1)], (1, 1), listing((1, 1)), [], (1, 1), ""),
        ([(1, 1)], (1, 1), listing((1, 1), (2, 2)), [(2, 2)], (2, 2), "the index went up"),
        ([(1, 1), (2, 2)], (2, 2), listing((1, 1)), [], (1, 1), "the index went down"),
        ([(1, 1), (2, 2)], (1, 1), listing((1, 1), (2, 3)), [(2, 3)], (2, 3), "the index went up"),
        ([(1, 1), (2, 2)], (2, 2), listing((1, 1), (2, 3)), [(2, 3)], (2, 3), "the same index came with another time"),
        ([(1, 1)], (1, 1), listing((1, 5)), [(1, 5)], (1, 5), "the same index came with another time"),
        ([(1, 1)], (1, 1), listing((1, 1), (2, 2, True)), [], (1, 1), ""),
        ([(1, 1), (2, 2)], (2, 2), listing((1, 1), (2, 2, True)), [], (1, 1), "the index went down"),
        ([], None, listing((1, 1, True)), [], None, ""),
        ([(1, 1)], (1, 1), listing(), [], None, "no upload is listed any more"),
        ([], None, listing(), [], None, ""),
        ([(3, 1)], (3, 1), listing((3, 1), (1, 4)), [(1, 4)], (1, 4), "the index went down"),
    ],
)
def test_compare(
    known: list[tuple[int, int]],
    current: tuple[int, int] | None,
    remote: TargetUploads,
    new: list[tuple[int, int]],
    now: tuple[int, int] | None,
    why: str,
) -> None:
    def key(one: tuple[int, int]) -> tuple[int, datetime]:
        return one[0], at(one[1])

    found = compare({key(one) for one in known}, key(current) if current else None, remote)
    assert found.new == tuple(map(key, new))
    assert found.current == (key(now) if now else None)
    assert found.why == why


_rows = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 9), st.booleans()), unique_by=lambda row: row[:2], max_size=6
)


@given(_rows, _rows)
def test_a_second_look_at_the_same_listing_finds_nothing(
    before: list[tuple[int, int, bool]], after: list[tuple[int, int, bool]]
) -> None:
    known: set[tuple[int, datetime]] = set()
    current = None
    for rows in (before, after):
        remote = listing(*(row if row[2] else row[:2] for row in rows))
        first = compare(known, current, remote)
        assert not known & set(first.new)
        known |= set(first.new)
        current = first.current
        assert (current is None) == all(row[2] for row in rows)
        again = compare(known, current, remote)
        assert (again.new, again.current, again.why) == ((), current, "")


@given(_rows)
def test_the_newest_by_time_counts_whatever_its_index(rows: list[tuple[int, int, bool]]) -> None:
    found = compare((), None, listing(*(row if row[2] else row[:2] for row in rows)))
    good = [at(hours) for _, hours, failed in rows if not failed]
    assert (found.current[1] if found.current else None) == max(good, default=None)


@pytest.mark.parametrize(
    ("targets", "exclude", "followed"),
    [
        (("*",), (), True),
        ((), (), False),
        (("A71*",), (), True),
        (("a71*",), (), False),
        (("A71EV2A@lb32627-66",), (), True),
        (("A71EV2A@lb99999-1",), (), False),
        (("*@lb32627-*",), (), True),
        (("*",), ("A71EV2A",), False),
        (("A71EV2A",), ("*@lb32627-66",), False),
        (("Mpro", "A71EV2?"), ("Mpro",), True),
        (("A71EV2",), (), False),
    ],
)
def test_globs_on_name_or_name_and_tas(targets: tuple[str, ...], exclude: tuple[str, ...], followed: bool) -> None:
    settings = FragalysisSettings(targets=targets, exclude=exclude)
    assert is_followed(settings, "A71EV2A", "lb32627-66") is followed
