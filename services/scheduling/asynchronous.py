"""No rounds to wait for: learners go on by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Close, RoundView, Verdict, Wait


@dataclass(frozen=True)
class Asynchronous:
    """Whoever has reported gets its next task at once; a round is one community model."""

    streams: ClassVar[bool] = True

    def decide(self, view: RoundView) -> Verdict:
        """Nothing is waited for once there are updates enough for a community model."""
        return Close(f"{len(view.reported)} updates arrived") if len(view.reported) >= view.target else Wait()
