"""Rounds that wait for every member, up to a deadline."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Close, Fail, RoundView, Verdict, Wait


@dataclass(frozen=True)
class Synchronous:
    """Waits for every member; at the deadline the quorum is enough. A lost member is not waited for."""

    def decide(self, view: RoundView) -> Verdict:
        """See Scheduler.decide."""
        got, enough = len(view.reported), len(view.reported) >= view.min_updates
        if got >= view.target:
            return Close(f"{got} of {got + len(view.pending) + len(view.failed)} members reported")
        if not view.pending:
            return (
                Close(f"{got} members reported, {len(view.failed)} failed") if enough else _short(view, "nobody left")
            )
        if view.deadline_in_s <= 0:
            return Close(f"deadline, with {got} updates") if enough else _short(view, "deadline")
        if enough and all(member.lost for member in view.pending):
            return Close(f"{got} members reported, lost: {', '.join(m.name for m in view.pending)}")
        return Wait()


def _short(view: RoundView, why: str) -> Fail:
    failures = "; ".join(f"{name}: {reason}" for name, reason in list(view.failed.items())[:3])
    return Fail(
        f"{why}: {len(view.reported)} updates, at least {view.min_updates} needed"
        + (f" ({failures})" if failures else "")
    )
