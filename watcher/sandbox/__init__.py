"""The sandbox: faithful local stand-ins for Fragalysis and Molecule.one.

They serve the demo, trying settings out, and the tests. Nothing leaves the machine, nothing costs money, and every
answer is the same at every run: what looks like chance is a hash of the seed.

    async with Sandbox(age="2026") as sandbox:
        sandbox.fragalysis.url                            # the stack; .session_token sees the private project
        sandbox.molecule_one.url                          # the base URL; .token is accepted
        sandbox.fragalysis.publish("A71EV2A", "lb32627-66")
        sandbox.add_fault(Fault("molecule_one", "close_after", match={"method": "POST"}))
        sandbox.molecule_one.ledger.purchases             # how often each SMILES was bought

Control over HTTP, plain JSON, on each server:

    GET    /sandbox/state                what there is
    GET    /sandbox/requests             the requests seen
    GET    /sandbox/faults               the rules in force, with their counters
    POST   /sandbox/faults               one more rule: the fields of `Fault` without `where`
    DELETE /sandbox/faults               no rules

on the Fragalysis server, each with {"target", "target_access_string"}:

    POST   /sandbox/publish | withdraw | touch | vanish | reappear | break_builds
    POST   /sandbox/rename | move        also {"to"}
    POST   /sandbox/pace                 {"build_seconds", "build_polls"}
    POST   /sandbox/session              {"valid"}: let the session run out, or count again

on the Molecule.one server:

    GET    /sandbox/ledger               {"total", "purchases", "batches"}
    POST   /sandbox/pace                 {"seconds_per_molecule", "queue_seconds", "parallel", "manual"}
    POST   /sandbox/finish               {"molecules"}: so many get ready at once; all without it
    POST   /sandbox/listing              the fields of `Listing`
"""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from watcher.sandbox import catalogue as bundled
from watcher.sandbox.faults import Fault
from watcher.sandbox.fragalysis import FragalysisServer
from watcher.sandbox.ledger import Ledger
from watcher.sandbox.molecule_one import Listing, MoleculeOneServer
from watcher.sandbox.shapes import Age
from watcher.sandbox.vendor import Vendor

__all__ = ["Fault", "FragalysisServer", "Ledger", "Listing", "MoleculeOneServer", "Sandbox"]


class Sandbox:
    """Both servers, open between entering and leaving.

    `published` is how many uploads of each target are there at the start (None: what the catalogue says);
    `catalogue=None` starts without targets. `clock` drives builds and scoring. Port 0 takes a free one.
    """

    def __init__(
        self,
        *,
        age: Age = "2026",
        seconds_per_molecule: float = 0.0,
        queue_seconds: float = 0.0,
        parallel: int = 4,
        build_polls: int = 2,
        build_seconds: float = 0.0,
        seed: int = 0,
        fragalysis_port: int = 0,
        molecule_one_port: int = 0,
        host: str = "127.0.0.1",
        published: int | None = None,
        catalogue: Literal["default"] | None = "default",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._published = published
        self.fragalysis = FragalysisServer(
            age=age,
            build_polls=build_polls,
            build_seconds=build_seconds,
            seed=seed,
            clock=clock,
            host=host,
            port=fragalysis_port,
        )
        self.molecule_one = MoleculeOneServer(
            seconds_per_molecule=seconds_per_molecule,
            queue_seconds=queue_seconds,
            parallel=parallel,
            seed=seed,
            clock=clock,
            host=host,
            port=molecule_one_port,
        )

    async def __aenter__(self) -> Self:
        known = await asyncio.to_thread(bundled.load)
        self.molecule_one.vendor = Vendor(known.vendor)
        if self._catalogue is not None:
            self.fragalysis.world.fill(known.targets, self._published)
        try:
            await self.fragalysis.start()
            await self.molecule_one.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close both servers."""
        await self.fragalysis.close()
        await self.molecule_one.close()

    def add_fault(self, fault: Fault) -> Fault:
        """Put a rule in force on the server that it names."""
        server = self.fragalysis if fault.where == "fragalysis" else self.molecule_one
        return server.faults.add(fault)

    def clear_faults(self) -> None:
        """Drop every rule on both servers, and let go whoever is held."""
        self.fragalysis.faults.clear()
        self.molecule_one.faults.clear()
