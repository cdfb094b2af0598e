"""What messages say, when trouble is told, and how many of them become one."""

import csv
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.bands import EASY_BELOW, band
from watcher.notices import (
    HEALS_BY_ITSELF,
    LONGEST,
    Settled,
    Waiting,
    attention,
    combine,
    in_words,
    patience_for,
    recovered,
    settled,
    without_structures,
)

DATA = Path(__file__).parents[1] / "data"
QUARTER = timedelta(minutes=15)


def facts(**values: Any) -> Settled:
    nothing = dict.fromkeys(("scored", "no_route", "failed", "easy", "rejected"), 0)
    named = {"target": "A71EV2A", "target_access_string": "lb32627-66", "upload_index": 9, "again": False}
    return Settled(**{**named, **nothing, **values})


def said(**values: Any) -> str:
    notice = settled(facts(**values), include_structures=False)
    return f"{notice.subject}: {notice.body}"


def test_the_digest_of_an_upload() -> None:
    full = facts(scored=11, no_route=2, failed=1, easy=3, rejected=2, best=(1.2000001, "A0310a", "CCO"))
    notice = settled(full, include_structures=False)
    assert notice.subject == "A71EV2A lb32627-66 upload 9"
    assert notice.body == (
        "14 new compounds, 11 scored, 3 easy, 2 without a route, 1 failed, 2 rejected; best 1.2 (A0310a)"
    )
    assert settled(full, include_structures=True).body.endswith("best 1.2 (A0310a, CCO)")


def test_the_digest_of_an_upload_with_little_in_it() -> None:
    assert said() == "A71EV2A lb32627-66 upload 9: nothing new was bought"
    assert said(scored=1, best=(7.0, "x", "C")).endswith(": 1 new compound, 1 scored; best 7 (x)")
    withheld = said(withheld={"seen in private targets only": 5})
    assert withheld.endswith("nothing new was bought; 5 not bought: seen in private targets only")
    assert said(again=True, scored=2, best=(2.5, "x", "C")).startswith("A71EV2A lb32627-66 upload 9, settled again: 2 ")


def test_easy_ends_with_a_band() -> None:
    assert band(EASY_BELOW - 0.01) == "short synthesis"
    assert band(EASY_BELOW) == "long or uncertain"


def test_trouble_is_told_with_its_reason_and_what_to_do() -> None:
    told = attention("batch 3", "unconfirmed", "nobody knows", "adopt or release it", include_structures=False)
    assert told.subject == "Needs attention: batch 3: unconfirmed"
    assert told.body == "nobody knows\nWhat to do: adopt or release it"
    over = recovered("molecule_one", "submissions_refused", timedelta(hours=2, minutes=5, seconds=7))
    assert (over.subject, over.body) == ("Over: molecule_one: submissions refused", "It lasted 2 h 5 min.")


@pytest.mark.parametrize(
    "kind",
    ["unconfirmed", "lost", "credentials", "submissions_refused", "scan_limit", "profile_waits", "vanished",
     "archive_quarantined", "scoring_quarantined", "turned_up", "a kind of a later version"],
)  # fmt: skip
def test_what_needs_a_person_is_told_at_once(kind: str) -> None:
    assert patience_for(kind, QUARTER) == timedelta()


@pytest.mark.parametrize("kind", sorted(HEALS_BY_ITSELF))
def test_what_may_heal_by_itself_has_time(kind: str) -> None:
    assert patience_for(kind, QUARTER) == QUARTER


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-5, "0 s"), (12.4, "12 s"), (60, "1 min"), (3661, "1 h 1 min"), (90000, "1 d 1 h"), (86400, "1 d")],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words


def waiting(*events: str, body: str = "what it says") -> list[Waiting]:
    return [Waiting(number, event, f"subject {number}", body) for number, event in enumerate(events, start=1)]


def test_one_notice_is_a_message_as_it_is() -> None:
    message = combine(waiting("attention"))
    assert (message.subject, message.body, message.tone) == ("subject 1", "what it says", "warning")
    assert message.covers == (1,)


def test_several_become_one_with_what_needs_a_person_first() -> None:
    message = combine(waiting("settled", "recovered", "attention", "settled"))
    assert message.subject == "1 needs attention, 1 is over, 2 uploads are settled"
    assert message.body == (
        "subject 2\nwhat it says\n\nsubject 3\nwhat it says\n\nsubject 1: what it says\nsubject 4: what it says"
    )
    assert message.tone == "warning"
    assert set(message.covers) == {1, 2, 3, 4}
    assert combine(waiting("settled", "recovered")).tone == "success"
    assert combine(waiting("settled", "settled")).tone == "info"


def test_a_first_scan_is_one_message() -> None:
    message = combine(waiting(*["settled"] * 400, body="14 new compounds, 11 scored; best 1.2 (A0310a)"))
    assert len(message.body) <= LONGEST
    shown = message.body.count("subject ")
    assert message.body.endswith(f"... and {400 - shown} more; `watcher status` shows all of them")
    assert shown > 40
    assert len(message.covers) == 400


@given(
    st.lists(
        st.tuples(st.sampled_from(("settled", "attention", "recovered")), st.integers(1, 2 * LONGEST)),
        min_size=1,
        max_size=60,
    )
)
def test_every_notice_is_told_once_and_no_message_is_too_long(drawn: list[tuple[str, int]]) -> None:
    left = [Waiting(n, event, f"<{n}>" + "s" * 100, "b" * length) for n, (event, length) in enumerate(drawn)]
    told: Counter[int] = Counter()
    while left:
        message = combine(left)
        assert len(message.body) <= LONGEST
        assert message.covers
        told.update(message.covers)
        covered = [one for one in left if one.id in message.covers]
        text = message.subject + message.body
        assert all(f"<{one.id}>" in text for one in covered if one.event != "settled"), "only digests are left out"
        left = [one for one in left if one.id not in message.covers]
    assert told == dict.fromkeys(range(len(drawn)), 1)


def structures() -> list[str]:
    with (DATA / "pathological_smiles.csv").open(newline="", encoding="utf-8") as file:
        found = [value for row in csv.reader(file) for value in row]
    plain = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[NH3+]CC([O-])=O.Cl", "C1CC1", "FC(F)F"]
    return plain + [one for one in found if one.count("c1") >= 2 and one.isprintable() and " " not in one]


@pytest.mark.parametrize("frame", ["{}", "refused: '{}' is bad", '{{"smiles":"{}"}}', "smiles={}, and more", "({})"])
def test_structures_are_taken_out_of_what_services_repeat(frame: str) -> None:
    left = [one for one in structures() if one in without_structures(frame.format(one))]
    assert left == []
    assert len(structures()) > 7


@pytest.mark.parametrize(
    "text",
    [
        "the service answered 502 Bad Gateway to GET /api/v2/batch-search/550e8400-e29b-41d4-a716-446655440000/",
        "12 compounds are held back: the scoring profile is new and waits for `watcher approve --profile`",
        "look at [molecule_one] in the settings, then `watcher approve --profile` to go on",
        "nsp13@lb18145-1 upload 3: 1.2.3.4:80 timed out after 30 s (soon, no, on) 2026-03-01T12:00:00Z",
        "`watcher batches adopt 3 REMOTE_ID` if it is there, `watcher batches release 3` if not",
        "/srv/downloads/lb32627-66/A71EV2A/3/archive.zip: no space left on device [Errno 28]",
    ],
)
def test_what_is_no_structure_stays(text: str) -> None:
    assert without_structures(text) == text


@given(st.text())
def test_any_text_can_be_looked_through(text: str) -> None:
    notice = attention(text, "kind", text, text, include_structures=False)
    assert all(line.isprintable() for line in (notice.subject, *notice.body.split("\n")))
    assert len(notice.body) <= LONGEST


def test_structures_stay_where_they_are_wanted() -> None:
    assert attention("s", "k", "refused CCCO", "", include_structures=True).body.startswith("refused CCCO")
    assert "CCCO" not in attention("s", "k", "refused CCCO", "", include_structures=False).body
