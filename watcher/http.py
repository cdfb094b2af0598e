"""One way to talk HTTP: to one origin, with time-outs, size caps, a rate limit, and retries of GET only.

Redirects are never followed elsewhere, cookies are never kept by the library, and nothing here puts a secret into a
message. Network faults and refusals come out as the kinds of `watcher.errors`.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

import aiohttp
import stamina
import stamina.instrumentation
from aiolimiter import AsyncLimiter
from yarl import URL

from watcher import metrics
from watcher.answers import Answer, NoAnswer, NotSent
from watcher.clock import Clock, SystemClock
from watcher.errors import AuthFailure, Failure, Ours, Service, Transient
from watcher.http_connections import Trace, new_session
from watcher.http_faults import Final, describe, is_ours, network, worth_repeating
from watcher.redaction import blotter
from watcher.settings import HttpSettings

# A retry within one call is no event; what turns bad and recovers is told by the conditions of the record.
stamina.instrumentation.set_on_retry_hooks([])

_CHUNK = 64 * 1024
_ATTEMPTS = 3
_MAX_REDIRECTS = 3
SHORT = 10**6
"""Limit in bytes for short answers and for every answer that is no 2xx."""
_REDIRECTS = (301, 302, 303, 307, 308)

Params = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, repr=False)  # its headers hold a token
class _Request:
    """One request on our origin; `what` names it in messages, also after a redirect."""

    method: str
    path: str
    what: str
    operation: str
    params: Params | None
    form: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    timeout: aiohttp.ClientTimeout
    limit: int | None


@dataclass(slots=True)
class _Count:
    """What the metric says of a request: how it ended."""

    outcome: str = "redirect"

    def answered(self, answer: Answer) -> Answer:
        """Take the outcome from an answer, and return that."""
        failure = answer.failure()
        self.outcome = failure.kind if failure else "ok"
        return answer


class Http:
    """Talks to one origin on behalf of one client."""

    def __init__(
        self,
        service: Service,
        origin: str,
        settings: HttpSettings,
        *,
        requests_per_second: float,
        user_agent: str,
        clock: Clock | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """`secrets` are blotted out of every body, in any form: some services repeat a token in the error about it."""
        self.service: Service = service
        self.origin = URL(origin)
        self._settings = settings
        self._clock = clock or SystemClock()
        self._limiter = AsyncLimiter(1, 1 / requests_per_second)
        self._timeout = aiohttp.ClientTimeout(
            total=settings.total_timeout.total_seconds(),
            connect=settings.connect_timeout.total_seconds(),
            sock_connect=settings.connect_timeout.total_seconds(),
            sock_read=settings.read_timeout.total_seconds(),
        )
        self._user_agent = user_agent
        self._blot = blotter(secrets)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Return self; connections are opened when needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _url(self, path: str) -> URL:
        """Put a path on our origin. Joined as text, because `//host/` or `https://host/` must not lead elsewhere."""
        return URL(
            f"{self.origin.origin()}/{path.removeprefix('/')}", encoded=bool(re.fullmatch(r"[\x21-\x7e]*", path))
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        params: Params | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Answer:
        """Ask once, or up to three times for GET, and return the whole answer, whatever its status.

        `limit` is the size in bytes of the largest good answer, where that is below http.max_response_size.
        A GET follows redirects on its own origin. Raises Transient for network faults and answers over the size limit,
        AuthFailure for a redirect to another origin, Ours when this machine has no room for a connection.
        """
        asked = _Request(method, path, _what(method, path), operation, params, form, headers, self._timeout, limit)
        if method != "GET":
            return await self._once(asked)
        answer: Answer | None = None
        try:
            async for attempt in stamina.retry_context(
                on=worth_repeating, attempts=_ATTEMPTS, timeout=30, wait_initial=0.2, wait_max=3.0
            ):
                with attempt:
                    answer = None
                    answer = await self._once(asked)
                    if isinstance(failure := answer.failure(), Transient):
                        raise failure
        except Transient:
            if answer is None:
                raise
        assert answer is not None  # noqa: S101 - an attempt answers or raises
        return answer

    async def _once(self, asked: _Request) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._counted(asked.operation) as count, self._open(asked) as r:
                location = self._redirect(r, asked)
                if location is not None and asked.method == "GET":
                    asked = replace(asked, path=location, params=None)
                    continue
                return count.answered(self._answer(r, await self._read(r, asked.what, asked.limit), asked.what))
        raise Final(f"{asked.what} was redirected in a circle")

    @asynccontextmanager
    async def stream(
        self, path: str, *, operation: str, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """GET a body of any size: yields the answer without its body, and the chunks; no total time limit.

        The body stays empty in the answer unless the status is not 200. Redirects are not followed. Raises Transient
        when no answer comes and, within the iteration, when the transfer breaks off; AuthFailure for a redirect to
        another origin. What the caller raises within the block passes through as it is.
        """
        what = _what("GET", path)
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=self._settings.connect_timeout.total_seconds(),
            sock_read=self._settings.read_timeout.total_seconds(),
        )
        asked = _Request("GET", path, what, operation, params, None, headers, timeout, None)
        async with self._counted(operation) as count, self._open(asked) as r:
            self._redirect(r, asked)
            body = b"" if r.status == 200 else await self._read(r, what)
            yield count.answered(self._answer(r, body, what)), self._chunks(r, what)

    async def send_once(
        self,
        path: str,
        body: bytes,
        *,
        operation: str,
        headers: Mapping[str, str],
        timeout: timedelta,
        limit: int | None = None,
    ) -> Answer | NotSent | NoAnswer:
        """POST a paid body exactly once over a fresh connection; no retry, no redirect followed, no exception.

        Only a connection that never came about is `NotSent`; anything after it is an answer or doubt, and so is an
        answer over the size limit, which is as in `request`. A cancelled call raises CancelledError, and its fate is
        doubt too.
        """
        what = _what("POST", path)
        trace = Trace()
        longest = aiohttp.ClientTimeout(
            total=timeout.total_seconds(), sock_connect=self._settings.connect_timeout.total_seconds()
        )
        await self._limiter.acquire()
        async with self._counted(operation) as count:
            try:
                async with (
                    new_session(self.origin, self._settings, user_agent=self._user_agent, force_close=True) as session,
                    session.post(
                        self._url(path),
                        data=body,
                        headers={"Content-Type": "application/json", **headers},
                        timeout=longest,
                        allow_redirects=False,
                        trace_request_ctx=trace,
                    ) as r,
                ):
                    return count.answered(self._answer(r, await self._read(r, what, limit), what))
            except Exception as error:  # noqa: BLE001 - whatever it is, all that counts is whether the request had left
                reason = str(error) if isinstance(error, Failure) else f"{what}: {describe(error)}"
                count.outcome = "no_answer" if trace.connected else "not_sent"
                ours = isinstance(error, Ours) or is_ours(error)
                return NoAnswer(reason) if trace.connected else NotSent(reason, ours=ours)

    @asynccontextmanager
    async def _open(self, asked: _Request) -> AsyncIterator[aiohttp.ClientResponse]:
        await self._limiter.acquire()
        # Around the request alone: what the caller raises, a full disk say, is no network fault.
        with network(asked.what):
            if self._session is None:
                self._session = new_session(self.origin, self._settings, user_agent=self._user_agent)
            response = await self._session.request(
                asked.method,
                self._url(asked.path),
                params=asked.params,
                data=asked.form,
                headers=asked.headers,
                timeout=asked.timeout,
                allow_redirects=False,
                trace_request_ctx=Trace(),
            )
        async with response:
            yield response

    def _answer(self, response: aiohttp.ClientResponse, body: bytes, what: str) -> Answer:
        body = self._blot(body)
        return Answer(response.status, response.headers, response.cookies, body, what, self._clock.now())

    async def _read(self, response: aiohttp.ClientResponse, what: str, limit: int | None = None) -> bytes:
        largest = self._settings.max_response_size
        if not 200 <= response.status < 300:
            limit = SHORT
        most = largest if limit is None else min(limit, largest)
        told = f"{most} bytes, which is {'the most that is read of it' if most < largest else 'http.max_response_size'}"
        if (response.content_length or 0) > most:
            raise Final(f"{what} answered {response.status} with {response.content_length} bytes, more than {told}")
        body = bytearray()
        async for chunk in self._chunks(response, what):
            body += chunk
            if len(body) > most:
                raise Final(f"{what} answered {response.status} with more than {told}")
        return bytes(body)

    async def _chunks(self, response: aiohttp.ClientResponse, what: str) -> AsyncIterator[bytes]:
        with network(what):
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk

    def _redirect(self, response: aiohttp.ClientResponse, asked: _Request) -> str | None:
        """Return where a redirect leads on our origin, None for another status; raise when it leads elsewhere."""
        location = response.headers.get("Location", "")
        if response.status not in _REDIRECTS or not location:
            return None
        try:
            target = self._url(asked.path).join(URL(location, encoded=True))
            origin = target.origin()
        except ValueError:
            raise Transient(f"{asked.what} answered {response.status} with a location that cannot be read") from None
        if origin != self.origin.origin():
            raise AuthFailure(f"{asked.what} was redirected to {origin}; that is how a sign-in that ended looks")
        return target.raw_path_qs

    @asynccontextmanager
    async def _counted(self, operation: str) -> AsyncIterator[_Count]:
        count = _Count()
        try:
            yield count
        except Failure as failure:
            count.outcome = failure.kind
            raise
        except asyncio.CancelledError:
            count.outcome = "cancelled"
            raise
        except Exception:
            count.outcome = "error"
            raise
        finally:
            metrics.HTTP_REQUESTS.labels(self.service, operation, count.outcome).inc()


def _what(method: str, path: str) -> str:
    """Name a request in messages: never with its query, which can hold a link that works as a secret."""
    return f"{method} {path.partition('?')[0]}"
