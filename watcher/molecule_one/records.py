"""What Molecule.one answers, as typed records: strict in what is kept, tolerant in what is read.

Keys come in camelCase or snake_case and numbers as numbers or strings, depending on version and parameters (public API
documents v1 and v2). What cannot be read becomes None; the item as it came is kept beside it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from watcher.errors import Transient

Kind = Literal["scored", "no_route", "failed", "running"]

ERROR_RESULT = -1.0
"""Value of `result` that is an error code (public API document v1)."""
NO_ROUTE_RESULT = 10.0
"""Value of `result`, with neither price nor certainty, of a compound that no route was found for."""
_LONGEST_ID = 200
"""Characters; an index of PostgreSQL holds no more than some thousands of bytes."""
_MOST_RESULTS = 200_000
"""Twice the largest batch. More are not read: a result takes far more memory than the two bytes that may name it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many molecules of a batch are in which state."""

    queued: int
    running: int
    finished: int
    error: int

    @property
    def total(self) -> int:
        """How many molecules the batch holds, as far as the counts tell."""
        return self.queued + self.running + self.finished + self.error

    @property
    def rests(self) -> bool:
        """Say whether something is done and nothing is to be done, whatever the size."""
        return self.queued <= 0 and self.running <= 0 and self.finished + self.error > 0

    def complete(self, size: int) -> bool:
        """Say whether a batch of `size` molecules is done; 0/0 right after its creation is not."""
        return self.rests and self.finished + self.error >= size


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """One batch as the service lists it."""

    remote_id: str
    name: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The batches that the service lists.

    `complete` is false when the listing is cut, repeats itself, or does not add up: then it proves no absence.
    """

    batches: tuple[RemoteBatch, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class ResultItem:
    """One result. `smiles` is the very string that was submitted, empty if the item names none."""

    smiles: str
    status: str
    """`ok`, `running`, `error`, or whatever else came, in lower case."""
    result: float | None
    """Score from 1 (easy) to 10 (hard), -1 for an error, as it came."""
    certainty: float | None
    """0 to 1."""
    price_usd: float | None
    """`price`, in USD."""
    reaction_count: int | None
    timed_out: bool | None
    route: str | None
    """The synthesis as JSON text."""
    raw: str
    """The item as JSON text, exactly as it came."""

    @property
    def kind(self) -> Kind:
        """What the item says of its compound.

        A status that no document knows is believed to be done once a result stands beside it, else to be under way.
        """
        if self.status == "error" or self.result == ERROR_RESULT:
            return "failed"
        if self.status == "running" or self.result is None:
            return "running"
        if self.result == NO_ROUTE_RESULT and self.price_usd is None and self.certainty is None:
            return "no_route"
        return "scored"

    @property
    def is_strange(self) -> bool:
        """Whether it may be a result in a shape that nobody knows: no molecule is named, or none is under way."""
        return not self.smiles or (self.kind == "running" and self.status != "running")


def read_counts(body: bytes, what: str) -> Counts:
    """Read the counts of a batch. Raises Transient when they are not there."""
    fields = _decode(body, what)
    numbers = (
        [_integer(fields.get(key, 0)) for key in ("queued", "running", "finished", "error")] if _is(fields) else []
    )
    if not numbers or None in numbers or "finished" not in fields:
        raise Transient(f"{what} answered without the counts of the batch")
    return Counts(*(number or 0 for number in numbers))


def read_batch(value: object) -> RemoteBatch | None:
    """Read one batch of a listing or its details; None when it has no id."""
    if not isinstance(value, dict) or (remote_id := read_id(value.get("id"))) is None:
        return None
    name = value.get("name")
    return RemoteBatch(remote_id, name if isinstance(name, str) else None, _integer(value.get("size")))


def read_id(value: object) -> str | None:
    """Read the id of a batch, a string or a whole number; None when it is neither, empty, or no id by its length."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return text if text.strip() and len(text) <= _LONGEST_ID else None


def read_details(body: bytes, what: str) -> RemoteBatch:
    """Read the details of one batch (API v2). Raises Transient when they hold no id, or no word of a name.

    A batch without a name has `null` there; where the key is missing, it may have any name, ours too.
    """
    value = _decode(body, what)
    batch = read_batch(value)
    if batch is None or "name" not in value:
        raise Transient(f"{what} answered without the details of the batch")
    return batch


def read_listing(body: bytes, what: str) -> Listing:
    """Read a listing: a list, or an object with `data` and perhaps `total`. Raises Transient when it is neither."""
    value = _decode(body, what)
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise Transient(f"{what} answered without a list of batches")
    found = [batch for row in rows if (batch := read_batch(row)) is not None]
    distinct = {batch.remote_id: batch for batch in found}
    complete = len(distinct) == len(rows)
    if isinstance(value, dict):
        total = _field(value, "total", "count")
        complete &= total is None or _integer(total) == len(distinct)
        complete &= not _field(value, "next", "hasMore", "has_more")
    return Listing(tuple(distinct.values()), complete)


def read_results(body: bytes, what: str) -> list[ResultItem]:
    """Read the results of a batch, partial or full. Raises Transient when they are no list, or too many."""
    try:
        found = msgspec.json.decode(body, type=list[msgspec.Raw])
        raws = [bytes(raw) for raw in found[: _MOST_RESULTS + 1]]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The slow way round: a bare NaN or half a surrogate pair in one item must not hide the others.
        values = _decode_slowly(body, what)
        if not isinstance(values, list):
            raise Transient(f"{what} answered without a list of results") from None
        raws = [json.dumps(value).encode() for value in values]
    if len(raws) > _MOST_RESULTS:
        raise Transient(f"{what} answered with more than {_MOST_RESULTS} results, which no batch holds")
    return [read_item(raw) for raw in raws]


def read_item(raw: bytes) -> ResultItem:
    """Read one result from its JSON text. Never raises: what cannot be read is empty or None."""
    fields: Mapping[str, Any] = {}
    route: str | None = None
    try:
        texts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        synthesis = bytes(texts.pop("synthesis", b"null")).strip()
        route = None if synthesis == b"null" else synthesis.decode()
        fields = {key: _decode_leniently(bytes(text)) for key, text in texts.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    result = _number(fields.get("result"))
    status = fields.get("status")
    return ResultItem(
        smiles=smiles if isinstance(smiles := _field(fields, "targetSmiles", "target_smiles"), str) else "",
        status=status.strip().lower() if isinstance(status, str) else ("ok" if result is not None else "unknown"),
        result=result,
        certainty=_number(fields.get("certainty")),
        price_usd=_number(fields.get("price")),
        reaction_count=_integer(_field(fields, "reactionCount", "reaction_count", "reactionsCount", "reactions_count")),
        timed_out=_boolean(_field(fields, "timedOut", "timed_out")),
        route=route,
        raw=raw.decode("utf-8", "replace"),
    )


def _is(value: object) -> bool:
    return isinstance(value, dict)


def _field(fields: Mapping[str, Any], *names: str) -> Any:
    """Return the first of some spellings of a key that holds something."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else None


def _boolean(value: object) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _decode_leniently(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _decode(body: bytes, what: str) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Transient(f"{what} answered with JSON that cannot be read: {error}") from None


def _decode_slowly(body: bytes, what: str) -> Any:
    try:
        return json.loads(body, parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    except (ValueError, RecursionError) as error:
        raise Transient(f"{what} answered with JSON that cannot be read: {error}") from None
