"""The Molecule.one batch scoring server, v1 and v2 at once: paths, authentication and replies of its API documents.

What the documents leave open is a switch: `listing` (v1 has none on paper, and lists differ), `v1_invalid`. Progress
lies in `batches`, opinions in `vendor`, the books in `ledger`.
"""

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from aiohttp import web

from watcher.sandbox import control
from watcher.sandbox.batches import Batch, Batches, Pace
from watcher.sandbox.catalogue import VendorNotes
from watcher.sandbox.ledger import Booking, Ledger
from watcher.sandbox.server import Server
from watcher.sandbox.vendor import Vendor

TOKEN = "sandbox-token"  # noqa: S105 - the one token that the sandbox accepts, and no secret
LARGEST_BATCH = 100_000
_DETAILED = ("synthesis", "best_path", "all_paths")
_DETAIL_LEVELS = {"v1": ("score", "synthesis"), "v2": ("score", *_DETAILED)}


@dataclass
class Listing:
    """How the list of batches behaves.

    `form`: "auto" is `{"data": ...}` for v1 and a bare list for v2; "missing" answers 404, "forbidden" 405. A new batch
    shows only after `lag` listings; `limit` cuts the list; `repeat` gives its first row twice.
    """

    form: Literal["auto", "list", "data", "missing", "forbidden"] = "auto"
    names: bool = True
    lag: int = 0
    limit: int | None = None
    repeat: bool = False


class Refusal(Exception):
    """A batch that the vendor does not take."""

    def __init__(self, status: int, message: str, errors: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.document = {"message": message} if errors is None else {"message": message, "errors": errors}


class MoleculeOneServer(Server):
    """The vendor; `ledger` holds everything it ever sold."""

    def __init__(
        self,
        *,
        seconds_per_molecule: float = 0.0,
        queue_seconds: float = 0.0,
        parallel: int = 4,
        seed: int = 0,
        notes: VendorNotes | None = None,
        clock: Callable[[], float] = time.monotonic,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        super().__init__(host, port, max_body=64 * 2**20)
        self.token = TOKEN
        self.ledger = Ledger()
        self.vendor = Vendor(notes or VendorNotes())
        self.listing = Listing()
        self.v1_invalid: Literal["refuse", "pass"] = "refuse"
        self.pace = Pace(seconds_per_molecule, queue_seconds, parallel)
        self.batches = Batches(self.pace, clock, seed)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the control routes and those of both API versions."""
        routes: list[web.AbstractRouteDef] = [*control.molecule_one_routes(self)]
        for version in ("v1", "v2"):
            base = f"/api/{version}/batch-search"
            by_id = self._counts if version == "v1" else self._details
            routes += [
                web.post(base, self._authorised(version, self._create)),
                web.get(base, self._authorised(version, self._list), allow_head=False),
                web.get(base + "/{id}", self._authorised(version, by_id), allow_head=False),
                web.delete(base + "/{id}", self._authorised(version, self._delete)),
                web.get(f"{base}-result/{{id}}", self._authorised(version, self._results), allow_head=False),
            ]
        status = "/api/v2/batch-search-status/{id}"
        routes.append(web.get(status, self._authorised("v2", self._counts), allow_head=False))
        return routes

    def finish(self, molecules: int | None = None) -> int:
        """Let so many molecules get ready at once (None: all that are waiting)."""
        return self.batches.finish(molecules)

    def state(self) -> dict[str, Any]:
        """Return what there is, for the control route."""
        batches = [
            {
                "id": batch.id,
                "name": batch.name,
                "version": batch.version,
                "size": len(batch.targets),
                "done": batch.done,
            }
            for batch in self.batches.all()
        ]
        return {
            "pace": asdict(self.pace),
            "listing": asdict(self.listing),
            "v1_invalid": self.v1_invalid,
            "bought": self.ledger.total,
            "batches": batches,
        }

    def _authorised(
        self, version: str, view: Callable[[web.Request, str], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            if request.headers.get("Authorization") != f"ApiToken-v1 {self.token}":
                return _reply({"message": "Unauthorized"}, 401)
            return await view(request, version)

        return handler

    async def _create(self, request: web.Request, version: str) -> web.Response:
        try:
            order = _order(json.loads(await request.text()), version)
            self._check_molecules(order, version)
        except ValueError:
            return _reply({"message": "Request body is not valid JSON"}, 400)
        except Refusal as refusal:
            return _reply(refusal.document, refusal.status)
        batch = self.batches.create(
            order["targets"],
            version=version,
            name=order["name"],
            metadata=order["metadata"],
            settings=order["settings"],
            detailed=order["detail"] in _DETAILED,
        )
        self.ledger.book(Booking(batch.id, batch.name, version, batch.created_at, batch.targets))
        return _reply(_summary(batch))

    def _check_molecules(self, order: dict[str, Any], version: str) -> None:
        passed = order["strategy"] == "pass" or (version == "v1" and self.v1_invalid == "pass")
        bad = [(place, smiles) for place, smiles in enumerate(order["targets"]) if self.vendor.is_invalid(smiles)]
        if bad and not passed:
            errors = [
                {"index": place, "target": smiles, "message": f"Invalid SMILES: {smiles!r}"} for place, smiles in bad
            ]
            raise Refusal(400, f"Invalid target: {bad[0][1]!r}", errors)

    async def _list(self, _request: web.Request, version: str) -> web.Response:
        how = self.listing
        if how.form in ("missing", "forbidden"):
            return (
                _reply({"message": "Not Found"}, 404)
                if how.form == "missing"
                else _reply({"message": "Method Not Allowed"}, 405)
            )
        rows = []
        for batch in reversed(self.batches.all()):
            batch.listings += 1
            if batch.listings > how.lag:
                row = {"id": batch.id} if version == "v1" else _summary(batch)
                rows.append(row if how.names else {key: value for key, value in row.items() if key != "name"})
        total = len(rows)
        rows = rows[: how.limit]
        if how.repeat:
            rows = rows[:1] + rows
        wrapped = how.form == "data" or (how.form == "auto" and version == "v1")
        return _reply({"data": rows, "total": total} if wrapped else rows)

    async def _counts(self, request: web.Request, _version: str) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _reply({"message": "Batch search not found"}, 404)
        batch.reads += 1
        if batch.reads == 1:  # right after the POST nothing is queued yet
            return _reply({"queued": 0, "running": 0, "finished": 0, "error": 0})
        errors = sum(self.vendor.fails(batch.targets[place]) for place in batch.ready)
        running = self.batches.running(batch)
        queued = len(batch.targets) - batch.done - running
        return _reply({"queued": queued, "running": running, "finished": batch.done - errors, "error": errors})

    async def _details(self, request: web.Request, _version: str) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _reply({"message": "Batch search not found"}, 404)
        return _reply({**_summary(batch), **batch.settings})

    async def _results(self, request: web.Request, version: str) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _reply({"message": "Batch search not found"}, 404)
        digits = request.query.get("precision")
        if digits is not None and not digits.isdecimal():
            return _reply({"message": "precision must be a number"}, 400)
        write = _camel if version == "v1" else _snake
        rows = [write(self.vendor, batch, place) for place in batch.ready]
        if digits is not None:
            rows = [{key: _significant(key, value, int(digits)) for key, value in row.items()} for row in rows]
        # Fields of each result, not molecules (public API documents v1 and v2).
        only = {*request.query.getall("only", []), *request.query.getall("only[]", [])}
        return _reply([{key: value for key, value in row.items() if not only or key in only} for row in rows])

    async def _delete(self, request: web.Request, _version: str) -> web.Response:
        if not self.batches.delete(request.match_info["id"]):
            return _reply({"message": "Batch search not found"}, 404)
        return _reply({"id": request.match_info["id"]})


def _order(body: Any, version: str) -> dict[str, Any]:
    """Read a create request, strictly: what the documents do not allow is refused."""
    if not isinstance(body, dict) or not isinstance(body.get("targets"), list):
        raise Refusal(400, "targets must be a list of SMILES")
    targets = body["targets"]
    if not targets or not all(isinstance(smiles, str) for smiles in targets):
        raise Refusal(400, "targets must be a list of SMILES, at least one")
    if len(targets) > LARGEST_BATCH:
        raise Refusal(400, f"at most {LARGEST_BATCH} targets in one batch")
    inner = "params" if version == "v1" else "parameters"
    settings = body.get(inner) or {}
    if not isinstance(settings, dict):
        raise Refusal(400, f"{inner} must be an object")
    outer = settings if version == "v1" else body
    detail = outer.get("detailLevel" if version == "v1" else "detail_level") or "score"
    priority = outer.get("priority", 5)
    strategy = body.get("invalid_target_strategy") or "reject"
    if detail not in _DETAIL_LEVELS[version]:
        raise Refusal(400, f"unknown detail level {detail!r}", {"detail_level": _DETAIL_LEVELS[version]})
    if isinstance(priority, bool) or not isinstance(priority, int) or not 1 <= priority <= 10:
        raise Refusal(400, "priority must be a whole number from 1 to 10")
    if strategy not in ("reject", "pass"):
        raise Refusal(400, f"unknown invalid_target_strategy {strategy!r}")
    known = {key: body[key] for key in ("preset",) if key in body}
    return {
        "targets": targets,
        "detail": detail,
        "strategy": strategy if version == "v2" else "",
        "name": body.get("name"),
        "metadata": body.get("targets_metadata") or {},
        "settings": {inner: settings, "detail_level": detail, "priority": priority, **known},
    }


def _summary(batch: Batch) -> dict[str, Any]:
    moment = _moment(batch.created_at)
    summary = {"id": batch.id, "size": len(batch.targets), "createdAt": moment, "updatedAt": moment}
    return summary if batch.version == "v1" else {**summary, "name": batch.name}


def _camel(vendor: Vendor, batch: Batch, place: int) -> dict[str, Any]:
    smiles = batch.targets[place]
    verdict = vendor.verdict(smiles)
    return {
        "targetSmiles": smiles,
        "status": verdict.status,
        "result": verdict.result,
        "certainty": verdict.certainty,
        "price": verdict.price,
        "reactionCount": verdict.reactions,
        "reactionsCount": verdict.reactions,  # the spelling of one document
        "timedOut": verdict.timed_out,
        "synthesis": vendor.route(smiles, camel=True) if batch.detailed else None,
    }


def _snake(vendor: Vendor, batch: Batch, place: int) -> dict[str, Any]:
    smiles = batch.targets[place]
    verdict = vendor.verdict(smiles)
    name = batch.metadata.get(str(place), {}).get("name")
    return {
        "target_smiles": smiles,
        "status": verdict.status,
        "result": verdict.result,
        "certainty": verdict.certainty,
        "price": verdict.price,
        "reaction_count": verdict.reactions,
        "timed_out": verdict.timed_out,
        "synthesis": vendor.route(smiles, camel=False) if batch.detailed else None,
        "name": batch.name,
        "target_metadata_name": name,
        "url": f"/dashboard/batch-scoring/{batch.id}/{place}",
    }


def _significant(key: str, value: Any, digits: int) -> Any:
    if key not in ("result", "certainty", "price") or value is None:
        return value
    return format(Decimal(f"{float(value):.{max(1, digits)}g}"), "f")


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _reply(document: Any, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(document).encode(), content_type="application/json", charset="utf-8"
    )
