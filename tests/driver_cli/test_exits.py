"""Exit statuses, and what an error says to do next."""

from __future__ import annotations

import pytest

from driver_cli import exits
from services import errors


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidConfig("x"), 2),
        (errors.Unauthenticated("x"), 2),
        (errors.Unreachable("x"), 3),
        (errors.UnexpectedAnswer("x"), 3),
        (errors.RunActive("x"), 1),
        (errors.AggregationFailed("x"), 1),
        (ValueError("x"), 1),
        (KeyboardInterrupt(), 130),
        (exits.Interrupted("x"), 130),
    ],
)
def test_every_error_has_an_exit_status(error: BaseException, status: int) -> None:
    """Scripts tell a failed run from a wrong command from a controller that is not there."""
    assert exits.status_of(error) == status


def test_errors_say_what_to_do_next() -> None:
    """A person learns the next command from the message."""
    assert "metis-controller" in exits.explain(errors.Unreachable("no answer"))
    assert "--attach" in exits.explain(errors.RunActive("run x is active"))
