"""What became of a purchase: a pure function of how far the request got and of what came back.

Two mistakes are possible. Taking a purchase that happened for one that did not buys twice; the reverse only waits. So
everything doubtful is `Unknown`, and only what excludes an acceptance is anything else.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from watcher import answers
from watcher.molecule_one.records import read_id

_MAX_ANSWER = 100_000
_MAX_WORDS = 500
_DEEPEST = 10
_ONE_BATCH = re.compile(r"/batch-search/[^/?#]")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The batch exists at the service and is paid."""

    remote_id: str
    answer: str
    """The body as it came."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request certainly did not reach the service."""

    reason: str
    ours: bool = False
    """The fault is on this machine."""


@dataclass(frozen=True, slots=True)
class Later:
    """The service asked to come back later (429); nothing was bought."""

    reason: str
    retry_after: timedelta | None


@dataclass(frozen=True, slots=True)
class ServiceRefused:
    """Nothing was bought, and the fault is no compound: credentials, payment, address, a proxy. The service pauses."""

    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The service refused what the batch holds; nothing was bought. `reason` is in the vendor's words."""

    reason: str
    status: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """The batch may exist and may be paid."""

    reason: str


Outcome: TypeAlias = Accepted | NotSent | Later | ServiceRefused | Refused | Unknown


def classify(sent: answers.Answer | answers.NotSent | answers.NoAnswer) -> Outcome:
    """Say what became of a purchase.

    Statuses that definitely refuse are named below; any other is Unknown, also 408, 409 and 5xx. 400, 413 and 422 blame
    the content when the body is the API's own words: JSON or plain text (its errors are not always JSON). With a page
    (HTML, XML) or without a body they come from a proxy: nothing was accepted, but no compound is at fault.
    A redirect to a batch, and any 303 to where batches are, may well say that it was created (RFC 9110, 15.4.4), hence
    doubt; other redirects refuse.
    """
    if isinstance(sent, answers.NotSent):
        return NotSent(sent.reason, ours=sent.ours)
    if isinstance(sent, answers.NoAnswer):
        return Unknown(sent.reason)
    status = sent.status
    said = words_of(sent)
    reason = f"{status}: {said}" if said else str(status)
    if 200 <= status < 300:
        remote_id = _id_in(sent.body)
        if remote_id is None:
            return Unknown(f"{status} without the id of a batch{f': {said}' if said else ''}")
        return Accepted(remote_id, sent.body[:_MAX_ANSWER].decode("utf-8", "replace"))
    if 300 <= status < 400 and _leads_to_a_batch(status, sent.headers.get("Location", "")):
        return Unknown(f"{status} that leads to a batch")
    if 300 <= status < 400 or status in (401, 402, 403, 404, 405):
        return ServiceRefused(reason, status)
    if status == 429:
        return Later(reason, sent.retry_after)
    if status in (400, 413, 422):
        own_words = said and not sent.is_html and not sent.body.lstrip().startswith(b"<")
        return Refused(said, status) if own_words else ServiceRefused(reason, status)
    return Unknown(reason)


def _leads_to_a_batch(status: int, location: str) -> bool:
    return "/batch-search" in location if status == 303 else bool(_ONE_BATCH.search(location))


def words_of(answer: answers.Answer) -> str:
    """Return what an answer says in words, in one line: `message` and `errors` of the API, or the text of the body."""
    if answer.is_html:
        return "a web page"
    body = _json(answer.body)
    if isinstance(body, dict):
        parts = [_flat(body[key]) for key in ("message", "errors", "error", "detail") if body.get(key)]
        if parts:
            return ": ".join(parts)[:_MAX_WORDS]
    return answer.text[:_MAX_WORDS]


def same_words(a: str, b: str) -> bool:
    """Say whether two refusals say the same, leaving out what names a molecule: quoted text, ids, numbers, SMILES.

    Two that say nothing say the same. Rather too much is left out than too little: what is the same asks a person,
    what differs marks single molecules as failed.
    """
    return _plain(a) == _plain(b)


_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|“[^”]*”|«[^»]*»")
_SMILES_LETTERS = re.compile(r"(?=.*[A-Z])(?:Br|Cl|[BCNOPSFIHbcnops])+")
_NO_WORD = re.compile(r"[\d=#@/\\+%()\[\]{}*$~|<>]")


def _plain(text: str) -> set[str]:
    """Return the words of a text; a set, because one molecule at fault says once what ten say ten times."""
    words = (word.strip(".,:;!?") for word in _QUOTED.sub(" ", text).split())
    return {word.lower() for word in words if word and not _names_something(word)}


def _names_something(word: str) -> bool:
    """Say whether a word is a number, an id or a SMILES: a digit, a bond or a bracket in it, or nothing but atoms."""
    return bool(_NO_WORD.search(word) or _SMILES_LETTERS.fullmatch(word))


def _flat(value: Any, levels: int = _DEEPEST) -> str:
    """Write nested errors in one line, without the quotes of JSON: quoted text is left out when words are compared.

    What is nested deeper than people read is left out, however deep an answer goes.
    """
    if isinstance(value, dict | list) and not levels:
        return "..."
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_flat(item, levels - 1)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(_flat(item, levels - 1) for item in value)
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def _id_in(body: bytes) -> str | None:
    value = _json(body)
    return read_id(value.get("id")) if isinstance(value, dict) else None


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
