"""How fast bodies must come, on whichever way, and who stops those that do not.

One timer looks at all that are being read, twice a second; no read checks anything. A body's time is counted in these
looks, not by a clock: when the controller itself stood still, the look that comes late counts as one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self

from ..settings import Settings
from .incoming import LOOK_S, Incoming
from .slots import Slots


@dataclass(frozen=True)
class Rules:
    """The slowest that a body may come (see the settings of these names)."""

    rate: int  # bytes per second, over the whole; over `window_s` while others wait for a slot
    window_s: float
    total_s: float  # every body has so long
    silence_s: float
    takeover_s: float  # silence of an upload, while another of the same task waits

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of a controller."""
        return cls(
            settings.body_rate,
            settings.body_window_s,
            settings.body_total_s,
            settings.body_timeout_s,
            settings.upload_takeover_s,
        )

    def taken_over(self, body: Incoming) -> str | None:
        """Why another connection sends the result in the place of this one, in words."""
        if body.waited_for and body.silent_s >= self.takeover_s:
            return f"nothing came for {body.silent_s:g} s, and another connection sends the result of this task"
        return None

    def broken(self, body: Incoming, others_wait: bool) -> str | None:
        """What is wrong with the pace of a body, in words."""
        if body.silent_s >= self.silence_s:
            return f"nothing came for {body.silent_s:g} s"
        size = body.came if body.size is None else body.size
        least = f"{self.rate} bytes per second are the least"
        if body.age_s >= max(self.total_s, size / self.rate):
            return f"{body.came} bytes came in {body.age_s:g} s; after {self.total_s:g} s {least}"
        if others_wait and body.age_s >= self.window_s and body.recent < self.rate * self.window_s:
            return f"{body.recent} bytes came in the last {self.window_s:g} s; while others wait {least}"
        return None


class Pace:
    """All bodies that are being read, and the one timer that looks at them."""

    def __init__(self, rules: Rules, slots: Slots) -> None:
        self._rules = rules
        self._slots = slots
        self._bodies: set[Incoming] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, body: Incoming) -> None:
        """Look at it too."""
        self._bodies.add(body)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def forget(self, body: Incoming) -> None:
        """Look at it no more."""
        self._bodies.discard(body)

    def _look(self) -> None:
        """Stop the bodies that are too slow, and those that are to make room."""
        self._timer = None
        for body in tuple(self._bodies):
            body.look(self._rules.window_s)
            if why := self._rules.broken(body, self._slots.others_wait(body.learner)):
                body.stop(why)
                if body.learner:  # in whose name it has a slot
                    self._slots.note_slow(body.learner)
            elif why := self._rules.taken_over(body):
                body.stop(why)
        for body, why in self._slots.surplus():
            body.stop(why)
        if self._bodies:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
