"""When to repeat a call, and after how long: full jitter, or as long as the controller asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass

import tenacity

from ..errors import FederationError


@dataclass(frozen=True)
class FullJitter:
    """Random wait between 0 and min(`longest_s`, `first_s`·2^n) seconds; never less than a `Retry-After`.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """

    first_s: float = 1.0
    longest_s: float = 30.0

    def __call__(self, state: tenacity.RetryCallState) -> float:
        """Seconds to wait before the next attempt."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.values.get("retry_after_s", 0.0) if isinstance(error, FederationError) else 0.0
        return float(asked) + self.seconds(state.attempt_number)

    def seconds(self, attempt: int) -> float:
        """Seconds to wait after the attempt of this number, counted from 1."""
        return random.uniform(0, min(self.longest_s, self.first_s * 2.0 ** min(attempt - 1, 10)))


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    return isinstance(error, FederationError) and error.retryable
