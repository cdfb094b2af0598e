"""Both services in memory: the real clients with the network left out, what the services hold, and what goes wrong.

What a service holds outlives the clients, as it does when the program is killed. Faults are set by hand, for the next
call or until they are taken away.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.cookies import SimpleCookie

from multidict import CIMultiDict, CIMultiDictProxy

from watcher import answers
from watcher.clock import Clock
from watcher.errors import Failure
from watcher.fragalysis import Fragalysis, Observation, Target, TargetUploads, Upload
from watcher.molecule_one import (
    BatchUnknown,
    Counts,
    Listing,
    MoleculeOne,
    Outcome,
    RemoteBatch,
    ResultItem,
    classify,
)
from watcher.molecule_one.records import read_results
from watcher.settings import Settings

UploadKey = tuple[int, datetime]


# Fragalysis


@dataclass
class Shelf:
    """A target at the stack: its uploads, whether each is marked as failed, and the SMILES that each brought."""

    target: Target
    listed: bool = True
    failed: dict[UploadKey, bool] = field(default_factory=dict)
    brought: dict[UploadKey, list[str]] = field(default_factory=dict)

    @property
    def uploads(self) -> TargetUploads:
        rows = [Upload(self.target.target_id, *key, failed) for key, failed in sorted(self.failed.items())]
        return TargetUploads(self.target, tuple(sorted(rows, key=lambda row: row.committed_at)))

    @property
    def newest(self) -> UploadKey | None:
        last = self.uploads.last_upload
        return (last.upload_index, last.committed_at) if last else None

    @property
    def ever(self) -> set[str]:
        """Every SMILES that was ever shown here."""
        return {smiles for smiles_of in self.brought.values() for smiles in smiles_of}


@dataclass
class Stack:
    """What Fragalysis holds."""

    shelves: dict[int, Shelf] = field(default_factory=dict)
    trouble: Failure | None = None
    """What the next call ends with."""

    def check(self) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble


class FragalysisInMemory(Fragalysis):
    """Reads a stack in memory. The server lists the observations of the newest upload only."""

    def __init__(self, settings: Settings, *, clock: Clock, stack: Stack) -> None:
        super().__init__(settings, clock=clock)
        self._stack = stack

    async def target_uploads(self) -> dict[int, TargetUploads]:
        self._stack.check()
        return {number: shelf.uploads for number, shelf in self._stack.shelves.items() if shelf.listed}

    async def get_target_compound_smiles(self, target_id: int) -> list[Observation]:
        self._stack.check()
        shelf = self._stack.shelves[target_id]
        shown = shelf.brought[shelf.newest] if shelf.listed and shelf.newest else []
        return [Observation(n, f"A{n}a", f"long-{n}", raw, None) for n, raw in enumerate(shown, start=1)]


# Molecule.one

ANSWERS: dict[str, tuple[bool, int, bytes]] = {
    "accepted": (True, 201, b""),
    "taken, then a bad gateway": (True, 502, b"bad gateway"),
    "taken, an answer without an id": (True, 200, b"{}"),
    "taken, no answer": (True, 0, b""),
    "taken, then killed": (True, -1, b""),
    "taken, then cancelled": (True, -2, b""),
    "not taken, no answer": (False, 0, b""),
    "not taken, unavailable": (False, 503, b"try again"),
    "not taken, killed": (False, -1, b""),
    "not sent": (False, -3, b""),
    "later": (False, 429, b'{"message": "slowly"}'),
    "refused": (False, 400, b'{"message": "no such molecule"}'),
    "out of credit": (False, 402, b'{"message": "no credit"}'),
}
"""What can become of a purchase: whether it is taken, and the status and body, or another end, that the client sees."""
ITEMS = {
    "scored": {"status": "ok", "result": 2.5, "certainty": 0.8, "price": 12.5},
    "no_route": {"status": "ok", "result": 10, "certainty": None, "price": None},
    "failed": {"status": "error", "result": -1},
}


@dataclass
class Sale:
    """One POST, and the batch that it became if it was taken."""

    at: datetime
    token: str
    """Of the record's batch; the service of v1 never knows it."""
    name: str
    detail_level: str
    smiles: tuple[str, ...]
    body: str
    remote_id: str = ""
    listed: bool = True
    known: bool = True
    """False once the service has forgotten it, or was told to delete it."""
    done: dict[str, bytes] = field(default_factory=dict)
    """The results so far, as they come, by what was sent."""
    hidden: int = 0
    """Looks at the results for which the last one is left out."""
    counted: bool = False
    """The counts read 0/0 once after the POST."""
    forgiven: bool = False
    """The record was set back to before it, and nothing at the service could tell."""

    def work(self, number: int, kind: str) -> None:
        """Let some more molecules end."""
        for smiles in [one for one in self.smiles if one not in self.done][:number]:
            self.done[smiles] = json.dumps({"targetSmiles": smiles, **ITEMS[kind]}).encode()


@dataclass
class Vendor:
    """What Molecule.one has really taken, and what goes wrong there."""

    poison: str = ""
    """A molecule that the service refuses, and every batch that holds it."""
    answer: str = "accepted"
    """What becomes of the next purchases: a key of ANSWERS."""
    slow: bool = False
    """The next purchase is answered when `go_on` is called."""
    lags: bool = False
    """What is taken now is not listed before `catch_up`."""
    listing: str = "whole"
    """`whole`, `cut` (and says so), `short` (and does not), `nameless` or `none`."""
    listed: str = ""
    """How the last list was."""
    quick: bool = False
    """Every molecule that is bought ends at once."""
    trouble: Failure | None = None
    """What the next call ends with, purchases aside."""
    taken: list[Sale] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)
    waiting: asyncio.Event | None = None
    kill: Callable[[str], None] = lambda _: None
    """Ends the program between the purchase and its answer."""

    def find(self, remote_id: str) -> Sale:
        """Return a batch. Raises BatchUnknown."""
        for sale in self.taken:
            if sale.remote_id == remote_id and sale.known:
                return sale
        raise BatchUnknown(f"no batch {remote_id}")

    def known(self) -> list[Sale]:
        return [sale for sale in self.taken if sale.known]

    def check(self) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble

    def take(self, sale: Sale) -> None:
        sale.remote_id, sale.listed = f"remote-{len(self.taken) + 1}", not self.lags
        self.taken.append(sale)
        if self.quick:
            sale.work(len(sale.smiles), "scored")

    def catch_up(self) -> None:
        """List everything that was taken."""
        self.lags = False
        for sale in self.taken:
            sale.listed = True

    def go_on(self) -> None:
        """Answer the purchase that waits."""
        if self.waiting is not None:
            self.waiting.set()


class MoleculeOneInMemory(MoleculeOne):
    """Buys from a vendor in memory. `at_the_till` sees every purchase before the vendor does."""

    def __init__(
        self, settings: Settings, *, clock: Clock, vendor: Vendor, at_the_till: Callable[[Sale], Awaitable[None]]
    ) -> None:
        super().__init__(settings, clock=clock)
        self._clock = clock
        self._vendor = vendor
        self._at_the_till = at_the_till

    def payload(self, smiles: Sequence[str], name: str) -> bytes:
        body = super().payload(smiles, name)
        self._vendor.names[body] = name
        return body

    async def create(self, body: bytes) -> Outcome:
        vendor, sent = self._vendor, json.loads(body)
        name, level = vendor.names[body], sent.get("detail_level") or sent["params"]["detailLevel"]
        sale = Sale(self._clock.now(), name.rpartition("/")[2], name, level, tuple(sent["targets"]), body.decode())
        how = "refused" if vendor.poison in sale.smiles else vendor.answer
        taken, status, text = ANSWERS[how]
        await self._at_the_till(sale)
        try:
            if vendor.slow:
                vendor.slow, vendor.waiting = False, asyncio.Event()
                await vendor.waiting.wait()
        finally:  # what has left is taken, whatever became of the program meanwhile
            vendor.waiting = None
            if taken:
                vendor.take(sale)
        return classify(self._answer(how, status, text or json.dumps({"id": sale.remote_id}).encode()))

    def _answer(self, how: str, status: int, body: bytes) -> answers.Answer | answers.NotSent | answers.NoAnswer:
        if status == -1:
            self._vendor.kill(how)
        if status == -2:
            raise asyncio.CancelledError(how)
        if status <= 0:
            return answers.NotSent(how) if status else answers.NoAnswer(how)
        headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json", "Retry-After": "90"}))
        return answers.Answer(status, headers, SimpleCookie(), body, "POST", self._clock.now())

    async def status(self, remote_id: str) -> Counts:
        self._vendor.check()
        sale = self._vendor.find(remote_id)
        if not sale.counted:
            sale.counted = True
            return Counts(0, 0, 0, 0)
        errors = sum(b'"error"' in item for item in sale.done.values())
        return Counts(len(sale.smiles) - len(sale.done), 0, len(sale.done) - errors, errors)

    async def results(self, remote_id: str) -> list[ResultItem]:
        self._vendor.check()
        sale = self._vendor.find(remote_id)
        shown = list(sale.done.values())
        if sale.hidden:
            sale.hidden -= 1
            shown = shown[:-1]
        return read_results(b"[" + b",".join(shown) + b"]", "the results")

    async def list_batches(self) -> Listing | None:
        self._vendor.check()
        how = self._vendor.listed = self._vendor.listing
        if how == "none":
            return None
        named = self.names_batches and how != "nameless"
        rows = [
            RemoteBatch(sale.remote_id, sale.name if named else None, len(sale.smiles) if named else None)
            for sale in self._vendor.known()
            if sale.listed
        ]
        return Listing(tuple(rows[::2] if how in ("cut", "short") else rows), complete=how != "cut")

    async def details(self, remote_id: str) -> RemoteBatch | None:
        if not self.names_batches:
            return None
        self._vendor.check()
        sale = self._vendor.find(remote_id)
        return RemoteBatch(remote_id, sale.name, len(sale.smiles))

    async def delete(self, remote_id: str) -> None:
        self._vendor.check()
        self._vendor.find(remote_id).known = False
