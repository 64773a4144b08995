"""When a round closes: a scheduler looks at who has reported and decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from .timings import check_timings

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


@dataclass(frozen=True)
class SemiSynchronous(Synchronous):
    """As Synchronous; from the second round on every member has a step budget, so that they take about as long."""

    def check_update(self, metadata: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Raise InvalidWeight, naming the key, for an update without its timings."""
        check_timings(metadata)


@dataclass(frozen=True)
class Asynchronous:
    """Whoever has reported gets its next task at once; see streaming.py. A round is one community model."""

    streams: ClassVar[bool] = True

    def decide(self, view: RoundView) -> Verdict:
        """Nothing is waited for once there are updates enough for a community model."""
        return Close(f"{len(view.reported)} updates arrived") if len(view.reported) >= view.target else Wait()


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


def _short(view: RoundView, why: str) -> Fail:
    failures = "; ".join(f"{name}: {reason}" for name, reason in list(view.failed.items())[:3])
    return Fail(
        f"{why}: {len(view.reported)} updates, at least {view.min_updates} needed"
        + (f" ({failures})" if failures else "")
    )


SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "Synchronous": Synchronous,
    "SemiSynchronous": SemiSynchronous,
    "Asynchronous": Asynchronous,
}
