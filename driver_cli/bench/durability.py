"""What durability costs: rounds of federations that differ in their model store alone, in turns on one machine."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..local import children
from .machine import load
from .measurements import Durability
from .sizes import Size
from .testbed import Testbed

FASTEST = "InMemory"  # what the others are compared with: it keeps nothing
STORES = {FASTEST: (FASTEST, False), "OnDisk": ("OnDisk", False), "OnDisk, --fsync": ("OnDisk", True)}
WARM_UP = 3  # rounds that do not count: `OnDisk` has files to write over from the third on


@dataclass(frozen=True)
class Stores:
    """What to measure."""

    size: Size
    learners: int
    rounds: int

    async def run(self) -> Durability:
        """Measure. Raises ChildDied when one of the processes ends, FederationError when a run fails."""
        load_before, rounds = load()[0], WARM_UP + self.rounds
        async with contextlib.AsyncExitStack() as stack:
            testbeds = {}
            for name, (store, fsync) in STORES.items():
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="metis-bench-"))
                started = await stack.enter_async_context(children(Path(folder)))
                one = Testbed(started, self.size, self.learners, rounds, store, None, fsync)
                testbeds[name] = await stack.enter_async_context(one)
            for _ in range(rounds):
                for one in testbeds.values():
                    await one.round()
            found = {name: (await one.results())[WARM_UP:] for name, one in testbeds.items()}
        return Durability(
            params=self.size.params,
            learners=self.learners,
            rounds=self.rounds,
            rounds_ms={
                name: [one.timings_ms.federation_round or 0.0 for one in several] for name, several in found.items()
            },
            load=(load_before, load()[0]),
        )
