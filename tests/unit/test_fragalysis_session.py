"""Cookies, CSRF, and every way in which a session says that it has ended; never a secret where it does not belong."""

from typing import Any

import pytest
from aiohttp import web

from tests.support.fragalysis import (
    CSRF,
    DOWNLOAD,
    ENDED,
    LANDING,
    PROJECTS,
    TARGETS,
    TOKEN,
    answer,
    capture,
    captured,
    rows,
    stack,
)
from watcher.errors import AuthFailure, Invalid, SettingsError, Transient
from watcher.fragalysis import BuildTask, FileLink
from watcher.fragalysis.session import SIGN_IN_AGAIN
from watcher.settings import DownloadSettings

LINK = "/code/media/downloads/feb28d29/A71EV2A.zip"
OPTIONS = DownloadSettings()


def hides_secrets(failure: Exception) -> bool:
    return not any(secret in f"{failure!s} {failure!r} {getattr(failure, 'action', '')}" for secret in (TOKEN, CSRF))


async def test_a_visitor_without_token_sends_no_cookie() -> None:
    async with stack({TARGETS: rows(), PROJECTS: rows()}) as server, server.client() as client:
        await client.target_list()
        for request in server.requests:
            assert "Cookie" not in request.headers
            assert request.headers["X-Requested-With"] == "XMLHttpRequest"
            assert "FragalysisWatcher" in request.headers["User-Agent"]
            assert request.headers["Accept"] == "application/json"
        assert not server.asked(LANDING)


async def test_a_post_carries_csrf_token_referer_and_both_cookies() -> None:
    async with stack({DOWNLOAD: answer({"file_url": LINK})}) as server, server.client(TOKEN) as client:
        for _ in range(2):
            await client.request_download("A71EV2A", "lb32627-66", OPTIONS)
        assert len(server.asked(LANDING)) == 1
        for request in server.asked(DOWNLOAD):
            assert request.headers["X-CSRFToken"] == CSRF
            assert request.headers["Referer"] == server.url + LANDING
            assert request.cookies == {"csrftoken": CSRF, "sessionid": TOKEN}


async def test_a_refused_csrf_token_is_renewed_once() -> None:
    refused = answer(captured("download_post_member_nocsrf.json"), 403)
    replies = {DOWNLOAD: [refused, answer({"file_url": LINK})]}
    async with stack(replies) as server, server.client(TOKEN) as client:
        assert await client.request_download("A", "lb1-1", OPTIONS) == FileLink(LINK)
        assert len(server.asked(LANDING)) == 2
    async with stack({DOWNLOAD: refused}) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure) as raised:
            await client.request_download("A", "lb1-1", OPTIONS)
        assert len(server.asked(DOWNLOAD)) == 2
        assert hides_secrets(raised.value)


@pytest.mark.parametrize(("title", "kind"), [("Maintenance", Transient), ("Sign in to your account", AuthFailure)])
async def test_a_page_in_place_of_the_landing_page_is_no_refusal_unless_it_asks_to_sign_in(
    title: str, kind: type[Exception]
) -> None:
    refused = answer(captured("download_post_member_nocsrf.json"), 403)
    page = answer(f"<!doctype html><title>{title}</title>")
    async with stack({LANDING: page, DOWNLOAD: refused}) as server, server.client(TOKEN) as client:
        with pytest.raises(kind) as raised:
            await client.request_download("A", "lb1-1", OPTIONS)
        assert type(raised.value) is kind
        assert hides_secrets(raised.value)


def ended(name: str) -> Any:
    return answer(capture(name), headers={"Set-Cookie": ENDED})


async def test_a_session_that_ended_is_noticed_on_a_list() -> None:
    async with (
        stack({TARGETS: ended("targets_expired_session.json"), PROJECTS: rows()}) as server,
        server.client(TOKEN) as client,
    ):
        for _ in range(2):  # and stays noticed, until the token works
            with pytest.raises(AuthFailure, match="has ended") as raised:
                await client.target_list()
            assert raised.value.action == SIGN_IN_AGAIN
            assert hides_secrets(raised.value)
    async with (
        stack({TARGETS: ended("targets_expired_session.json"), PROJECTS: rows()}) as server,
        server.client() as client,
    ):
        assert len(await client.target_list()) == 9  # nothing to lose without a token


@pytest.mark.parametrize("cookie", ["sessionid=x; Max-Age=0", "sessionid=x; expires=Thu, 01 Jan 1970 00:00:00 GMT"])
async def test_other_ways_to_delete_a_cookie(cookie: str) -> None:
    replies = {TARGETS: answer({"count": 0, "results": []}, headers={"Set-Cookie": cookie})}
    async with stack(replies) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure, match="has ended"):
            await client.target_list()


async def test_an_ended_session_is_noticed_on_landing_post_status_and_file() -> None:
    async with stack({LANDING: ended("landing_bad_session.html")}) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure, match="has ended"):
            await client.request_download("A", "lb1-1", OPTIONS)
    refusal = answer(capture("download_post_bad_session_csrf.json"), 404, {"Set-Cookie": ENDED})
    async with stack({DOWNLOAD: refusal}) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure, match="has ended"):
            await client.request_download("A", "lb1-1", OPTIONS)
        with pytest.raises(AuthFailure, match="has ended"):
            async with client.fetch(FileLink(LINK)):
                pass


@pytest.mark.parametrize("body", ["<!doctype html><title>404</title>", "no such page", {"detail": "Not found."}])
async def test_a_landing_page_that_is_missing_is_no_fault_of_the_item(body: Any) -> None:
    async with stack({LANDING: answer(body, 404)}) as server, server.client() as client:
        with pytest.raises(Transient, match="404"):
            await client.request_download("A", "lb1-1", OPTIONS)


async def test_a_rotated_session_is_followed_in_memory() -> None:
    replies = {TARGETS: [answer({"count": 0, "results": []}, headers={"Set-Cookie": "sessionid=new; Path=/"}), rows()]}
    async with stack({**replies, PROJECTS: rows()}) as server, server.client(TOKEN) as client:
        await client.target_list()
        await client.target_list()
        assert [request.cookies["sessionid"] for request in server.requests] == [TOKEN, "new", "new", "new"]


async def test_a_redirect_to_a_sign_in_elsewhere() -> None:
    def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "https://sso.example.org/auth?state=abc"})

    async with stack({TARGETS: away}) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure) as raised:
            await client.target_list()
        assert raised.value.action == SIGN_IN_AGAIN
        assert "state" not in raised.value.message


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_a_refresh_url(token: str) -> None:
    refresh = answer({"refresh_url": "https://sso.example.org/auth?state=abc"}, 403)
    async with stack({TARGETS: refresh}) as server, server.client(token) as client:
        with pytest.raises(AuthFailure, match="renewed") as raised:
            await client.target_list()
        assert raised.value.action
        assert "state" not in raised.value.message


async def test_a_post_that_is_sent_to_the_sign_in_page() -> None:
    def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/accounts/login/?next=/api/"})

    async with stack({DOWNLOAD: away}) as server, server.client(TOKEN) as client:
        with pytest.raises(AuthFailure, match="renewed"):
            await client.request_download("A", "lb1-1", OPTIONS)


async def test_pages_where_json_belongs() -> None:
    sign_in = "<!doctype html><html><title>Sign in to XChem</title><input type='password'></html>"
    async with stack({TARGETS: answer(sign_in)}) as server, server.client() as client:
        with pytest.raises(AuthFailure, match="sign-in page"):
            await client.target_list()
    async with stack({TARGETS: answer(capture("targets_accept_html.html"))}) as server, server.client() as client:
        with pytest.raises(Transient, match="web page"):
            await client.target_list()
    async with stack({TARGETS: answer(b"{")}) as server, server.client() as client:
        with pytest.raises(Transient, match="cannot be read"):
            await client.target_list()


async def test_an_answer_that_repeats_the_token_is_not_repeated() -> None:
    async with (
        stack({TARGETS: answer({"detail": f"bad cookie {TOKEN}"}, 400)}) as server,
        server.client(TOKEN) as client,
    ):
        with pytest.raises(Invalid) as raised:
            await client.target_list()
        assert hides_secrets(raised.value)


@pytest.mark.parametrize("token", ["abc\ndef", "abc\x00", "a b", "ключ", "a;b=c", 'a"b'])
async def test_a_token_that_is_none(token: str) -> None:
    async with stack() as server:
        with pytest.raises(SettingsError, match=r"fragalysis\.token") as raised:
            server.client(token)
        assert token not in str(raised.value)


async def test_white_space_around_a_token_is_no_part_of_it() -> None:
    async with stack({TARGETS: rows(), PROJECTS: rows()}) as server, server.client(f" {TOKEN}\n") as client:
        await client.target_list()
        assert server.requests[0].cookies["sessionid"] == TOKEN


async def test_only_listings_may_be_long() -> None:
    more = "x" * 10**6
    replies = {
        TARGETS: rows({"id": 1, "title": "A", "more": more}),
        PROJECTS: rows(),
        "/api/user": answer({"user": "me", "more": more}),
        DOWNLOAD: answer({"file_url": LINK, "more": more}),
        "/viewer/task_status/1/": answer({"status": "STARTED", "more": more}),
    }
    async with stack(replies) as server, server.client(TOKEN) as client:
        assert len(await client.target_list()) == 1
        task = BuildTask("/viewer/task_status/1/", server.clock.now())
        for call in (client.user(), client.request_download("A", "lb1-1", OPTIONS), client.build_status(task)):
            with pytest.raises(Transient, match="the most that is read of it"):
                await call
    async with (
        stack({LANDING: answer(f"<html>{more}"), "/api/user": answer("", 404)}) as server,
        server.client() as client,
    ):
        with pytest.raises(Transient, match="the most that is read of it"):
            await client.user()
