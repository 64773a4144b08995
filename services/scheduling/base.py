"""A scheduler looks at who has reported and decides whether the round goes on; what it waits for, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

NAMED = 3  # missing members that are named; the rest is counted


class Pending(NamedTuple):
    """A member that has not reported yet."""

    name: str
    lost: bool
    silent_s: float  # since it was last heard of


@dataclass(frozen=True)
class RoundView:
    """A round in training, as a scheduler sees it. Times in seconds."""

    reported: Sequence[str]
    pending: Sequence[Pending]  # each is looked up when it is asked for: most decisions need their number only
    failed: Mapping[str, str]  # learner to reason
    target: int  # updates wanted
    min_updates: int  # quorum
    deadline_in_s: float


@dataclass(frozen=True)
class Wait:
    """Go on waiting."""


@dataclass(frozen=True)
class Close:
    """Aggregate what has been reported."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """The round cannot be saved."""

    reason: str


Verdict = Wait | Close | Fail


class Scheduler(Protocol):
    """Decides whether a round goes on. One under which there are no rounds to wait for says `streams = True`."""

    def decide(self, view: RoundView) -> Verdict:
        """A pure function of the view; asked after every change and at the deadline."""
        ...


def streams(scheduler: Scheduler) -> bool:
    """Whether learners go on by themselves."""
    return bool(getattr(scheduler, "streams", False))


def waiting_text(view: RoundView) -> str:
    """What a round waits for, in words."""
    got = len(view.reported)
    more = min(max(1, view.target - got), len(view.pending))
    some = "" if more == len(view.pending) else ", any of these"
    ends = f"round closes in {max(0.0, view.deadline_in_s):.0f} s"
    return wait_text(f"{more} more of {got + more}{some}", view.pending, ends)


def wait_text(what: str, pending: Sequence[Pending], ends: str) -> str:
    """A wait as people read it: `waiting for 1 more of 3: a, last seen 41 s ago, round closes in 79 s`."""
    return f"waiting for {what}: {missing(pending) or 'nobody'}{';' if len(pending) > 1 else ','} {ends}"


def missing(pending: Sequence[Pending]) -> str:
    """Who has not reported, and since when they are silent: `a, last seen 3 s ago; b (lost), last seen 41 s ago`."""
    named = [f"{m.name}{' (lost)' if m.lost else ''}, last seen {m.silent_s:.0f} s ago" for m in pending[:NAMED]]
    others = len(pending) - NAMED
    return "; ".join(named) + (f"; {others} other{'s' if others > 1 else ''}" if others > 0 else "")
