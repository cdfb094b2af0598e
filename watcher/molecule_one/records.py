"""What Molecule.one answers, as typed records: strict in what is kept, tolerant in what is read.

Keys come in camelCase or snake_case and numbers as numbers or strings, depending on version and parameters (public API
documents v1 and v2). What cannot be read becomes None; the item as it came is kept beside it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from watcher.answers import is_crowded
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
_MOST_BATCHES = 200_000
_MOST_DECODED = 4 * 10**6
"""Bytes of JSON that become objects as they are, which takes up to forty times as much."""


def _object(*names: str) -> type[msgspec.Struct]:
    """Return the type of an object of which only the values with these names are read, and kept as text."""
    return msgspec.defstruct("Object", [(name, msgspec.Raw, msgspec.Raw()) for name in names])


_COUNTS = _object("queued", "running", "finished", "error")
_BATCH = _object("id", "name", "size")
_ITEM = _object(
    *("targetSmiles", "target_smiles", "status", "result", "certainty", "price", "timedOut", "timed_out", "synthesis"),
    *("reactionCount", "reaction_count", "reactionsCount", "reactions_count"),
)
_NESTED = object()
"""Stands for a list or an object that holds something, where a plain value belongs."""


class _Page(msgspec.Struct):
    """A listing that is an object."""

    data: list[msgspec.Raw]
    total: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()
    next: msgspec.Raw = msgspec.Raw()
    hasMore: msgspec.Raw = msgspec.Raw()  # noqa: N815 - as it comes
    has_more: msgspec.Raw = msgspec.Raw()


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
    fields = _values(_decode(body, what, _COUNTS))
    numbers = [_integer(fields.get(key, 0)) for key in ("queued", "running", "finished", "error")]
    if None in numbers or "finished" not in fields:
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
    value = _values(_decode(body, what, _BATCH))
    batch = read_batch(value)
    if batch is None or "name" not in value:
        raise Transient(f"{what} answered without the details of the batch")
    return batch


def read_listing(body: bytes, what: str) -> Listing:
    """Read a listing: a list, or an object with `data` and perhaps `total`.

    Raises Transient when it is neither, or holds more batches than anybody has.
    """
    _refuse_crowds(body, what)
    page = _decode(body, what, _Page | list[msgspec.Raw])
    rows = page.data if isinstance(page, _Page) else page
    if len(rows) > _MOST_BATCHES:
        raise Transient(f"{what} answered with more than {_MOST_BATCHES} batches")
    found = [batch for row in rows if (batch := read_batch(_row(row))) is not None]
    distinct = {batch.remote_id: batch for batch in found}
    complete = len(distinct) == len(rows)
    if isinstance(page, _Page):
        fields = _values(page)
        total = _field(fields, "total", "count")
        complete &= total is None or _integer(total) == len(distinct)
        complete &= not _field(fields, "next", "hasMore", "has_more")
    return Listing(tuple(distinct.values()), complete)


def read_results(body: bytes, what: str) -> list[ResultItem]:
    """Read the results of a batch, partial or full. Raises Transient when they are no list, or too many."""
    texts = _result_texts(body, what)
    if len(texts) > _MOST_RESULTS:
        raise Transient(f"{what} answered with more than {_MOST_RESULTS} results, which no batch holds")
    return [read_item(bytes(text)) for text in texts]


def _result_texts(body: bytes, what: str) -> Sequence[bytes | msgspec.Raw]:
    _refuse_crowds(body, what)
    try:
        return msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The slow way round: a bare NaN or half a surrogate pair in one item must not hide the others.
        values = _decode_slowly(body, what, error)
    if not isinstance(values, list):
        raise Transient(f"{what} answered without a list of results")
    return [json.dumps(value).encode() for value in values]


def read_item(raw: bytes) -> ResultItem:
    """Read one result from its JSON text. Never raises: what cannot be read is empty or None."""
    fields: Mapping[str, Any] = {}
    route: str | None = None
    try:
        texts = _texts(msgspec.json.decode(raw, type=_ITEM))
        synthesis = texts.pop("synthesis", b"null").strip()
        route = None if synthesis == b"null" else synthesis.decode()
        fields = {name: _value(text) for name, text in texts.items()}
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


def _row(text: msgspec.Raw) -> dict[str, Any]:
    try:
        return _values(msgspec.json.decode(text, type=_BATCH))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def _values(found: msgspec.Struct) -> dict[str, Any]:
    return {name: _value(text) for name, text in _texts(found).items()}


def _texts(found: msgspec.Struct) -> dict[str, bytes]:
    """Return the values of an object that are kept as text, by name, without those that are absent."""
    values = ((name, getattr(found, name)) for name in found.__struct_fields__)
    return {name: bytes(value) for name, value in values if isinstance(value, msgspec.Raw) and bytes(value)}


def _value(text: bytes) -> Any:
    """Read a plain value; None when it cannot be read. What is nested stays unread: no field that we know is."""
    if text.startswith((b"[", b"{")):
        return _NESTED if text not in (b"[]", b"{}") else ()
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError):
        return None


def _decode(body: bytes, what: str, type_: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(what, error) from None


def _unreadable(what: str, error: Exception) -> Transient:
    return Transient(f"{what} answered with JSON that cannot be read: {error}")


def _refuse_crowds(body: bytes, what: str) -> None:
    if is_crowded(body):
        raise Transient(f"{what} answered with more values than can be told apart")


def _decode_slowly(body: bytes, what: str, why: Exception) -> Any:
    if len(body) > _MOST_DECODED:
        raise Transient(f"{_unreadable(what, why)}; above {_MOST_DECODED} bytes nothing is done about that")
    try:
        return json.loads(body, parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    except (ValueError, RecursionError) as error:
        raise _unreadable(what, error) from None
