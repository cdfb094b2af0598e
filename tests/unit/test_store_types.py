"""What goes into a column comes out of it, and what must not go in does not."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from watcher.store.chunks import CHUNK, chunks
from watcher.store.schema import digest
from watcher.store.types import AnyText, UtcDateTime

DIALECTS = tuple(make_url(url).get_dialect()() for url in ("sqlite+aiosqlite://", "postgresql+asyncpg://"))
ZONES = (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=9)))
EARLY, LATE = datetime(1970, 1, 2), datetime(9000, 1, 1)  # noqa: DTZ001
ANY = st.text(st.characters() | st.sampled_from(["\x00", "\ud800", "\udfff", "\ue000", "0", "e"]))


@given(ANY)
def test_any_text_comes_back_and_can_be_stored(value: str) -> None:
    for dialect in DIALECTS:
        stored = AnyText().process_bind_param(value, dialect)
        assert stored is not None
        assert "\x00" not in stored
        stored.encode()  # no half of a surrogate pair
        assert AnyText().process_result_value(stored, dialect) == value


@given(ANY, ANY)
def test_different_texts_stay_different(one: str, other: str) -> None:
    stored = [AnyText().process_bind_param(value, DIALECTS[0]) for value in (one, other)]
    assert (stored[0] == stored[1]) == (one == other)
    assert (digest(one) == digest(other)) == (one == other)


@given(st.datetimes(min_value=EARLY, max_value=LATE, timezones=st.sampled_from(ZONES)))
def test_a_moment_comes_back_in_utc(value: datetime) -> None:
    for dialect in DIALECTS:
        back = UtcDateTime().process_result_value(UtcDateTime().process_bind_param(value, dialect), dialect)
        assert back == value
        assert back is not None
        assert back.tzinfo == UTC


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 3, 1), DIALECTS[0])  # noqa: DTZ001


def test_nothing_stays_nothing() -> None:
    for kind in (AnyText(), UtcDateTime()):
        assert kind.process_bind_param(None, DIALECTS[0]) is None
        assert kind.process_result_value(None, DIALECTS[0]) is None


@given(st.integers(0, 3 * CHUNK))
def test_pieces_are_all_of_it_in_its_order(length: int) -> None:
    pieces = list(chunks(range(length)))
    assert [value for piece in pieces for value in piece] == list(range(length))
    assert all(0 < len(piece) <= CHUNK for piece in pieces)
