"""The vendor's bands of scores, from 1 (easy) to 10 (hard); its own words, from its document of API v2."""

from typing import Final

BANDS: Final = (
    (2.0, "commercially available"),
    (4.0, "short synthesis"),
    (6.0, "long or uncertain"),
    (float("inf"), "very long, or none found"),
)
"""Each band by the score at which it ends, and its name."""
EASY_BELOW: Final = 4.0
"""What can be bought, or made by a short synthesis, is called easy."""


def band(score: float) -> str:
    """Return the name of the band of a score."""
    return next(name for limit, name in BANDS if score < limit)
