"""Secrets: in no log, answer, file, list of processes or URL, also when services and errors repeat them."""

import base64
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest

from tests.support.network import free_port
from tests.support.process import Served, Workplace, environment, eventually, shown_by
from watcher.sandbox import Fault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

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


class Family:
    """What the list of processes shows of a process and of all that it starts, as often as it is looked at."""

    def __init__(self, number: int) -> None:
        self.commands = {number: Path(f"/proc/{number}/cmdline").read_bytes()}
        self.environs: dict[int, bytes] = {}
        """Of what it starts; its own is what whoever started it gave it."""

    def look(self) -> bool:
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                parent = int(re.findall(r"^PPid:\s*(\d+)", (place / "status").read_text(), re.MULTILINE)[0])
                command = (place / "cmdline").read_bytes()
                if parent in self.commands and command not in (b"", self.commands[parent]):  # else it is no other yet
                    self.environs[int(place.name)] = (place / "environ").read_bytes()
                    self.commands[int(place.name)] = command
        return True

    def is_clean(self, *started: bytes) -> bool:
        """Say whether no secret was seen, and all of these were started."""
        assert all(any(module in command for command in self.commands.values()) for module in started)
        return not any(map(leaks, [*self.commands.values(), *self.environs.values()]))


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


def page(port: int, path: str, token: str = PAGE, status: int = 200) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            code, body = answer.status, str(answer.read().decode())
    except urllib.error.HTTPError as error:
        code, body = error.code, error.read().decode()
    assert code == status, path
    assert body, path
    return body


def clean_files(place: Workplace, *there: str) -> bool:
    """Say whether no file holds a secret, and these are among them."""
    found = files(place.folder)
    assert set(there) <= set(found)
    return not {name: leaks(data) for name, data in found.items() if leaks(data)}


def test_no_secret_comes_out_of_a_whole_run(secretive: Workplace, served: Served, port: int) -> None:
    headers = {"WWW-Authenticate": f"token={PAID}", "X-Echo": SESSION}
    wrapped = base64.b64encode(SESSION.encode()).decode()
    paid = {"message": f"bad header Authorization: ApiToken-v1 {PAID}; {PAID}"}
    session = {"message": f"bad header Cookie: csrftoken=1; sessionid={SESSION}, {SESSION}, {wrapped}, or is it {PAID}"}

    def echo(where: Literal["fragalysis", "molecule_one"], status: int, method: str, path: str = "") -> Fault:
        """A failure that lasts, and repeats what it was asked with."""
        body = paid if where == "molecule_one" else session
        match = {"method": method, "path": path}
        fault = Fault(where, "status", match, status=status, body=body, headers=headers, times=None)
        return served.do(lambda sandbox: sandbox.add_fault(fault))

    lists = echo("fragalysis", 500, "GET", "site_observations")
    builds = echo("fragalysis", 429, "POST", "download_structures")
    purchases = echo("molecule_one", 401, "POST")
    with secretive.running("run") as daemon:
        family = Family(daemon._popen.pid)

        def told(subject: str, kind: str) -> None:
            """Return when this is said not to be well; meanwhile the processes are looked at."""
            words = f'"subject": "{subject}", "kind": "{kind}"'
            eventually(
                lambda: (family.look() and any(words in line for line in daemon.stderr)) or daemon._is_over(words)
            )

        told("fragalysis", "unreachable")
        told("download", "unreachable")
        lists.times = lists.hits  # now they are well
        told("molecule_one", "credentials")
        builds.status = 403
        told("download", "credentials")
        daemon.said('"stage": "notify"')  # which fails, at a URL that is a secret
        pages = [page(port, path) for path in ("/metrics", "/readyz", "/livez")]
        assert "bad header" in pages[1], "what they repeat is told, without the secrets"
        pages += [page(port, path, PAGE[:-1], 401) for path in ("/metrics", "/readyz")]
        assert clean_files(secretive, "watcher.db", "watcher.db-wal")
        daemon.stop()
    assert lists.hits >= 3, "each try of a call is one"
    assert min(builds.hits, purchases.hits) >= 1
    assert family.is_clean(b"watcher.chemistry_child", b"watcher.notify")
    said = [*pages, *daemon.stdout, *daemon.stderr]

    echoes = [echo("fragalysis", 403, "GET"), echo("molecule_one", 401, "GET")]
    said += commands(secretive, ["check"], ["plan"], ["status"], ["status", "--json"], ["history", "A71EV2A"])
    assert all(one.hits for one in echoes)

    served.do(lambda sandbox: sandbox.clear_faults())
    with secretive.running("run") as daemon:
        daemon.said('"new": "collected"')
        assert clean_files(secretive, "watcher.db", "watcher.db-wal")
        daemon.stop()
    said += [*daemon.stdout, *daemon.stderr]
    said += commands(
        secretive, ["config", "show"], ["status", "--json"], ["export"], ["check"], ["plan"], ["targets"], ["uploads"],
        ["history", "A71EV2A"], ["batches", "list"], ["batches", "show", "1"], ["notify", "test"], ["db", "check"],
        ["db", "backup", "copy.db"], ["retry"], ["approve", "A71EV2A"],
    )  # fmt: skip
    assert not [line for line in said if leaks(line)]
    assert clean_files(secretive, "watcher.db", "copy.db")
    asked = served.do(lambda sandbox: [*sandbox.fragalysis.requests, *sandbox.molecule_one.requests])
    assert any("site_observations" in path for _, path in asked)
    assert any("batch-search" in path for _, path in asked)
    assert not [path for _, path in asked if leaks(path)]
    assert set(served.purchases.values()) == {1}


def commands(place: Workplace, *arguments: Sequence[str]) -> list[str]:
    """What commands say."""
    found = shown_by(place, [(200, one) for one in arguments])
    assert all(code in (0, 1, 3) and shown for code, shown in found)
    assert "Traceback" not in "".join(shown for _, shown in found)
    return [shown for _, shown in found]


def test_an_exception_that_holds_a_token_does_not_tell_it(secretive: Workplace) -> None:
    """A fault of the program with a token in its words, its causes and its context: no traceback has one.

    The first is in a stage, which goes on; the second ends the command.
    """
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
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "async def fail(settings):\n"
        "    raise ArithmeticError(settings.molecule_one.token.get_secret_value(), settings.fragalysis.token)\n"
        "from watcher.cli import status\n"
        "status._status = fail\n"
        "sys.argv = ['watcher', 'status']\n"
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
    assert b"uncaught_exception" in done.stderr
    assert b"ArithmeticError" in done.stderr
    assert not leaks(done.stdout + done.stderr)
    script.unlink()
    assert not {name: leaks(data) for name, data in files(secretive.folder).items() if leaks(data)}
