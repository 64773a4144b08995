"""How often something may happen: at once so often, and then at a rate (a token bucket)."""

from __future__ import annotations

from services.errors import Busy


class RateLimit:
    """`burst` at once, `rate` per second in the long run. Times are seconds of a monotonic clock."""

    def __init__(self, what: str, rate: float, burst: int) -> None:
        self._what = what
        self._rate = rate
        self._burst = burst
        self._left = float(burst)
        self._at = 0.0

    def take(self, now: float) -> None:
        """It happens once; raises Busy when it happened too often."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            why = f"{self._what} at once: after {self._burst} it takes {self._rate:g} a second; try again later"
            raise Busy(why, limit=self._burst)
        self._left -= 1
