"""A session with one Fragalysis stack: cookies, CSRF, and how a session that ended is noticed.

The access token is the value of the `sessionid` cookie of a signed-in browser. A session that ended is silently
anonymous: 200, private targets missing, and a Set-Cookie that deletes `sessionid` (capture `targets_expired_session`).
A stale single sign-on redirects to another host, or answers 403 with a `refresh_url` to `X-Requested-With` (capture
`targets_oidc_stale`). Each of these is an AuthFailure, so that nothing missing ever counts as deleted.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.cookies import Morsel, SimpleCookie
from typing import Self, TypeVar

from watcher.answers import Answer
from watcher.clock import Clock
from watcher.errors import AuthFailure, Failure, Invalid, SettingsError, Transient
from watcher.http import SHORT, Http, Params
from watcher.settings import Settings

T = TypeVar("T")

LANDING_PATH = "/viewer/react/landing/"
SIGN_IN_AGAIN = (
    "sign in to the stack with a browser, copy the new value of the `sessionid` cookie to fragalysis.token or "
    "fragalysis.token_file, and restart the program"
)
_LOOK_AT_STACK = "nothing: it is tried again by itself; if this is open after an hour, look at fragalysis.stack"
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # RFC 6265, cookie-octet
_SIGN_IN_PATH = re.compile(r"/(accounts?|log-?in|sign-?in|oidc|auth)/")
_SIGN_IN_PAGE = re.compile(rb"<title>[^<]*(sign|log)[ -]?(in|on)\b|<input[^<>]+type=.?password", re.IGNORECASE)


class Session:
    """Asks one stack as one visitor. Neither token nor cookies leave for another origin or stand in a message."""

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        """Raise SettingsError when the token cannot be a cookie; the message does not repeat it."""
        fragalysis = settings.fragalysis
        token = fragalysis.token.get_secret_value().strip()
        self._http = Http(
            "fragalysis",
            fragalysis.url,
            settings.http,
            requests_per_second=fragalysis.requests_per_second,
            user_agent=fragalysis.user_agent,
            clock=clock,
            secrets=(token, settings.molecule_one.token.get_secret_value()),
        )
        self._clock = clock
        self._sessionid = token
        self._csrftoken = ""
        self._referer = fragalysis.url + LANDING_PATH
        if self._sessionid and not _COOKIE_VALUE.fullmatch(self._sessionid):
            raise SettingsError(
                "fragalysis.token (or the file of fragalysis.token_file) holds characters that no session token has: "
                "it is one line of letters, digits and signs, the value of the `sessionid` cookie"
            )

    async def __aenter__(self) -> Self:
        """Return self; connections are opened when needed."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close every connection."""
        await self._http.__aexit__(*exception)

    @property
    def has_token(self) -> bool:
        """Whether a token is configured."""
        return bool(self._sessionid)

    async def get(
        self,
        path: str,
        *,
        operation: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Answer:
        """GET; the answer has any status but those that say the session ended. Raises Transient and AuthFailure.

        `limit` is the size in bytes of the largest answer, where that is below http.max_response_size.
        """
        return await self._ask("GET", path, operation, params=params, headers=headers, limit=limit)

    async def post(self, path: str, form: Mapping[str, str], *, operation: str) -> Answer:
        """POST a form once with the CSRF token, for a short answer; once more with a new one when that is refused.

        A refused token means that nothing was done (capture `download_post_member_nocsrf`). Raises Transient too when
        the landing page gives none.
        """
        if not self._csrftoken:
            await self.landing_page()
        answer = await self._ask("POST", path, operation, form=form, headers=self._csrf_headers(), limit=SHORT)
        if not _lacks_csrf(answer):
            return answer
        page = await self.landing_page()
        answer = await self._ask("POST", path, operation, form=form, headers=self._csrf_headers(), limit=SHORT)
        if _lacks_csrf(answer) and not _value(page.cookies, "csrftoken") and not _SIGN_IN_PAGE.search(page.body):
            # Some other page stands in its place: that says nothing of our credentials.
            raise Transient(f"{page.what} answered with a page that sets no CSRF token", action=_LOOK_AT_STACK)
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, *, operation: str, params: Params
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """GET a file: the answer without its body, and the body in pieces.

        `Accept: */*`, for any other type is refused (capture `download_get_file_accept_zip`), and no encoding, so
        that the length announced is the length of the file.
        """
        headers = self._headers({"Accept": "*/*", "Accept-Encoding": "identity"})
        async with self._http.stream(path, operation=operation, params=params, headers=headers) as (answer, chunks):
            self._follow_cookies(answer)
            yield answer, chunks

    async def landing_page(self) -> Answer:
        """GET the landing page, which sets the CSRF token. It answers 200 even without a database: no health check.

        Whatever is wrong with it is no fault of the item that it is asked for. Raises Transient and AuthFailure.
        """
        answer = await self.get(LANDING_PATH, operation="landing", headers={"Accept": "*/*"}, limit=SHORT)
        failure = self.failure(answer)
        if isinstance(failure, Invalid):
            failure = Transient(failure.message, action=_LOOK_AT_STACK)
        if failure is not None:
            raise failure
        return answer

    def failure(self, answer: Answer) -> Failure | None:
        """Say what kind of failure an answer is, without any secret of ours that the server may have repeated.

        The API refuses in JSON: a page with a 4xx is a proxy's, or an address that is not there at the moment, and says
        nothing of the item that was asked for.
        """
        failure = answer.failure()
        if isinstance(failure, Invalid) and answer.is_html:
            failure = Transient(f"{failure.message} with a web page", action=_LOOK_AT_STACK)
        if failure is not None and any(secret and secret in failure.message for secret in self._secrets):
            failure.message = f"{answer.what} answered {answer.status}"
            failure.args = (failure.message,)
        if isinstance(failure, AuthFailure) and not failure.action:
            failure.action = self._advice
        return failure

    def json(self, answer: Answer, type_: type[T]) -> T:
        """Decode a good answer. Raises the failure of a bad one, AuthFailure for a sign-in page, or as Answer.json."""
        if (failure := self.failure(answer)) is not None:
            raise failure
        if answer.is_html and _SIGN_IN_PAGE.search(answer.body):
            raise AuthFailure(f"{answer.what} answered with a sign-in page where JSON belongs", action=self._advice)
        return answer.json(type_)

    @property
    def _secrets(self) -> tuple[str, str]:
        return self._sessionid, self._csrftoken

    @property
    def _advice(self) -> str:
        return SIGN_IN_AGAIN if self.has_token else "set fragalysis.token if the stack does not let everybody in"

    def _headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        cookies = {"csrftoken": self._csrftoken, "sessionid": self._sessionid}
        headers = {"X-Requested-With": "XMLHttpRequest", **(more or {})}
        if cookie := "; ".join(f"{name}={value}" for name, value in cookies.items() if value):
            headers["Cookie"] = cookie
        return headers

    def _csrf_headers(self) -> dict[str, str]:
        """Return what Django asks of a POST; over https also the Referer (capture `..._member_https_noreferer`)."""
        return {"Referer": self._referer} | ({"X-CSRFToken": self._csrftoken} if self._csrftoken else {})

    async def _ask(
        self,
        method: str,
        path: str,
        operation: str,
        *,
        params: Params | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> Answer:
        try:
            answer = await self._http.request(
                method, path, operation=operation, params=params, form=form, headers=self._headers(headers), limit=limit
            )
        except AuthFailure as failure:
            failure.action = failure.action or self._advice
            raise
        self._follow_cookies(answer)
        return answer

    def _follow_cookies(self, answer: Answer) -> None:
        """Take over a new CSRF token or a rotated session; raise AuthFailure when the session ended."""
        csrftoken = _value(answer.cookies, "csrftoken")
        if csrftoken and _COOKIE_VALUE.fullmatch(csrftoken):
            self._csrftoken = csrftoken
        asks_to_sign_in = answer.status in (401, 403) and b'"refresh_url"' in answer.body
        if asks_to_sign_in or (300 <= answer.status < 400 and _SIGN_IN_PATH.search(answer.headers.get("Location", ""))):
            raise AuthFailure(f"{answer.what}: the sign-in to Fragalysis has to be renewed", action=self._advice)
        if not self.has_token or (morsel := answer.cookies.get("sessionid")) is None:
            return
        if not morsel.value or self._is_over(morsel):
            raise AuthFailure(
                f"{answer.what}: the session of the Fragalysis token has ended; until it is renewed, private targets "
                "cannot be seen and nothing counts as deleted",
                action=SIGN_IN_AGAIN,
            )
        if _COOKIE_VALUE.fullmatch(morsel.value):
            self._sessionid = morsel.value

    def _is_over(self, morsel: "Morsel[str]") -> bool:
        if re.fullmatch(r"-?[0-9]+", age := str(morsel["max-age"])):
            return age.startswith("-") or not age.strip("0")
        try:
            return parsedate_to_datetime(morsel["expires"]) <= self._clock.now() - timedelta(days=1)
        except (TypeError, ValueError, OverflowError):
            return False


def _lacks_csrf(answer: Answer) -> bool:
    return answer.status == 403 and b"CSRF" in answer.body


def _value(cookies: SimpleCookie, name: str) -> str:
    morsel = cookies.get(name)
    return morsel.value if morsel is not None else ""
