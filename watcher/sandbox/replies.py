"""The answers that the Fragalysis server gives in many places: JSON, pages of a list, HTML errors."""

import json
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

PAGE = 5000
_VARY = {"Vary": "Accept, Cookie"}


def reply(document: Any, *, status: int = 200) -> web.Response:
    """Return a JSON answer, its content type written as the server does: without a charset."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=_VARY)


def message(status: int, words: str) -> web.Response:
    """Return an error in the `{"message"}` form."""
    return reply({"message": words}, status=status)


def detail(status: int, words: str) -> web.Response:
    """Return an error in the `{"detail"}` form."""
    return reply({"detail": words}, status=status)


def page(title: str, words: str, *, status: int) -> web.Response:
    """Return an HTML page as the framework makes it (captures `api_user`, `download_post_bad_bool`)."""
    html = (
        f'\n<!doctype html>\n<html lang="en">\n<head>\n  <title>{title}</title>\n</head>\n'
        f"<body>\n  <h1>{title}</h1><p>{words}</p>\n</body>\n</html>\n"
    )
    return web.Response(status=status, body=html.encode(), content_type="text/html", headers={"Vary": "Cookie"})


def not_found() -> web.Response:
    """Return the HTML 404."""
    return page("Not Found", "The requested resource was not found on this server.", status=404)


def server_error() -> web.Response:
    """Return the HTML 500."""
    return page("Server Error (500)", "", status=500)


def listing(request: web.Request, rows: list[dict[str, Any]], origin: str) -> web.Response:
    """Return one limit/offset page with absolute links; no maximum, and nonsense means the default."""
    limit = _number(request.query.get("limit"), PAGE, least=1)
    offset = _number(request.query.get("offset"), 0, least=0)

    def link(start: int) -> str:
        query = {**request.query, "limit": str(limit), "offset": str(start)}
        if start <= 0:
            del query["offset"]
        return f"{origin}{request.path}?{urlencode(sorted(query.items()))}"

    return reply(
        {
            "count": len(rows),
            "next": link(offset + limit) if offset + limit < len(rows) else None,
            "previous": link(offset - limit) if offset > 0 else None,
            "results": rows[offset : offset + limit],
        }
    )


def _number(text: str | None, default: int, *, least: int) -> int:
    try:
        number = int(text or "")
    except ValueError:
        return default
    return number if number >= least else default
