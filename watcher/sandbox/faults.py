"""What can go wrong on the way: rules that a server's one middleware applies to requests.

A rule says where it works, which requests it meets, what happens to them, and how often. The first rule in force that
meets a request is applied to it, alone. The actions are functions in `actions`.
"""

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from watcher.sandbox.actions import ACTIONS, SIGN_IN, Call, Handler
from watcher.sandbox.chance import unit


@dataclass
class Fault:
    """One rule.

    `match` has any of `method` (exact) and `path` (a regular expression searched in path and query); an empty one
    meets every request. The first `skip` matching requests pass; then it works `times` times (None: until it is
    cleared), each time with `probability`. An answer that holds nothing to change is no hit.
    """

    where: Literal["fragalysis", "molecule_one"]
    action: str
    match: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | dict[str, Any] | list[Any] | None = None
    location: str = SIGN_IN
    seconds: float = 0.0
    drop: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    seen: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown action {self.action!r}: one of {', '.join(ACTIONS)}")
        if self.where not in ("fragalysis", "molecule_one"):
            raise ValueError(f"where is 'fragalysis' or 'molecule_one', not {self.where!r}")
        if unknown := {*self.match} - {"method", "path"}:
            raise ValueError(f"match knows 'method' and 'path', not {', '.join(sorted(unknown))}")
        re.compile(self.match.get("path", ""))

    def meets(self, method: str, path: str) -> bool:
        """Say whether this rule is to be applied to the request, and count it."""
        if self.times is not None and self.hits >= self.times:
            return False
        if self.match.get("method", method) != method or not re.search(self.match.get("path", ""), path):
            return False
        self.seen += 1
        if self.seen <= self.skip or unit(self.seed, self.seen) >= self.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules of one server, in the order in which they were added."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self.closing = False
        self._released = asyncio.Event()

    def add(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        """Drop every rule, and let go whoever is held."""
        self.rules.clear()
        self.release()

    def release(self) -> None:
        """Let go whoever is held or delayed at this moment."""
        self._released.set()
        self._released = asyncio.Event()

    def close(self) -> None:
        """Let go for good: nothing is processed any more."""
        self.closing = True
        self.release()

    async def wait(self, seconds: float | None) -> None:
        """Wait for the time given, or until released."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), seconds)

    async def apply(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer the request, with whatever the first matching rule does to it."""
        for rule in self.rules:
            if rule.meets(request.method, request.path_qs):
                return await ACTIONS[rule.action](Call(self, rule, request, handler))
        return await handler(request)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the rules with their counters."""
        return [dataclasses.asdict(rule) for rule in self.rules]
