"""What messages to people say, which trouble is told at once, and how many of them become one: pure functions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from watcher.settings import NotifySettings

NOT_TOLD = "notifications_failing"
"""The kind of condition that nobody is notified of: it would have to be sent the way that fails."""
GATHERING = timedelta(seconds=5)
"""For so long a settled upload waits for others, to go into the same message."""
LONGEST = 3500
"""Characters of a message: most services take that much; to those that take less it goes in parts."""
HEALS_BY_ITSELF = frozenset(
    ("unreachable", "machine", "unreadable", "unexpected", "read_back", "archive_unavailable", "backup_failed")
)
"""Kinds of conditions that the program works on without a person; they are told when they last."""

_LONGEST_SUBJECT = 150
_LONGEST_BLOCK = 1500
_LONGEST_LINE = 400
_FOR_THE_REST = 100
_STRUCTURE = "[structure]"


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who is told, and of what: the entries of `notify.urls` by their number, and the choices of `[notify]`."""

    addresses: int
    events: frozenset[str]
    patience: timedelta
    include_structures: bool


def subscription_of(settings: NotifySettings) -> Subscription:
    """Return what the settings say about it."""
    return Subscription(len(settings.urls), frozenset(settings.events), settings.patience, settings.include_structures)


@dataclass(frozen=True, slots=True)
class Settled:
    """What an upload brought, once each of its compounds has its result. Counts are of compounds but for `rejected`."""

    target: str
    target_access_string: str
    upload_index: int
    again: bool
    """It was settled before, and more has come since; only that is counted."""
    scored: int
    no_route: int
    failed: int
    easy: int
    rejected: int
    """Observations whose SMILES is no compound."""
    withheld: Mapping[str, int] = field(default_factory=dict)
    """Compounds that are not bought, by the reason."""
    best: tuple[float, str, str] | None = None
    """The lowest score, the code of an observation that has it, and its SMILES."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message: a line that names it, and what it says."""

    subject: str
    body: str


def settled(facts: Settled, *, include_structures: bool) -> Notice:
    """Say what an upload brought."""
    new = facts.scored + facts.no_route + facts.failed
    counts = [
        (new, "new compound" if new == 1 else "new compounds"),
        (facts.scored, "scored"),
        (facts.easy, "easy"),
        (facts.no_route, "without a route"),
        (facts.failed, "failed"),
        (facts.rejected, "rejected"),
    ]
    parts = [", ".join(f"{number} {words}" for number, words in counts if number) or "nothing new was bought"]
    if facts.best is not None:
        score, code, smiles = facts.best
        structure = f", {smiles}" if include_structures else ""
        parts.append(f"best {round(score, 2):g} ({code}{structure})")
    parts += [f"{number} not bought: {reason}" for reason, number in facts.withheld.items()]
    again = ", settled again" if facts.again else ""
    name = f"{facts.target} {facts.target_access_string} upload {facts.upload_index}{again}"
    return _notice(name, "; ".join(parts))


def attention(subject: str, kind: str, reason: str, action: str, *, include_structures: bool) -> Notice:
    """Say that something is not well, why, and what the reader can do."""
    shown = reason if include_structures else without_structures(reason)
    return _notice(f"Needs attention: {subject}: {_words(kind)}", f"{shown}\nWhat to do: {action}")


def recovered(subject: str, kind: str, lasted: timedelta) -> Notice:
    """Say that it is over."""
    return _notice(f"Over: {subject}: {_words(kind)}", f"It lasted {in_words(lasted)}.")


def patience_for(kind: str, patience: timedelta) -> timedelta:
    """Return how long a condition must have lasted before anybody is told."""
    return patience if kind in HEALS_BY_ITSELF else timedelta()


def in_words(duration: timedelta) -> str:
    """Write a duration for people, with its two largest units: `2 d 3 h`, `5 min`, `12 s`."""
    seconds = max(0, round(duration.total_seconds()))
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts = []
    for size, name in units:
        number, seconds = divmod(seconds, size)
        parts.append((number, name))
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    shown = [f"{number} {name}" for number, name in parts[first : first + 2] if number]
    return " ".join(shown) or "0 s"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits in the outbox."""

    id: int
    event: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: one notice, or several in one."""

    subject: str
    body: str
    tone: Literal["info", "success", "warning"]
    covers: tuple[int, ...]
    """The notices in it. What is left waits for the next message."""


def combine(waiting: Sequence[Waiting]) -> Message:
    """Put what waits, the oldest first, into one message of at most `LONGEST` characters.

    What needs a person, or does no more, comes first and in full, or in the next message. Of settled uploads, those
    that find no room are counted. `waiting` must not be empty.
    """
    urgent = [one for one in waiting if one.event != "settled"]
    settled = [one for one in waiting if one.event == "settled"]
    if len(waiting) == 1:
        return Message(waiting[0].subject, _cut(waiting[0].body, LONGEST), _tone(waiting), (waiting[0].id,))
    blocks, room = _fitting([_cut(f"{one.subject}\n{one.body}", _LONGEST_BLOCK) for one in urgent], LONGEST)
    covered = urgent[: len(blocks)]
    if len(covered) == len(urgent) and settled and room > _FOR_THE_REST + _LONGEST_LINE:
        lines, _ = _fitting(
            [_cut(f"{one.subject}: {one.body}", _LONGEST_LINE) for one in settled], room - _FOR_THE_REST
        )
        if more := len(settled) - len(lines):
            lines.append(f"... and {more} more; `watcher status` shows all of them")
        covered += settled
        blocks.append("\n".join(lines))
    return Message(_summary(covered), "\n\n".join(blocks), _tone(covered), tuple(one.id for one in covered))


def _fitting(texts: Iterable[str], room: int) -> tuple[list[str], int]:
    """Return the texts, from the first on, that fit with two characters between them; and the room that is left."""
    taken = []
    for text in texts:
        if len(text) + 2 > room:
            break
        taken.append(text)
        room -= len(text) + 2
    return taken, room


def _summary(notices: Sequence[Waiting]) -> str:
    counted = {event: sum(one.event == event for one in notices) for event in ("attention", "recovered", "settled")}
    words = []
    if number := counted["attention"]:
        words.append(f"{number} {'needs' if number == 1 else 'need'} attention")
    if number := counted["recovered"]:
        words.append(f"{number} {'is' if number == 1 else 'are'} over")
    if number := counted["settled"]:
        words.append(f"{number} {'upload is' if number == 1 else 'uploads are'} settled")
    return ", ".join(words)


def _tone(notices: Sequence[Waiting]) -> Literal["info", "success", "warning"]:
    events = {one.event for one in notices}
    return "warning" if "attention" in events else "success" if "recovered" in events else "info"


def _notice(subject: str, body: str) -> Notice:
    return Notice(_cut(_clean(subject), _LONGEST_SUBJECT), _cut("\n".join(map(_clean, body.split("\n"))), LONGEST))


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _clean(line: str) -> str:
    """Replace what cannot be printed: names and reasons come from servers."""
    return "".join(character if character.isprintable() else " " for character in line)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


_ATOM = r"(?:\[[^\[\]\s]{1,40}\]|Cl|Br|[BCNOPSFI]|[bcnops])"
_RUN = re.compile(rf"(?<![A-Za-z0-9_])(?:{_ATOM}|[-=#$:/\\.()*~%\d])+(?![A-Za-z0-9_])")
_ATOMS = re.compile(_ATOM)
_RINGS = re.compile(r"%\d\d|\d")
_LONG = 12
"""So long a run of atoms and bonds is no word, even if it was cut off."""


def without_structures(text: str) -> str:
    """Replace whatever looks like a SMILES of three atoms or more: services repeat in errors what was sent to them."""
    return _RUN.sub(lambda match: _STRUCTURE if _is_structure(match[0]) else match[0], text)


def _is_structure(run: str) -> bool:
    atoms = _ATOMS.findall(run)
    if len(atoms) < 3:
        return False
    if len(run) >= _LONG:
        return True
    rings = _RINGS.findall(_ATOMS.sub("", run))
    if any(atom.islower() for atom in atoms) and not rings:
        return False  # a word such as `soon`: aromatic atoms stand in rings
    return run.count("(") == run.count(")") and all(rings.count(ring) % 2 == 0 for ring in rings)
