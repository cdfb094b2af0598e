"""HTTP as it goes wrong in earnest, against servers on loopback."""

import asyncio
import base64
import errno
import gzip
import json
import os
import resource
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from tests.support.clock import FakeClock
from tests.support.network import RawServer, closed_port, raw_server, reset, site
from watcher import metrics
from watcher.answers import Answer, NoAnswer, NotSent, parse_retry_after
from watcher.errors import AuthFailure, Failure, Invalid, NotFound, Ours, Transient
from watcher.http import SHORT, Http
from watcher.settings import HttpSettings

SECRET = "s3cret-token"
OTHER_SECRET = "s3cret/token+of=ours"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HEADERS = {"Authorization": f"ApiToken-v1 {SECRET}"}
MINUTE = timedelta(minutes=1)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def client(url: str, **settings: Any) -> Http:
    return Http(
        "molecule_one",
        url,
        HttpSettings(**settings),
        requests_per_second=1000,
        user_agent="test",
        clock=FakeClock(NOW),
        secrets=(SECRET, OTHER_SECRET, ""),
    )


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(status, CIMultiDictProxy(named), web.Response().cookies, body, "GET /x", NOW)


async def ok(_: web.Request) -> web.Response:
    return web.json_response({})


@contextmanager
def without_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def send(http: Http, timeout: timedelta = MINUTE) -> Answer | NotSent | NoAnswer:
    return await http.send_once("/pay", b'{"targets":["CC"]}', operation="create", headers=HEADERS, timeout=timeout)


def replying(reply: bytes) -> Callable[[RawServer, StreamReader, StreamWriter], Awaitable[None]]:
    async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
        await server.request(reader)
        writer.write(reply)
        await writer.drain()

    return talk


async def silent(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
    await server.request(reader)
    await reader.read()


async def test_requests_are_spaced() -> None:
    loop = asyncio.get_running_loop()  # the limit is kept by its time
    begun = loop.time()
    async with (
        site(ok) as url,
        Http("molecule_one", url, HttpSettings(), requests_per_second=20, user_agent="test") as http,
    ):
        await asyncio.gather(*(http.request("GET", "/x", operation="t") for _ in range(3)))
        await http.send_once("/x", b"{}", operation="t", headers={}, timeout=MINUTE)
    assert loop.time() - begun >= 3 / 20


class TestAnswer:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (200, None),
            (204, None),
            (302, Transient),
            (400, Invalid),
            (401, AuthFailure),
            (403, AuthFailure),
            (404, NotFound),
            (410, Invalid),
            (408, Transient),
            (425, Transient),
            (429, Transient),
            (500, Transient),
            (503, Transient),
        ],
    )
    def test_each_status_has_its_kind(self, status: int, kind: type[Failure] | None) -> None:
        failure = answer(status, b'{"message":"no"}').failure()
        assert type(failure) is (kind or type(None))

    def test_a_failure_repeats_what_was_said_in_one_line(self) -> None:
        assert str(answer(400, b"no such\nthing").failure()) == "GET /x answered 400: no such thing"

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (b"<html>", {}),
            (b"\n <!DOCTYPE HTML><title>Sign in</title>", {}),
            (b"{}", {"Content_Type": "Text/HTML; charset=utf-8"}),
        ],
    )
    def test_knows_a_web_page(self, body: bytes, headers: dict[str, str]) -> None:
        page = answer(200, body, **headers)
        assert page.is_html
        with pytest.raises(Transient, match="web page"):
            page.json(dict[str, Any])

    def test_names_the_page(self) -> None:
        with pytest.raises(Transient, match=r"titled 'Sign in'"):
            answer(200, b"<html><title>\n Sign  in</title>").json(dict[str, Any])

    def test_json_keeps_only_what_the_type_names(self) -> None:
        class Row(msgspec.Struct):
            id: int

        assert answer(body=b'[{"id": 1, "more": [1, 2]}]').json(list[Row]) == [Row(1)]

    @pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1', b'"\xff"', b"[" * 100_000, b'{"a":' * 100_000])
    def test_unreadable_json_is_transient(self, body: bytes) -> None:
        with pytest.raises(Transient):
            answer(body=body).json(Any)

    def test_json_of_another_shape_is_invalid(self) -> None:
        with pytest.raises(Invalid, match="unknown shape"):
            answer(body=b"[]").json(dict[str, Any])


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            (" 7 ", 7),
            ("9" * 400, 86400),
            ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
            ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
            ("Mon, 01 Mar 2027 11:00:00 GMT", 86400),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("²", None),
            ("Sun, 01 Mar 2026 12:01:00", None),
            ("Sun, 01 Mar 2026 12:01:00 +99999999999999999999", None),
        ],
    )
    def test_reads_seconds_and_dates(self, value: str, seconds: int | None) -> None:
        assert parse_retry_after(value, NOW) == (None if seconds is None else timedelta(seconds=seconds))

    @given(st.text() | st.from_regex(r"\A\w{3}, \d{2} \w{3} \d{1,6} \d+:\d+:\d+ [+-]?\w+\Z"))
    def test_never_raises_and_stays_within_a_day(self, value: str) -> None:
        wait = parse_retry_after(value, NOW)
        assert wait is None or timedelta() <= wait <= timedelta(days=1)


class TestRequest:
    async def test_asks_with_parameters_and_headers(self) -> None:
        seen: list[web.BaseRequest] = []

        async def handler(request: web.Request) -> web.Response:
            seen.append(request)
            return web.json_response({}, headers={"Set-Cookie": "sessionid=1"})

        async with site(handler) as url, client(url) as http:
            params: dict[str, str | int] = {"smiles": "C#C+%", "limit": 3}
            first = await http.request("GET", "/p", operation="t", params=params, headers=HEADERS)
            await http.request("GET", "/with space/%2F?q=%2B", operation="t")
        assert [*seen[0].query.items()] == [("smiles", "C#C+%"), ("limit", "3")]
        assert seen[0].headers["Authorization"] == f"ApiToken-v1 {SECRET}"
        assert seen[0].headers["User-Agent"] == "test"
        assert seen[1].raw_path == "/with%20space/%2F?q=%2B"
        assert "Cookie" not in seen[1].headers
        assert first.cookies["sessionid"].value == "1"
        assert first.received_at == NOW

    @pytest.mark.parametrize("path", ["//elsewhere.test/x", "https://elsewhere.test/x", "@elsewhere.test", "p"])
    async def test_no_path_leaves_the_origin(self, path: str) -> None:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(text=request.headers["Host"])

        async with site(handler) as url, client(url) as http:
            assert (await http.request("GET", path, operation="t")).body.decode() == url.removeprefix("http://")

    @pytest.mark.parametrize(("status", "tries"), [(200, 1), (404, 1), (401, 1), (500, 3), (429, 3)])
    async def test_get_is_tried_up_to_three_times(self, status: int, tries: int) -> None:
        async with (
            raw_server(replying(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)) as server,
            client(server.url) as http,
        ):
            assert (await http.request("GET", "/", operation="t")).status == status
        assert len(server.received) == tries

    @pytest.mark.parametrize(("wait", "tries"), [("1", 3), ("60", 1)])
    async def test_a_long_retry_after_is_left_to_the_caller(self, wait: str, tries: int) -> None:
        reply = f"HTTP/1.1 429 X\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            got = await http.request("GET", "/", operation="t")
        assert (got.status, got.retry_after) == (429, timedelta(seconds=int(wait)))
        assert len(server.received) == tries

    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    async def test_other_methods_are_tried_once(self, method: str) -> None:
        async with raw_server(replying(b"")) as server, client(server.url) as http:
            with pytest.raises(Transient, match="closed the connection"):
                await http.request(method, "/", operation="t")
        assert len(server.received) == 1

    async def test_get_over_a_connection_that_drops_is_tried_three_times_and_no_more(self) -> None:
        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            await server.request(reader)
            if len(server.received) == 1:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await server.request(reader)

        async with raw_server(talk) as server, client(server.url) as http:
            await http.request("GET", "/", operation="t")
            with pytest.raises(Transient):
                await http.request("GET", "/", operation="t")
        assert len(server.received) == 4

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n{{{{",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 200",
            b"",
        ],
    )
    async def test_a_broken_answer_is_transient(self, reply: bytes) -> None:
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with pytest.raises(Transient, match="GET /a"):
                await http.request("GET", "/a?key=hidden", operation="t")
        assert len(server.received) == 3

    async def test_a_reset_is_transient(self) -> None:
        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            await server.request(reader)
            reset(writer)

        async with raw_server(talk) as server, client(server.url) as http:
            with pytest.raises(Transient):
                await http.request("GET", "/", operation="t")

    @pytest.mark.parametrize("which", ["read_timeout", "total_timeout"])
    async def test_silence_is_transient(self, which: str) -> None:
        async with raw_server(silent) as server, client(server.url, **{which: timedelta(milliseconds=30)}) as http:
            with pytest.raises(Transient, match="GET /a: timed out"):
                await http.request("GET", "/a?key=hidden", operation="t")

    @pytest.mark.parametrize(
        "form",
        [
            lambda secret: secret,
            lambda secret: quote(secret, safe=""),
            lambda secret: base64.b64encode(f"ApiToken-v1 {secret}".encode()).decode(),
            lambda secret: secret.encode().hex(),
        ],
    )
    async def test_bodies_hold_no_token_in_any_form(self, form: Callable[[str], str]) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.json_response({"message": f"bad {form(OTHER_SECRET)}", "note": "sessionid=data"}, status=400)

        async with site(handler) as url, client(url) as http:
            got = await http.request("GET", "/a", operation="t")
        assert form(OTHER_SECRET).encode()[-12:] not in got.body.replace(b"=", b"")
        assert b"***" in got.body
        assert b"sessionid=data" in got.body, "what only looks like a secret may be data"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
    async def test_want_on_this_machine_is_ours(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("aiohappyeyeballs.start_connection", fail)
        async with client("http://127.0.0.1:9") as http:
            with pytest.raises(Ours, match="GET /a: no connection"):
                await http.request("GET", "/a?key=hidden", operation="t")
            got = await send(http)
        assert isinstance(got, NotSent)
        assert got.ours

    async def test_without_descriptors_nothing_is_sent_and_the_machine_is_at_fault(self) -> None:
        async with site(ok) as url, client(url) as http:
            await http.request("GET", "/", operation="t")  # the certificates are read from files, once
            with without_descriptors():
                got = await send(http)
        assert isinstance(got, NotSent)
        assert got.ours

    async def test_messages_hold_neither_query_nor_token(self) -> None:
        async def handler(request: web.Request) -> web.Response:
            return web.json_response({"message": f"bad {request.headers['Authorization']}"}, status=400)

        async with site(handler) as url, client(url) as http:
            got = await http.request("GET", "/a?key=hidden", operation="t", headers=HEADERS)
        assert str(got.failure()) == 'GET /a answered 400: {"message": "bad ApiToken-v1 ***"}'
        assert SECRET.encode() not in got.body
        with closed_port() as port:
            async with client(f"http://127.0.0.1:{port}") as http:
                with pytest.raises(Transient) as caught:
                    await http.request("GET", "/a?key=hidden", operation="t")
        assert "hidden" not in str(caught.value)
        assert caught.value.__cause__ is None

    async def test_cancelling_leaves_nothing_open(self) -> None:
        async with raw_server(silent) as server, client(server.url) as http:
            task = asyncio.create_task(http.request("GET", "/", operation="t"))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(server.received) == 1


class TestSize:
    LIMIT = 1000

    @pytest.mark.parametrize("way", ["announced", "chunked", "compressed"])
    async def test_a_body_over_the_limit_is_refused_at_once(self, way: str) -> None:
        sent = 0

        async def handler(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            sent += 1
            if way == "announced":
                return web.Response(body=b"x" * 1001)
            response = web.StreamResponse()
            if way == "compressed":
                response.headers["Content-Encoding"] = "gzip"
            await response.prepare(request)
            await response.write(gzip.compress(b"x" * 10**7) if way == "compressed" else b"x" * 1001)
            return response

        async with site(handler) as url, client(url, max_response_size=self.LIMIT) as http:
            with pytest.raises(Transient, match="max_response_size"):
                await http.request("GET", "/", operation="t")
        assert sent == 1

    async def test_a_body_at_the_limit_is_read(self) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.Response(body=b"x" * self.LIMIT)

        async with site(handler) as url, client(url, max_response_size=self.LIMIT) as http:
            assert len((await http.request("GET", "/", operation="t")).body) == self.LIMIT

    @pytest.mark.parametrize(("limit", "most"), [(10, 10), (2000, LIMIT)])
    async def test_a_call_may_have_a_smaller_limit_than_the_setting(self, limit: int, most: int) -> None:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(body=b"x" * int(request.query["n"]))

        async with site(handler) as url, client(url, max_response_size=self.LIMIT) as http:
            for method in ("GET", "POST"):
                got = await http.request(method, f"/?n={most}", operation="t", limit=limit)
                assert len(got.body) == most
                with pytest.raises(Transient, match=f"GET|POST / answered 200 with {most + 1} bytes, more than {most}"):
                    await http.request(method, f"/?n={most + 1}", operation="t", limit=limit)

    async def test_what_is_no_success_is_short(self) -> None:
        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=int(request.query["status"]), body=b"x" * (SHORT + 1))

        async with site(handler) as url, client(url) as http:
            assert len((await http.request("GET", "/?status=200", operation="t")).body) == SHORT + 1
            for status in (404, 422, 503):
                with pytest.raises(Transient, match=f"answered {status} with {SHORT + 1} bytes"):
                    await http.request("GET", f"/?status={status}", operation="t")
                with pytest.raises(Transient, match=f"answered {status}"):
                    async with http.stream(f"/?status={status}", operation="t"):
                        pass

    @pytest.mark.parametrize("status", [200, 400, 401, 422, 429])
    @pytest.mark.parametrize("announced", [True, False])
    async def test_an_answer_to_a_purchase_that_is_too_long_leaves_doubt(self, status: int, announced: bool) -> None:
        async def handler(request: web.Request) -> web.StreamResponse:
            if announced:
                return web.Response(status=status, body=b"x" * (SHORT + 1))
            response = web.StreamResponse(status=status)
            await response.prepare(request)
            await response.write(b"x" * (SHORT + 1))
            return response

        async with site(handler) as url, client(url) as http:
            got = await http.send_once("/", b"{}", operation="create", headers={}, timeout=MINUTE, limit=SHORT)
        assert isinstance(got, NoAnswer)
        assert str(SHORT) in got.reason


class TestRedirects:
    @staticmethod
    def to(location: str, status: int = 302) -> bytes:
        return f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_get_follows_on_its_origin_and_keeps_the_query(self, status: int) -> None:
        async def handler(request: web.Request) -> web.Response:
            if request.path == "/api":
                return web.Response(status=status, headers={"Location": f"/api/?{request.rel_url.raw_query_string}"})
            return web.Response(text=f"{request.raw_path} {request.headers['Authorization'][:8]}")

        async with site(handler) as url, client(url) as http:
            got = await http.request("GET", "/api", operation="t", params={"q": "C#C+%"}, headers=HEADERS)
        assert got.text == "/api/?q=C%23C%2B%25 ApiToken"

    @pytest.mark.parametrize("location", ["http://127.0.0.1:{port}//localhost:1/x", "//127.0.0.1:{port}//x"])
    async def test_a_doubled_slash_stays_on_the_origin(self, location: str) -> None:
        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            head = await server.request(reader)
            here = head.startswith(b"GET /a ")
            writer.write(
                self.to(location.format(port=server.port)) if here else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            )

        async with raw_server(talk) as server, client(server.url) as http:
            assert (await http.request("GET", "/a", operation="t")).status == 200

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_another_origin_gets_nothing(self, method: str, scheme: str) -> None:
        async with raw_server(replying(b"")) as other:
            location = f"{scheme}://127.0.0.1:{other.port}/login?next=hidden"
            async with raw_server(replying(self.to(location))) as server, client(server.url) as http:
                with pytest.raises(AuthFailure) as caught:
                    await http.request(method, "/", operation="t", headers=HEADERS)
        assert (len(server.received), other.connections) == (1, 0)
        assert "hidden" not in str(caught.value)

    async def test_posts_are_never_sent_on(self) -> None:
        async with raw_server(replying(self.to("/login", 307))) as server, client(server.url) as http:
            assert (await http.request("POST", "/", operation="t", form={"a": "b"})).status == 307
        assert len(server.received) == 1

    async def test_a_circle_ends(self) -> None:
        async with raw_server(replying(self.to("/"))) as server, client(server.url) as http:
            with pytest.raises(Transient, match="circle"):
                await http.request("GET", "/", operation="t")
        assert len(server.received) == 4

    @pytest.mark.parametrize("location", ["http://[", "mailto:a@b", "http://"])
    async def test_a_location_without_sense_is_a_failure(self, location: str) -> None:
        async with raw_server(replying(self.to(location))) as server, client(server.url) as http:
            with pytest.raises(Failure):
                await http.request("GET", "/", operation="t")

    async def test_a_redirect_to_nowhere_is_an_answer(self) -> None:
        async with raw_server(replying(b"HTTP/1.1 304 X\r\n\r\n")) as server, client(server.url) as http:
            assert (await http.request("GET", "/", operation="t")).status == 304


class TestStream:
    async def test_gives_the_answer_and_the_chunks(self) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.Response(body=b"x" * 300_000, headers={"ETag": "1"})

        async with (
            site(handler) as url,
            client(url, max_response_size=10) as http,
            http.stream("/f", operation="download") as (got, chunks),
        ):
            assert (got.status, got.body, got.headers["ETag"]) == (200, b"", "1")
            assert sum([len(chunk) async for chunk in chunks]) == 300_000

    async def test_keeps_the_body_of_a_refusal(self) -> None:
        async def handler(_: web.Request) -> web.Response:
            return web.Response(status=404, text="gone")

        async with site(handler) as url, client(url) as http, http.stream("/f", operation="download") as (got, _):
            assert (got.status, got.body) == (404, b"gone")

    async def test_a_cut_transfer_is_transient(self) -> None:
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with pytest.raises(Transient, match="GET /f: "):
                async with http.stream("/f", operation="download") as (_, chunks):
                    assert [chunk async for chunk in chunks]

    async def test_another_origin_gets_nothing(self) -> None:
        reply = TestRedirects.to("http://localhost:1/file")
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with pytest.raises(AuthFailure):
                async with http.stream("/f", operation="download", headers=HEADERS):
                    pass

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), TimeoutError(), ValueError("mine")])
    async def test_what_the_caller_raises_stays_its_own(self, error: Exception) -> None:
        async with raw_server(replying(OK)) as server, client(server.url) as http:
            with pytest.raises(type(error)) as caught:
                async with http.stream("/f", operation="download"):
                    raise error
        assert caught.value is error


class TestSendOnce:
    async def test_gives_the_answer(self) -> None:
        seen: list[tuple[bytes, str, str]] = []

        async def handler(request: web.Request) -> web.Response:
            seen.append((await request.read(), request.headers["Content-Type"], request.headers["Authorization"]))
            return web.json_response({"id": "b1"})

        async with site(handler) as url, client(url) as http:
            got = await send(http)
        assert isinstance(got, Answer)
        assert json.loads(got.body) == {"id": "b1"}
        assert seen == [(b'{"targets":["CC"]}', "application/json", f"ApiToken-v1 {SECRET}")]

    async def test_each_purchase_has_its_own_connection(self) -> None:
        """A server that closes a kept-alive connection cannot put a purchase in doubt, or have it repeated."""

        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            await server.request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            await reader.read(1)

        async with raw_server(talk) as server, client(server.url) as http:
            await http.request("GET", "/", operation="t")
            assert isinstance(await send(http), Answer)
            assert isinstance(await send(http), Answer)
            assert (server.connections, len(server.received)) == (3, 3)

    @pytest.mark.parametrize(
        "reply",
        [
            b"",
            b"HTTP/1.1 200",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
        ],
    )
    async def test_half_an_answer_is_doubt(self, reply: bytes) -> None:
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            assert isinstance(await send(http), NoAnswer)
        assert (server.connections, len(server.received)) == (1, 1)

    async def test_a_reset_before_or_after_reading_is_doubt(self) -> None:
        async def at_once(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            reset(writer)

        async def after_reading(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            await server.request(reader)
            reset(writer)

        for talk in (at_once, after_reading):
            async with raw_server(talk) as server, client(server.url) as http:
                assert isinstance(await send(http), NoAnswer)
            assert server.connections == 1

    async def test_silence_is_doubt(self) -> None:
        async with raw_server(silent) as server, client(server.url) as http:
            got = await send(http, timedelta(milliseconds=50))
        assert got == NoAnswer("POST /pay: timed out")
        assert len(server.received) == 1

    async def test_statuses_and_redirects_are_answers_and_not_followed(self) -> None:
        for reply in (TestRedirects.to("/other", 307), b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"):
            async with raw_server(replying(reply)) as server, client(server.url) as http:
                got = await send(http)
            assert isinstance(got, Answer)
            assert got.status in (307, 503)
            assert len(server.received) == 1

    async def test_a_refused_connection_was_not_sent(self) -> None:
        with closed_port() as port:
            async with client(f"http://127.0.0.1:{port}") as http:
                got = await send(http)
        assert isinstance(got, NotSent)
        assert f"no connection to 127.0.0.1:{port}" in got.reason

    async def test_a_name_that_does_not_resolve_was_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def resolve(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", resolve)
        async with client("http://nowhere.test") as http:
            assert await send(http) == NotSent("POST /pay: the name nowhere.test does not resolve")

    async def test_a_failed_handshake_was_not_sent(self) -> None:
        """A plain server that is spoken to in TLS."""

        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with raw_server(talk, scheme="https") as server, client(server.url) as http:
            got = await send(http)
        assert isinstance(got, NotSent)
        assert "SSL" in got.reason
        assert server.connections == 1

    async def test_a_handshake_that_takes_too_long_was_not_sent(self) -> None:
        async def talk(server: RawServer, reader: StreamReader, writer: StreamWriter) -> None:
            while await reader.read(1000):
                pass

        async with raw_server(talk, scheme="https") as server, client(server.url) as http:
            got = await send(http, timedelta(milliseconds=50))
        assert got == NotSent("POST /pay: timed out")
        assert server.connections == 1

    @pytest.mark.parametrize("content", [None, "no certificate"])
    async def test_a_bad_certificate_bundle_is_ours(self, content: str | None, tmp_path: Any) -> None:
        bundle = tmp_path / "ca.pem"
        if content is not None:
            bundle.write_text(content)
        async with client("https://127.0.0.1:1", ca_file=bundle) as http:
            got = await send(http)
            assert isinstance(got, NotSent)
            assert "http.ca_file" in got.reason
            with pytest.raises(Ours):
                await http.request("GET", "/", operation="t")

    async def test_cancelling_says_so_and_leaves_nothing_open(self) -> None:
        async with raw_server(silent) as server, client(server.url) as http:
            task = asyncio.create_task(send(http))
            await server.arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


class TestCounts:
    """The metric of the requests has one more for each, in the word for how it ended."""

    @staticmethod
    @contextmanager
    def counted(**expected: int) -> Iterator[None]:
        metrics.HTTP_REQUESTS.clear()
        yield
        (family,) = metrics.HTTP_REQUESTS.collect()
        totals = [one for one in family.samples if one.name.endswith("_total")]
        assert {one.labels["outcome"]: one.value for one in totals} == expected
        assert {(one.labels["service"], one.labels["operation"]) for one in totals} == {("molecule_one", "t")}

    @pytest.mark.parametrize(
        ("reply", "expected"),
        [
            (OK, {"ok": 1}),
            (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", {"invalid": 1}),
            (b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n", {"auth": 1}),
            (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", {"transient": 3}),
            (b"", {"transient": 3}),
            (TestRedirects.to("/"), {"redirect": 4}),
            (TestRedirects.to("http://localhost:1/"), {"auth": 1}),
        ],
    )
    async def test_a_request(self, reply: bytes, expected: dict[str, int]) -> None:
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with self.counted(**expected), suppress(Failure):
                await http.request("GET", "/", operation="t")

    async def test_a_cancelled_request(self) -> None:
        async with raw_server(silent) as server, client(server.url) as http:
            with self.counted(cancelled=1):
                task = asyncio.create_task(http.request("GET", "/", operation="t"))
                await server.arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    @pytest.mark.parametrize(
        ("reply", "error", "outcome"),
        [
            (OK, None, "ok"),
            (OK, ZeroDivisionError(), "error"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", None, "transient"),
        ],
    )
    async def test_a_stream(self, reply: bytes, error: Exception | None, outcome: str) -> None:
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with self.counted(**{outcome: 1}), suppress(Transient, ZeroDivisionError):
                async with http.stream("/f", operation="t") as (_, chunks):
                    assert [chunk async for chunk in chunks]
                    if error is not None:
                        raise error

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [(OK, "ok"), (b"", "no_answer"), (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "transient")],
    )
    async def test_a_purchase(self, reply: bytes, outcome: str) -> None:
        async with raw_server(replying(reply)) as server, client(server.url) as http:
            with self.counted(**{outcome: 1}):
                await http.send_once("/pay", b"{}", operation="t", headers={}, timeout=MINUTE)

    async def test_a_purchase_that_was_not_sent(self) -> None:
        with closed_port() as port:
            async with client(f"http://127.0.0.1:{port}") as http:
                with self.counted(not_sent=1):
                    await http.send_once("/pay", b"{}", operation="t", headers={}, timeout=MINUTE)


class TestProxies:
    async def test_the_proxy_of_the_environment_is_used_with_its_credentials(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with raw_server(replying(OK)) as proxy:
            monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
            async with client("http://far.test") as http:
                assert (await http.request("GET", "/a", operation="t")).status == 200
                assert isinstance(await send(http), Answer)
        assert proxy.received[0].startswith(b"GET http://far.test/a HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in proxy.received[0]
        assert proxy.received[1].startswith(b"POST http://far.test/pay")

    async def test_a_tunnel_that_is_refused_was_not_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with raw_server(replying(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")) as proxy:
            monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
            async with client("https://far.test") as http:
                assert await send(http) == NotSent("POST /pay: the proxy answered 407")
        assert proxy.received[0].startswith(b"CONNECT far.test:443")
        assert SECRET.encode() not in proxy.received[0]

    @pytest.mark.parametrize("trust", [True, False])
    async def test_no_proxy_and_trust_env_are_honoured(self, monkeypatch: pytest.MonkeyPatch, trust: bool) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        if trust:
            monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with raw_server(replying(OK)) as server, client(server.url, trust_env=trust) as http:
            assert (await http.request("GET", "/", operation="t")).status == 200

    @pytest.mark.parametrize("proxy", ["http://[", "socks5://127.0.0.1:1"])
    async def test_a_proxy_without_sense_is_said(self, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
        monkeypatch.setenv("http_proxy", proxy)
        async with client("http://far.test") as http:
            assert isinstance(await send(http), NotSent)
            with pytest.raises(Ours, match="HTTP_PROXY"):
                await http.request("GET", "/", operation="t")

    async def test_netrc_is_left_alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        """A default entry there would clash with our Authorization header, or give a stranger's password away."""
        (tmp_path / ".netrc").write_text("default login a password b\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        async with raw_server(replying(OK)) as server, client(server.url) as http:
            assert isinstance(await send(http), Answer)
            await http.request("GET", "/", operation="t")
        assert b"Basic" not in server.received[1]
