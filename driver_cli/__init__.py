"""The driver: starts a run, follows it and ends it, from Python (`DriverSession`) or the command line (`metis`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .session import DriverSession

__all__ = ["DriverSession"]


def __getattr__(name: str) -> Any:
    """`DriverSession`, imported at its first use: `metis --help` needs neither numpy nor httpx."""
    if name == "DriverSession":
        from .session import DriverSession

        return DriverSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
