"""Secrets: never sent to another origin, never over TLS that is not trusted."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from tests.support.clock import FakeClock
from tests.support.pipeline import A, Job, world
from watcher.errors import Transient, WatcherError
from watcher.fragalysis import FileLink, Fragalysis
from watcher.molecule_one import Accepted, MoleculeOne, NotSent
from watcher.sandbox import Fault
from watcher.settings import Settings

PAID = "m1tok-3fA9zQ77Lw"
SESSION = "sess-8dK2vYp41Qx"


# Another origin


class Thief:
    """A server that redirects lead to; it keeps what it is told."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs} {dict(request.headers)}")
        return web.json_response({"count": 0, "next": None, "previous": None, "results": []})


@asynccontextmanager
async def thief() -> AsyncIterator[Thief]:
    this = Thief()
    runner = web.ServerRunner(web.Server(this.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    this.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield this
    finally:
        await runner.cleanup()


@pytest.fixture
async def job(tmp_path: Path) -> AsyncIterator[Job]:
    async with world(tmp_path) as job:
        job.set("fragalysis", token=job.sandbox.fragalysis.session_token)
        yield job


async def _fetch(fragalysis: Fragalysis) -> None:
    async with fragalysis.fetch(FileLink("/code/media/downloads/x/A71EV2A.tar.gz")) as (_, chunks):
        async for _ in chunks:
            pass


async def _ignore(_: object) -> None:
    pass


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_is_sent_to_another_origin(job: Job, status: int) -> None:
    async with (
        thief() as other,
        Fragalysis(job.settings, clock=job.clock) as fragalysis,
        MoleculeOne(job.settings, clock=job.clock) as molecule_one,
    ):
        places: list[tuple[Literal["fragalysis", "molecule_one"], str]] = [
            ("fragalysis", "download_structures"), ("fragalysis", "task_status"), ("fragalysis", ""),
            ("molecule_one", ""),
        ]  # fmt: skip
        redirects = [
            Fault(where, "redirect", {"path": path}, times=None, status=status, location=f"{other.url}/steal")
            for where, path in places
        ]
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "download": lambda: fragalysis.download_target(*A, job.settings.download, on_task=_ignore),
            "task": lambda: fragalysis.download_target(*A, job.settings.download, on_task=_ignore),
            "file": lambda: _fetch(fragalysis),
            "user": fragalysis.user,
            "targets": fragalysis.target_list,
            "uploads": fragalysis.target_uploads,
            "observations": lambda: fragalysis.get_target_compound_smiles(1),
            "purchase": lambda: molecule_one.create(molecule_one.payload(["CCO"], "watcher/x/y")),
            "list": molecule_one.list_batches,
            "counts": lambda: molecule_one.status("1"),
            "results": lambda: molecule_one.results("1"),
            "delete": lambda: molecule_one.delete("1"),
        }
        faults = {"download": redirects[0], "task": redirects[1]}
        for name, call in calls.items():
            job.sandbox.clear_faults()
            for fault in [faults[name]] if name in faults else redirects[2:]:
                fault.hits = 0
                job.sandbox.add_fault(fault)
            with suppress(WatcherError):
                assert await call() is None or name == "purchase"
            assert any(fault.hits for fault in redirects), name
            assert other.requests == [], name
    assert job.bought == {}


# TLS


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private CA, and a certificate of it for 127.0.0.1 and one for somebody else."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is missing")
    folder = tmp_path_factory.mktemp("certificates")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca = str(folder / "ca.pem"), str(folder / "ca.key")
    _openssl("req", "-x509", *new, "-keyout", ca[1], "-out", ca[0], "-days", "2", "-subj", "/CN=A private CA",
             "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name, subject in (("right", "IP:127.0.0.1"), ("wrong", "DNS:example.org")):
        request = str(folder / f"{name}.csr")
        extensions = folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject}\nauthorityKeyIdentifier=keyid\n")
        _openssl("req", *new, "-keyout", str(folder / f"{name}.key"), "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial", "-days", "2",
                 "-extfile", str(extensions), "-out", str(folder / f"{name}.pem"))  # fmt: skip
    return folder


async def _outcome(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except Transient as failure:
        return failure


async def _ask(where: str, settings: Settings) -> list[Any]:
    """Ask in each way that there is: a list, and a file or a purchase."""
    if where == "fragalysis":
        async with Fragalysis(settings, clock=FakeClock()) as fragalysis:
            return [await _outcome(fragalysis.target_list), await _outcome(lambda: _fetch(fragalysis))]
    async with MoleculeOne(settings, clock=FakeClock()) as molecule_one:
        payload = molecule_one.payload(["CCO"], "watcher/x/y")
        return [await _outcome(molecule_one.list_batches), await _outcome(lambda: molecule_one.create(payload))]


@pytest.mark.parametrize("where", ["fragalysis", "molecule_one"])
@pytest.mark.parametrize(
    ("certificate", "ca", "trusted"), [("right", True, True), ("right", False, False), ("wrong", True, False)]
)
async def test_tls_is_verified_and_a_private_ca_works(
    certificates: Path, where: str, certificate: str, ca: bool, trusted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{certificate}.pem", certificates / f"{certificate}.key")
    seen: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization") or request.cookies.get("sessionid", ""))
        if where == "fragalysis":
            return web.json_response({"count": 0, "next": None, "previous": None, "results": []})
        return web.json_response({"id": "7"} if request.method == "POST" else [])

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        settings = Settings().replace("fragalysis", stack=url, token=SESSION)
        settings = settings.replace("molecule_one", base_url=url, api_version="v2", token=PAID)
        if ca:
            settings = settings.replace("http", ca_file=certificates / "ca.pem")
        outcomes = await _ask(where, settings)
    finally:
        await runner.cleanup()
    assert len(outcomes) == 2
    if trusted:
        assert len(seen) >= 2
        assert set(seen) == {SESSION if where == "fragalysis" else f"ApiToken-v1 {PAID}"}
        assert not [one for one in outcomes if isinstance(one, Transient | NotSent)]
        assert where == "fragalysis" or isinstance(outcomes[1], Accepted)
    else:
        assert seen == []
        assert all(isinstance(one, Transient | NotSent) and "is not trusted" in str(one) for one in outcomes)
    assert not [one for one in outcomes if PAID in str(one) or SESSION in str(one)]
