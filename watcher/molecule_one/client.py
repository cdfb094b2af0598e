"""The client of the Molecule.one batch scoring API."""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec

from watcher import __version__
from watcher.answers import Answer
from watcher.clock import Clock
from watcher.errors import AuthFailure, Invalid, Transient
from watcher.http import SHORT, Http
from watcher.molecule_one.dialects import DIALECTS
from watcher.molecule_one.outcome import Outcome, ServiceRefused, classify, words_of
from watcher.molecule_one.records import (
    Counts,
    Listing,
    RemoteBatch,
    ResultItem,
    read_counts,
    read_details,
    read_listing,
    read_results,
)
from watcher.settings import Settings

_NO_TOKEN = "molecule_one.token is empty"  # noqa: S105 - no secret, a message
_SET_TOKEN = "Set molecule_one.token or molecule_one.token_file."  # noqa: S105


class BatchUnknown(Invalid):
    """The service does not know this batch: 404 or 410 in the API's own words (JSON), not from a proxy."""


class MoleculeOne:
    """Buys batches of scores and reads them, in the dialect that the settings name.

    Every method but `create` raises Transient, AuthFailure (401, 402, 403, another origin) or Invalid; an answer that
    breaks the contract is Transient, for a paid batch is never given up over one strange answer.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        own = settings.molecule_one
        token = own.token.get_secret_value()
        self._settings = own
        self._dialect = DIALECTS[own.api_version]
        # Both versions of the API share the scheme's name (public API documents v1 and v2).
        self._headers = {"Authorization": f"ApiToken-v1 {token}"} if token else None
        self._http = Http(
            "molecule_one",
            own.base_url,
            settings.http,
            requests_per_second=own.requests_per_second,
            user_agent=f"fragalysis-watcher/{__version__}",
            clock=clock,
            secrets=(token, settings.fragalysis.token.get_secret_value().strip()),
        )
        self.names_batches = self._dialect.names_batches
        """Whether a batch carries its name at the service (API v2)."""

    async def __aenter__(self) -> Self:
        """Return self; connections are opened when needed."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._http.__aexit__(kind, error, traceback)

    def payload(self, smiles: Sequence[str], name: str) -> bytes:
        """Return the body of a create request: the same arguments and settings give the same bytes.

        Raises ValueError for no or repeated molecules: results are told apart by their string, and each is paid.
        """
        if not smiles or len(set(smiles)) != len(smiles):
            raise ValueError("a batch holds distinct molecules, and at least one")
        return msgspec.json.encode(self._dialect.create_request(self._settings, smiles, name))

    async def create(self, body: bytes) -> Outcome:
        """Buy a batch: POST `body` exactly once. Never raises, except CancelledError, whose fate is doubt."""
        if self._headers is None:
            return ServiceRefused(_NO_TOKEN, 401)
        sent = await self._http.send_once(
            self._dialect.batches_path,
            body,
            operation="create",
            headers=self._headers,
            timeout=self._settings.submit_timeout,
            limit=SHORT + len(body),  # it may repeat what was sent
        )
        return classify(sent)

    async def status(self, remote_id: str) -> Counts:
        """Return the counts of a batch. Raises BatchUnknown when the service does not know it."""
        answer = await self._ask("GET", self._dialect.status_path(remote_id), "status", remote_id, SHORT)
        return read_counts(answer.body, f"the status of batch {remote_id}")

    async def results(self, remote_id: str) -> list[ResultItem]:
        """Return the results so far, in no promised order; molecules that wait are not listed.

        Raises BatchUnknown when the service does not know the batch.
        """
        answer = await self._ask("GET", self._dialect.results_path(remote_id), "results", remote_id)
        return read_results(answer.body, f"the results of batch {remote_id}")

    async def list_batches(self) -> Listing | None:
        """Return the batches that the service lists; None when it has no listing (404, 405, 501).

        A 404 that is a web page stands for no listing only in v1, where none is documented; in v2 it is a proxy's.
        """
        answer = await self._send("GET", self._dialect.batches_path, "list")
        if answer.status in (404, 405, 501) and not (self.names_batches and answer.is_html):
            return None
        return read_listing(_accepted(answer, "the listing of batches").body, "the listing of batches")

    async def details(self, remote_id: str) -> RemoteBatch | None:
        """Return name and size of a batch (API v2); None in v1, which has none.

        Raises BatchUnknown when the service does not know it.
        """
        if not self.names_batches:
            return None
        answer = await self._ask("GET", self._dialect.batch_path(remote_id), "details", remote_id)
        batch = read_details(answer.body, f"the details of batch {remote_id}")
        if batch.remote_id != remote_id:
            raise Transient(f"the details of batch {remote_id} are those of batch {batch.remote_id}")
        return batch

    async def delete(self, remote_id: str) -> None:
        """Delete a batch with all its data, and stop its search; one that is gone already is as good."""
        try:
            await self._ask("DELETE", self._dialect.batch_path(remote_id), "delete", remote_id, SHORT)
        except BatchUnknown:
            return

    async def _ask(
        self, method: Literal["GET", "DELETE"], path: str, operation: str, remote_id: str, limit: int | None = None
    ) -> Answer:
        answer = await self._send(method, path, operation, limit)
        if answer.status in (404, 410) and _is_json_object(answer):
            raise BatchUnknown(f"the service does not know batch {remote_id} ({answer.status}: {words_of(answer)})")
        return _accepted(answer, f"{operation} of batch {remote_id}")

    async def _send(self, method: str, path: str, operation: str, limit: int | None = None) -> Answer:
        if self._headers is None:
            raise AuthFailure(_NO_TOKEN, action=_SET_TOKEN)
        return await self._http.request(method, path, operation=operation, headers=self._headers, limit=limit)


def _accepted(answer: Answer, what: str) -> Answer:
    """Return a 2xx answer; raise what stands in its way.

    Only a refusal in JSON is about the item; a proxy's page or a bare 4xx passes, and the batch stays.
    """
    if 200 <= answer.status < 300:
        if answer.is_html:
            raise Transient(f"{what}: a web page where JSON belongs")
        return answer
    said = f"{what}: {answer.status}: {words_of(answer)}"
    if answer.status in (401, 402, 403):
        raise AuthFailure(said, action="Check the token and the account at Molecule.one.")
    if 400 <= answer.status < 500 and answer.status not in (408, 425, 429) and _is_json_object(answer):
        raise Invalid(said)
    raise Transient(said, retry_after=answer.retry_after)


def _is_json_object(answer: Answer) -> bool:
    try:
        msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
