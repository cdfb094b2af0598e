"""Control over HTTP: the routes under `/sandbox/` that steer a running server (listed in the package's docstring)."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from watcher.sandbox.faults import Fault

if TYPE_CHECKING:
    from watcher.sandbox.fragalysis import FragalysisServer
    from watcher.sandbox.molecule_one import MoleculeOneServer
    from watcher.sandbox.server import Server

Order = Callable[[dict[str, Any]], Any]
_CHANGES = ("publish", "withdraw", "touch", "rename", "move", "vanish", "reappear", "break_builds")


def _handler(order: Order) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Turn a function of the request's JSON into a handler; what the function refuses becomes a 400."""

    async def handler(request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else {}
            return web.json_response(order(dict(body)))
        except (LookupError, TypeError, ValueError) as error:
            return web.json_response({"message": str(error)}, status=400)

    return handler


def _get(path: str, answer: Callable[[], Any]) -> web.RouteDef:
    return web.get(f"/sandbox/{path}", _handler(lambda _body: answer()))


def _post(path: str, order: Order) -> web.RouteDef:
    return web.post(f"/sandbox/{path}", _handler(order))


def _common(server: "Server", where: str, state: Callable[[], dict[str, Any]]) -> list[web.RouteDef]:
    def add(body: dict[str, Any]) -> list[dict[str, Any]]:
        server.faults.add(Fault(**{**body, "where": where}))
        return server.faults.as_json()

    def clear(_body: dict[str, Any]) -> list[dict[str, Any]]:
        server.faults.clear()
        return server.faults.as_json()

    return [
        _get("state", state),
        _get("requests", lambda: server.requests),
        _get("faults", server.faults.as_json),
        _post("faults", add),
        web.delete("/sandbox/faults", _handler(clear)),
    ]


def _assign(subject: object, body: dict[str, Any]) -> None:
    """Set attributes that exist, each to a value of a kind that it already has."""
    for name, value in body.items():
        if not hasattr(subject, name):
            raise LookupError(f"unknown key {name!r}")
        kind = type(getattr(subject, name))
        if kind is not type(None) and not isinstance(value, int if kind is bool else (kind, int)):
            raise TypeError(f"{name} is of type {kind.__name__}, not {value!r}")
        setattr(subject, name, value)


def fragalysis_routes(server: "FragalysisServer") -> list[web.RouteDef]:
    """Return the control routes of the Fragalysis server."""

    def change(name: str) -> Order:
        method = getattr(server, name)

        def order(body: dict[str, Any]) -> dict[str, Any]:
            target, tas = body.pop("target"), body.pop("target_access_string")
            method(target, tas, **body)
            return server.state()

        return order

    def pace(body: dict[str, Any]) -> dict[str, Any]:
        _assign(server.downloads.pace, {name.removeprefix("build_"): value for name, value in body.items()})
        return server.state()

    def session(body: dict[str, Any]) -> dict[str, Any]:
        server.session_valid = bool(body["valid"])
        return server.state()

    routes = _common(server, "fragalysis", server.state)
    routes += [_post(name, change(name)) for name in _CHANGES]
    return [*routes, _post("pace", pace), _post("session", session)]


def molecule_one_routes(server: "MoleculeOneServer") -> list[web.RouteDef]:
    """Return the control routes of the Molecule.one server."""

    def pace(body: dict[str, Any]) -> dict[str, Any]:
        _assign(server.pace, body)
        return server.state()

    def listing(body: dict[str, Any]) -> dict[str, Any]:
        _assign(server.listing, body)
        return server.state()

    def finish(body: dict[str, Any]) -> dict[str, Any]:
        return {"finished": server.finish(body.get("molecules"))}

    routes = _common(server, "molecule_one", server.state)
    return [
        *routes,
        _get("ledger", server.ledger.as_json),
        _post("pace", pace),
        _post("listing", listing),
        _post("finish", finish),
    ]
