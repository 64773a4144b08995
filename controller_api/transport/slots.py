"""Slots: so many large bodies are read and dealt with at once, in fair shares; the others wait in their sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .incoming import Incoming

PATIENCE = 2  # looks that somebody waits before one who has more than its share gives up a slot
SLOW_S = 600.0  # how long it is remembered that a learner's body was too slow


@dataclass(eq=False)
class Waiting:
    """Somebody who waits for a slot, or has just been given one."""

    body: Incoming
    turn: asyncio.Future[None]
    given: bool = False
    looks: int = 0


class Slots:
    """In fair shares: whoever has the fewest comes first, of those whoever has gone without the longest, of those
    whoever came first. Nobody keeps two more than somebody who waits. Those whose bodies were too slow share one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = count
        self._held: dict[str, list[Incoming]] = {}  # by learner
        self._waiting: deque[Waiting] = deque()
        self._left: dict[str, int] = {}  # the number of the slot that a learner gave back last, while anybody waits
        self._returned = 0  # slots that were given back so far
        self._slow: dict[str, float] = {}  # by learner, in the loop's time: until when

    @asynccontextmanager
    async def slot(self, learner: str, body: Incoming) -> AsyncIterator[None]:
        """Have a slot for a body, in the name of a learner. Raises BodyTooSlow when the body is stopped before."""
        body.learner = learner
        if self._may_have(learner):
            self._give(body)
        else:
            await self._wait(body)
        try:
            yield
        finally:
            self._give_back(body)

    def note_slow(self, learner: str) -> None:
        """A body of this learner was stopped because it came too slowly."""
        now = asyncio.get_running_loop().time()
        self._slow = {one: until for one, until in self._slow.items() if until > now}
        self._slow[learner] = now + SLOW_S

    def others_wait(self, learner: str) -> bool:
        """Whether anybody else waits for a slot."""
        return any(one.body.learner != learner for one in self._waiting)

    def surplus(self) -> Iterator[tuple[Incoming, str]]:
        """Called at each look: the bodies that are to make room, of those who have more than their share while others
        wait, and why."""
        if not self._waiting:
            return
        held = {learner: len(bodies) for learner, bodies in self._held.items()}
        leaving = sum(body.stopped for bodies in self._held.values() for body in bodies)
        for waiting in sorted(self._waiting, key=self._order):
            if self._shares(waiting.body.learner):
                continue
            waiting.looks += 1
            if waiting.looks < PATIENCE:
                continue
            if leaving:
                leaving -= 1
                continue
            reading = {one: [b for b in bodies if b.reading] for one, bodies in self._held.items()}
            most = max((one for one in reading if reading[one]), key=lambda one: held[one], default=None)
            if most is None or held[most] < held.get(waiting.body.learner, 0) + 2:
                continue
            slowest = min(reading[most], key=lambda body: body.recent)
            yield slowest, f"its sender has {held[most]} of the {self._count} slots, for one of which others wait"
            held[most] -= 1
            held[waiting.body.learner] = held.get(waiting.body.learner, 0) + 1

    async def _wait(self, body: Incoming) -> None:
        waiting = Waiting(body, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await body.wait(lambda: waiting.turn)
        except BaseException:
            if waiting.given:
                self._give_back(body)
            else:
                self._waiting.remove(waiting)
            raise

    def _is_slow(self, learner: str) -> bool:
        return self._slow.get(learner, 0.0) > asyncio.get_running_loop().time()

    def _shares(self, learner: str) -> bool:
        """Whether a learner is slow, and one that is has the slot for all of them."""
        return self._is_slow(learner) and any(self._is_slow(one) for one in self._held)

    def _may_have(self, learner: str) -> bool:
        return self._free > 0 and not self._shares(learner)

    def _order(self, waiting: Waiting) -> tuple[int, int]:
        """The lowest is next."""
        learner = waiting.body.learner
        return len(self._held.get(learner, ())), self._left.get(learner, 0)

    def _give(self, body: Incoming) -> None:
        self._free -= 1
        self._held.setdefault(body.learner, []).append(body)

    def _give_back(self, body: Incoming) -> None:
        bodies = self._held[body.learner]
        bodies.remove(body)
        if not bodies:
            del self._held[body.learner]
        self._free += 1
        self._returned += 1
        self._left[body.learner] = self._returned
        while ready := [one for one in self._waiting if not one.turn.done() and self._may_have(one.body.learner)]:
            following = min(ready, key=self._order)
            self._waiting.remove(following)
            following.given = True
            self._give(following.body)
            following.turn.set_result(None)
        if not self._waiting:
            self._left.clear()
