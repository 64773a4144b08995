"""Failpoints: armed by a text, they strike once, at the passage that it names."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from services.process import failpoints
from services.process.failpoints import arm, reach


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    """Nothing stays armed in this process."""
    yield
    failpoints._armed.clear()


def took(name: str) -> float:
    """Seconds that it takes to pass a point."""
    began = time.monotonic()
    reach(name)
    return time.monotonic() - began


@pytest.mark.parametrize(("text", "slow"), [("round-kept:sleep=0.2", 1), ("round-kept:3:sleep=0.2", 3)])
def test_a_failpoint_may_sleep(text: str, slow: int) -> None:
    """The thread that is there is blocked for so long, at the passage that was named, and at no other."""
    arm(text)
    assert took("model-stored") < 0.1
    assert [passage for passage in range(1, 6) if took("round-kept") >= 0.2] == [slow]


@pytest.mark.parametrize("text", ["nowhere", "round-kept:often", "round-kept:sleep=long", ""])
def test_a_failpoint_that_makes_no_sense_is_refused(text: str) -> None:
    """A controller does not start with it."""
    with pytest.raises(ValueError, match=r"failpoint|invalid literal|convert"):
        arm(text)
