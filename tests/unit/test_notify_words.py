"""What is said of a URL that is a secret: nothing but what stands before `://`."""

import pytest

from watcher.notify import _without
from watcher.notify_process import label_of

URL = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?footer=n%6F-secret"


@pytest.mark.parametrize(
    "words",
    [
        f"Could not load {URL}",
        "An invalid Slack token (TIiajkdnlazkcOXrIdevi7FQ) was specified",
        "T1JJ3T3L2 and A1BRTD4JD and no-secret and n%6F-secret",
    ],
)
def test_every_part_of_a_url_is_taken_out(words: str) -> None:
    said = _without(URL, words)
    assert "***" in said
    assert not [part for part in ("T1JJ", "A1BR", "TIia", "no-secret", "n%6F") if part in said]


def test_what_apprise_says_is_kept_short() -> None:
    assert _without(URL, "error=500.") == "error=500."
    assert len(_without(URL, "e" * 5000)) == 300


@pytest.mark.parametrize(
    ("url", "label"),
    [
        (URL, "entry 2 (slack://...)"),
        ("MAILTOS://me:pass@host", "entry 2 (mailtos://...)"),
        ("a-token-alone", "entry 2 (?://...)"),
        ("token:// https://x", "entry 2 (token://...)"),
        ("", "entry 2 (?://...)"),
    ],
)
def test_an_entry_is_named_by_its_number_and_its_kind(url: str, label: str) -> None:
    assert label_of(2, url) == label
