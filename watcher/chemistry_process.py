"""The chemistry in a process of its own: a molecule that crashes or hangs RDKit costs one answer, not the daemon.

    async with Chemistry() as chemistry:
        verdicts = await chemistry.identify(["CCO", "c1ccccc1.Cl"])

The child is started when it is first needed and let go when idle, since RDKit holds about 130 MB. It has no memory, so
it is simply killed. A molecule is blamed only after it ended two children, the second one alone, and a third child has
answered a harmless probe: everything else is the machine's fault and says so with `ChemistryUnavailable`. Each child
that ends in its work, or while it waits for some, is told of in the log.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, cast

import msgspec
import structlog

from watcher.chemistry import version
from watcher.chemistry_records import Identity, Rejection, Reply
from watcher.child import environment
from watcher.errors import Ours

_log = structlog.get_logger(__name__)
_CHUNK = 100  # requests under way at once: enough to keep the child busy, little to send again when it dies
_GRACE = 5.0  # seconds that we wait longer than the child's own alarm, for a child that is stopped or starved
_STARTS = 3  # attempts, within `start_timeout`
_STDERR_TAIL = 2000  # bytes
_REPLY = msgspec.json.Decoder(Reply)
_PROBE = "c1ccccc1.Cl"


class ChemistryUnavailable(Ours):
    """No child could be started that answers a harmless molecule; nothing was decided about any molecule."""


class Chemistry:
    """The functions of `watcher.chemistry`, served by one child process at a time.

    `molecule_timeout`, `start_timeout` and `idle_timeout` are in seconds. Calls may overlap; they are served in turn.
    A call is bounded by the time of its molecules: each gets `molecule_timeout` (and a grace of some seconds) at most
    twice. A cancelled call leaves the object usable. On Linux the child dies with the thread that runs the event loop.
    `command` replaces the child's command line.
    """

    def __init__(
        self,
        *,
        max_heavy_atoms: int = 1000,
        molecule_timeout: float = 10.0,
        start_timeout: float = 60.0,
        idle_timeout: float = 30.0,
        command: Sequence[str] | None = None,
    ) -> None:
        self._max_heavy_atoms = max_heavy_atoms
        self._molecule_timeout = molecule_timeout
        self._start_timeout = start_timeout
        self._idle_timeout = idle_timeout
        self._command = tuple(command or (sys.executable, "-P", "-m", "watcher.chemistry_child"))
        self._lock = asyncio.Lock()
        self._child: _Child | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        return self._child.pid if self._child and self._child.usable else None

    async def identify(self, raws: Sequence[str]) -> list[Identity | Rejection]:
        """Return what `chemistry.identify` says of each raw string, in the same order.

        A molecule that twice crashed or hung its child is rejected as `unparsable`, with a detail that says so, and in
        doubt: a machine that is short of memory ends children too.
        Raises ChemistryUnavailable when the machine is at fault.
        """

        def blame(words: str) -> Rejection:
            return Rejection("unparsable", f"RDKit crashed or hung on it, twice: {words}", in_doubt=True)

        return cast("list[Identity | Rejection]", await self._call("identify", raws, blame))

    async def canonical(self, smiles: Sequence[str]) -> list[str | None]:
        """Return today's canonical form of each, in the same order; None for what RDKit refuses or crashes on.

        Raises ChemistryUnavailable when the machine is at fault.
        """
        return cast("list[str | None]", await self._call("canonical", smiles, lambda _: None))

    async def version(self) -> str:
        """Return what today's verdicts depend on, to be stored beside them. No child is started for it."""
        return await asyncio.to_thread(version, self._max_heavy_atoms)

    async def aclose(self) -> None:
        """End the child; a call under way raises ChemistryUnavailable, as does every later one."""
        self._closed = True
        self._let_go()
        async with self._lock:
            self._let_go()
            await self._drop()

    async def _call(self, op: str, texts: Sequence[str], blame: Callable[[str], Any]) -> list[Any]:
        results: list[Any] = []
        if not texts:
            return results
        suspect = False  # the first unanswered request has already ended a child
        async with self._lock:
            try:
                while len(results) < len(texts):
                    answered = len(results)
                    batch = texts[answered : answered + (1 if suspect else _CHUNK)]
                    child = await self._running()
                    try:
                        await self._ask(child, op, batch, results)
                        suspect = False
                    except _ChildLostError as lost:
                        await self._drop()
                        blamed = suspect and len(results) == answered
                        self._say_lost(str(lost), blamed=blamed)
                        if not blamed:
                            suspect = True
                            continue
                        await self._running()  # it answers the probe: the fault is not the machine's
                        results.append(blame(str(lost)))
                        suspect = False
            except BaseException:
                self._let_go()  # answers to this call may still be on their way: no other call must read them
                raise
            self._rest()
        return results

    async def _ask(self, child: "_Child", op: str, texts: Sequence[str], results: list[Any]) -> None:
        """Send requests and append their results as they come, up to the first that the child does not answer."""
        child.send(op, texts, self._max_heavy_atoms, self._molecule_timeout)
        for number in range(len(texts)):
            result = await child.receive(number, self._molecule_timeout + _GRACE)
            results.append(result)

    async def _running(self) -> "_Child":
        """Return a child that has answered the probe; start one if need be."""
        if self._idle:
            self._idle.cancel()
        if self._child and self._child.usable:
            return self._child
        if self._child and not self._child.killed:
            self._say_lost(self._child.words, blamed=False)
        words = "no start was tried"
        try:
            async with asyncio.timeout(self._start_timeout):
                for _ in range(_STARTS):
                    await self._drop()
                    if self._closed:
                        raise ChemistryUnavailable("the chemistry process is closed")
                    try:
                        return await self._start()
                    except (_ChildLostError, OSError) as error:  # OSError: no memory, no more processes, no program
                        words = str(error)
        except TimeoutError:
            words = f"no answer in {self._start_timeout:g} s; {self._child.words if self._child else words}"
        await self._drop()
        raise ChemistryUnavailable(f"the chemistry process does not start: {words}")

    async def _start(self) -> "_Child":
        loop = asyncio.get_running_loop()
        _, self._child = await loop.subprocess_exec(_Child, *self._command, env=environment())
        if self._closed:  # meanwhile
            self._child.kill()
        self._child.send("identify", [_PROBE], self._max_heavy_atoms, self._start_timeout)
        if not isinstance(probed := await self._child.receive(0, self._start_timeout), Identity | Rejection):
            raise _ChildLostError(f"the probe was answered with {probed!r}")
        return self._child

    def _say_lost(self, reason: str, *, blamed: bool) -> None:
        """Say once of a child that it ended, and not by our will."""
        if self._closed:
            return
        action = "nothing: another is started, and asked what this one has not answered"
        if blamed:
            action = "nothing: if another works, the molecule that ended two of them is rejected, and the others go on"
        _log.warning("chemistry_process_lost", reason=reason, action=action)

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._idle_timeout, self._let_go)

    def _let_go(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._child:
            self._child.kill()

    async def _drop(self) -> None:
        if self._child:
            self._child.kill()
            await self._child.ended.wait()
            self._child = None


class _ChildLostError(Exception):
    """The child ended, was silent for too long, or talked nonsense."""


class _Child(asyncio.SubprocessProtocol):
    """One child: requests out, replies in, the last words of its standard error kept."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()  # gone, reaped, and its pipes read to their end
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()  # an empty one: there will be no more
        self._partial = bytearray()
        self._stderr = bytearray()
        self.killed = False
        self._transport: asyncio.SubprocessTransport

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def usable(self) -> bool:
        return not self.killed and self._transport.get_returncode() is None

    @property
    def words(self) -> str:
        """How it ended, and its last words."""
        status = self._transport.get_returncode()
        if status is None:
            ending = "killed" if self.killed else "alive"
        elif status == -signal.SIGALRM:
            ending = "out of time"
        else:
            ending = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
        said = self._stderr.decode("ascii", "replace").strip().rpartition("\n")[2][-300:]
        return f"{ending}: {said}" if said else ending

    def send(self, op: str, texts: Sequence[str], max_heavy_atoms: int, timeout: float) -> None:
        common = {"op": op, "max_heavy_atoms": max_heavy_atoms, "timeout": timeout}
        # the standard library's JSON escapes what is not ASCII, and so carries lone surrogates
        lines = "".join(json.dumps({"id": number, "text": text, **common}) + "\n" for number, text in enumerate(texts))
        pipe = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        pipe.write(lines.encode("ascii"))  # buffered, so that two full pipes cannot block each other

    async def receive(self, number: int, timeout: float) -> Identity | Rejection | str | None:
        """Return the result of the next reply, which must bear that number. `timeout` in seconds."""
        try:
            async with asyncio.timeout(timeout):
                line = await self._lines.get()
        except TimeoutError:
            raise _ChildLostError(f"no answer in {timeout:g} s") from None
        if not line:
            await self.ended.wait()
            raise _ChildLostError(self.words)
        try:
            reply = _REPLY.decode(line)
        except msgspec.MsgspecError as error:
            raise _ChildLostError(f"unreadable answer: {error}") from None
        if reply.id != number:
            raise _ChildLostError(f"answer {reply.id} where {number} was due")
        return reply.result

    def kill(self) -> None:
        """Kill it; `ended` follows. Not by the transport, which would first reap a child that has just died."""
        if self.usable:
            self.killed = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            *lines, rest = (bytes(self._partial) + data).split(b"\n")
            self._partial[:] = rest
            for line in lines:
                self._lines.put_nowait(line or b"?")
        else:
            self._stderr += data
            del self._stderr[:-_STDERR_TAIL]

    def connection_lost(self, _: Exception | None) -> None:
        self._transport.close()
        self._lines.put_nowait(b"")
        self.ended.set()
