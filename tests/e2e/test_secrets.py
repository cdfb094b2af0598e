"""Secrets: in no log, answer, file, list of processes or URL, also when services and errors repeat them."""

import base64
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.process import Served, Workplace, environment, eventually
from watcher.sandbox import Fault

pytestmark = pytest.mark.slow

PAID = "m1tok-3fA9zQ77Lw"
SESSION = "sess-8dK2vYp41Qx"
PAGE = "page-Zt6Rm90bNc"
NOTICE = "notify-Hq5Ws83jUe"
SECRETS = (PAID, SESSION, PAGE, NOTICE)


def forms(secret: str) -> tuple[str, ...]:
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return secret, secret[::-1], encoded[:-1], secret.encode().hex()


def leaks(text: str | bytes) -> list[str]:
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [secret for secret in SECRETS for form in forms(secret) if form.encode() in data]


def files(folder: Path) -> dict[str, bytes]:
    """Whatever the program wrote, byte for byte; the settings hold the secrets by right."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "config.toml"
    }


def processes() -> Iterator[tuple[int, int, bytes]]:
    """Yield number, parent and command line of each process."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            status = (place / "status").read_text()
            parent = int(re.findall(r"^PPid:\s*(\d+)", status, re.MULTILINE)[0])
            yield int(place.name), parent, (place / "cmdline").read_bytes()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def secretive(workplace: Workplace, served: Served, port: int, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A workplace whose services know real secrets, which they repeat in every error."""
    monkeypatch.setenv("SOMEBODYS_TOKEN", PAID)  # of whoever starts the daemon; the chemistry must not get it

    def learn(sandbox: object) -> None:
        served.sandbox.molecule_one.token = PAID
        served.sandbox.fragalysis.session_token = SESSION

    served.do(learn)
    workplace.set("molecule_one", token=PAID)
    workplace.set("fragalysis", token=SESSION, targets=["A71EV2A"], scan_interval="1s")
    workplace.set("server", listen=f"127.0.0.1:{port}", token=PAGE)
    workplace.set("notify", urls=[f"json://me:{NOTICE}@127.0.0.1:9/{NOTICE}"])
    workplace.set("download", enabled=True)
    workplace.set("log", level="debug")
    return workplace


def page(port: int, path: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {PAGE}"})
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())
    return ""


def test_no_secret_comes_out_of_a_whole_run(secretive: Workplace, served: Served, port: int) -> None:
    said: list[str] = []
    headers = {"WWW-Authenticate": f"token={PAID}", "X-Echo": SESSION}
    paid = {"message": f"bad header Authorization: ApiToken-v1 {PAID}; {PAID}"}
    wrapped = base64.b64encode(SESSION.encode()).decode()
    session = {"message": f"bad header Cookie: csrftoken=1; sessionid={SESSION}, {SESSION}, {wrapped}, or is it {PAID}"}
    echoes = [
        Fault("molecule_one", "status", {"method": "POST"}, status=401, body=paid, headers=headers, times=None),
        Fault("fragalysis", "status", {"path": "site_observations"}, status=500, body=session, headers=headers),
        Fault("fragalysis", "status", {"path": "download_structures"}, status=403, body=session, headers=headers),
    ]
    served.do(lambda sandbox: [sandbox.add_fault(echo) for echo in echoes])
    with secretive.running("run") as daemon:
        eventually(lambda: echoes[0].hits or daemon._is_over("a refused purchase"))
        daemon.said("condition_opened")
        said += [page(port, path) for path in ("/metrics", "/readyz", "/livez")]
        mine = {daemon._popen.pid: b""}
        for number, parent, command in processes():
            if parent in mine or number in mine:
                mine[number] = Path(f"/proc/{number}/environ").read_bytes() if number not in mine else b""
                assert not leaks(command)
        assert len(mine) >= 2, "the chemistry runs"
        assert not any(leaks(environ) for environ in mine.values())
        assert not {name: leaks(data) for name, data in files(secretive.folder).items() if leaks(data)}
        daemon.stop()
    said += [*daemon.stdout, *daemon.stderr]
    served.do(lambda sandbox: sandbox.clear_faults())
    with secretive.running("run") as daemon:
        daemon.said('"new": "collected"')
        assert "watcher.db-wal" in files(secretive.folder)
        assert not {name: leaks(data) for name, data in files(secretive.folder).items() if leaks(data)}
        daemon.stop()
    said += [*daemon.stdout, *daemon.stderr]
    for arguments in (
        ["config", "show"], ["status", "--json"], ["export"], ["check"], ["plan"], ["batches", "show", "1"],
        ["db", "check"], ["db", "backup", "copy.db"],
    ):  # fmt: skip
        done = secretive.call(*arguments, exit_code=None)
        said += [done.stdout, done.stderr]
    assert not [line for line in said if leaks(line)]
    assert not {name: leaks(data) for name, data in files(secretive.folder).items() if leaks(data)}
    asked = served.do(lambda sandbox: [*sandbox.fragalysis.requests, *sandbox.molecule_one.requests])
    assert not [path for _, path in asked if leaks(path)]
    assert set(served.purchases.values()) == {1}


def test_an_exception_that_holds_a_token_does_not_tell_it(secretive: Workplace) -> None:
    """A fault of the program with a token in its words, its causes and its context: the traceback has none."""
    script = secretive.folder / "fault.py"
    script.write_text(
        "import sys\n"
        "from watcher.pipeline.scan import Scan\n"
        "async def step(self, unit):\n"
        "    token = self._context.settings.molecule_one.token.get_secret_value()\n"
        "    try:\n"
        "        raise KeyError({'Authorization': 'ApiToken-v1 ' + token})\n"
        "    except KeyError as error:\n"
        "        raise ZeroDivisionError(f'with {token} in it', token.encode()) from error\n"
        "Scan.step = step\n"
        "from watcher.cli import main\n"
        "sys.argv = ['watcher', 'once', '--timeout', '1s']\n"
        "main()\n",
        encoding="utf-8",
    )
    secretive.configure()
    done = subprocess.run(
        [sys.executable, str(script)], cwd=secretive.folder, env=environment(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"unit_failed_unexpectedly" in done.stderr
    assert b"ZeroDivisionError" in done.stderr
    assert not leaks(done.stdout + done.stderr)
    script.unlink()
    assert not {name: leaks(data) for name, data in files(secretive.folder).items() if leaks(data)}
