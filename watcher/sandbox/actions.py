"""What a fault does to one request: each action is one function, listed in `ACTIONS`.

status, status_after          answer `status`, `headers`, `body` instead of processing, or after it (a lost purchase)
redirect, sign_in_page        302 (or `status`) to `location`; an HTML form with 200
expire_session                this request is anonymous, and its session cookie is deleted
fail_build                    the build started by this request fails
close_before_reading, close_before_answer, close_after
                              the connection ends: at once, unprocessed but read, or processed
delay, delay_after            wait `seconds` before processing, or before the answer
hold, hold_after              the same without end, until faults are cleared; unprocessed if the server closes first
truncate, wrong_length        half a body under its whole length, or under half of it
invalid_json                  a body that ends in the middle
edit, edit_document           `drop` and set `values` in every row, or in the document around the rows
repeat_rows, skip_rows        a page with its first row in the place of its last, or without its last
numbers_as_strings            every number a string
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from watcher.sandbox.faults import Fault, Faults

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SIGN_IN = "https://sso.sandbox.invalid/auth/realms/xchem/protocol/openid-connect/auth"

# What the Fragalysis server reads off a request; set by the actions `expire_session` and `fail_build`.
EXPIRED = web.RequestKey("expired", bool)
FAILS = web.RequestKey("fails", bool)


@dataclass
class Call:
    """One request in the hands of one rule."""

    faults: "Faults"
    fault: "Fault"
    request: web.Request
    handler: Handler

    async def process(self) -> web.Response:
        """Do what was asked; every handler of the sandbox answers with a whole body."""
        response = await self.handler(self.request)
        if not isinstance(response, web.Response):
            raise TypeError("a streamed answer cannot be changed")
        return response

    def instead(self) -> web.Response:
        """Return the answer that the rule spells out."""
        body = self.fault.body
        status = self.fault.status or 500
        headers = dict(self.fault.headers)
        if isinstance(body, str):
            headers.setdefault("Content-Type", "text/html; charset=utf-8")
            return web.Response(status=status, body=body.encode(), headers=headers)
        headers.setdefault("Content-Type", "application/json")
        document = {"message": f"Sandbox fault: {status}"} if body is None else body
        return web.Response(status=status, body=json.dumps(document).encode(), headers=headers)

    def cut(self) -> web.Response:
        """Close the connection without a word."""
        if self.request.transport is not None:
            self.request.transport.abort()
        response = web.Response(status=500)
        response.force_close()
        return response


async def _status(call: Call) -> web.StreamResponse:
    return call.instead()


async def _status_after(call: Call) -> web.StreamResponse:
    await call.process()
    return call.instead()


async def _redirect(call: Call) -> web.StreamResponse:
    return web.Response(
        status=call.fault.status or 302, headers={"Location": call.fault.location, **call.fault.headers}
    )


async def _sign_in_page(_call: Call) -> web.StreamResponse:
    form = f'<form action="{SIGN_IN}"></form>'
    page = f"<!doctype html>\n<html><head><title>Sign in</title></head><body>{form}</body></html>\n"
    return web.Response(text=page, content_type="text/html")


async def _expire_session(call: Call) -> web.StreamResponse:
    call.request[EXPIRED] = True
    return await call.process()


async def _fail_build(call: Call) -> web.StreamResponse:
    call.request[FAILS] = True
    return await call.process()


async def _close_before_reading(call: Call) -> web.StreamResponse:
    return call.cut()


async def _close_before_answer(call: Call) -> web.StreamResponse:
    await call.request.read()
    return call.cut()


async def _close_after(call: Call) -> web.StreamResponse:
    await call.process()
    return call.cut()


async def _delay(call: Call) -> web.StreamResponse:
    await call.request.read()
    await call.faults.wait(call.fault.seconds)
    return call.cut() if call.faults.closing else await call.process()


async def _delay_after(call: Call) -> web.StreamResponse:
    response = await call.process()
    await call.faults.wait(call.fault.seconds)
    return response


async def _hold(call: Call) -> web.StreamResponse:
    await call.request.read()
    await call.faults.wait(None)
    return call.cut() if call.faults.closing else await call.process()


async def _hold_after(call: Call) -> web.StreamResponse:
    response = await call.process()
    await call.faults.wait(None)
    return response


def _with_body(response: web.Response, body: bytes) -> web.Response:
    response.body = body
    return response


def _bytes(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


async def _truncate(call: Call) -> web.StreamResponse:
    """Announce the whole length, send half of it, close."""
    response = await call.process()
    body = _bytes(response)
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(body)
    stream.force_close()
    await stream.prepare(call.request)
    await stream.write(body[: len(body) // 2])
    if call.request.transport is not None:
        call.request.transport.close()
    return stream


async def _wrong_length(call: Call) -> web.StreamResponse:
    """Announce half of the length, so that what is read looks whole and is not."""
    response = await call.process()
    body = _bytes(response)
    return _with_body(response, body[: len(body) // 2])


async def _invalid_json(call: Call) -> web.StreamResponse:
    return _with_body(await call.process(), b'{"count": 3, "results": [{"id": 1, ')


def _rows(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    for key in ("results", "data"):
        if isinstance(document, dict) and isinstance(document.get(key), list):
            return _rows(document[key])
    return [document]


async def _changed(call: Call, change: Callable[[Any], Any]) -> web.StreamResponse:
    response = await call.process()
    if response.content_type == "application/json" and response.status < 400:
        changed = change(json.loads(_bytes(response)))
        if changed != json.loads(_bytes(response)):
            return _with_body(response, json.dumps(changed).encode())
    call.fault.hits -= 1  # there was nothing to change
    return response


async def _edit(call: Call) -> web.StreamResponse:
    """Drop and set fields of the rows of a list, or of the document where there is no list."""

    def change(document: Any) -> Any:
        for row in _rows(document):
            if isinstance(row, dict):
                for name in call.fault.drop:
                    row.pop(name, None)
                row.update(call.fault.values)
        return document

    return await _changed(call, change)


async def _edit_document(call: Call) -> web.StreamResponse:
    """Drop and set fields of the document itself, such as `count` or `next`."""

    def change(document: Any) -> Any:
        kept = {name: value for name, value in document.items() if name not in call.fault.drop}
        return {**kept, **call.fault.values}

    return await _changed(call, change)


async def _repeat_rows(call: Call) -> web.StreamResponse:
    """Let the first row of a page come again in the place of its last: an order that moved between two pages."""

    def change(document: Any) -> Any:
        rows = _rows(document)
        rows[-1:] = rows[:1]
        return document

    return await _changed(call, change)


async def _skip_rows(call: Call) -> web.StreamResponse:
    """Leave the last row of a page out, whatever the count says."""

    def change(document: Any) -> Any:
        del _rows(document)[-1:]
        return document

    return await _changed(call, change)


def _stringly(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stringly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_stringly(each) for each in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


async def _numbers_as_strings(call: Call) -> web.StreamResponse:
    return await _changed(call, _stringly)


ACTIONS: dict[str, Callable[[Call], Awaitable[web.StreamResponse]]] = {
    "status": _status,
    "status_after": _status_after,
    "redirect": _redirect,
    "sign_in_page": _sign_in_page,
    "expire_session": _expire_session,
    "fail_build": _fail_build,
    "close_before_reading": _close_before_reading,
    "close_before_answer": _close_before_answer,
    "close_after": _close_after,
    "delay": _delay,
    "delay_after": _delay_after,
    "hold": _hold,
    "hold_after": _hold_after,
    "truncate": _truncate,
    "wrong_length": _wrong_length,
    "invalid_json": _invalid_json,
    "edit": _edit,
    "edit_document": _edit_document,
    "repeat_rows": _repeat_rows,
    "skip_rows": _skip_rows,
    "numbers_as_strings": _numbers_as_strings,
}
