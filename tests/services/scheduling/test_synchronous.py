"""Synchronous: a round closes when its members have reported, or at its deadline with the quorum."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scheduling import SCHEDULERS, Close, Fail, Pending, RoundView, Verdict, Wait, waiting_text

HERE, LOST = Pending("c", False, 3.4), Pending("d", True, 61.0)


def view(
    reported: int,
    *pending: Pending,
    failed: dict[str, str] | None = None,
    target: int | None = None,
    quorum: int = 1,
    deadline_in_s: float = 60.0,
) -> RoundView:
    """A round of members of whom so many have reported."""
    failed = failed or {}
    wanted = reported + len(pending) + len(failed) if target is None else target
    return RoundView([f"r{i}" for i in range(reported)], pending, failed, wanted, quorum, deadline_in_s)


def decide(seen: RoundView) -> Verdict:
    """What Synchronous decides."""
    return SCHEDULERS["Synchronous"]().decide(seen)


def test_a_round_waits_for_every_member() -> None:
    """With a member that is here and time left it waits, quorum or not."""
    assert isinstance(decide(view(0, HERE)), Wait)
    assert isinstance(decide(view(2, HERE)), Wait)


def test_a_round_closes_when_all_reported() -> None:
    """All members' reports close it, saying how many."""
    assert decide(view(3)) == Close("3 of 3 members reported")


def test_over_selection_closes_at_the_target() -> None:
    """Of five drawn for three the first three close the round; the others are not waited for."""
    assert decide(view(3, HERE, HERE, target=3)) == Close("3 of 5 members reported")
    assert isinstance(decide(view(2, HERE, HERE, HERE, target=3)), Wait)


@pytest.mark.parametrize("deadline_in_s", [0.0, -5.0])
def test_at_the_deadline_the_quorum_is_enough(deadline_in_s: float) -> None:
    """With the quorum it closes, saying that it was the deadline; below it the round fails, saying what was needed."""
    assert decide(view(2, HERE, quorum=2, deadline_in_s=deadline_in_s)) == Close("deadline, with 2 updates")
    assert decide(view(1, HERE, quorum=2, deadline_in_s=deadline_in_s)) == Fail(
        "deadline: 1 updates, at least 2 needed"
    )


def test_a_lost_member_is_not_waited_for_with_the_quorum() -> None:
    """Lost members are left behind, by name; below the quorum they may still return before the deadline."""
    assert decide(view(2, LOST)) == Close("2 members reported, lost: d")
    assert isinstance(decide(view(1, LOST, quorum=2)), Wait)
    assert isinstance(decide(view(2, LOST, HERE)), Wait)


def test_a_failed_member_is_not_waited_for() -> None:
    """Those that reported are enough with the quorum; without it the round fails at once, with their reasons."""
    assert decide(view(2, failed={"x": "out of memory"})) == Close("2 members reported, 1 failed")
    assert decide(view(1, failed={"x": "out of memory"}, quorum=2)) == Fail(
        "nobody left: 1 updates, at least 2 needed (x: out of memory)"
    )
    assert isinstance(decide(view(0, failed={"x": "out of memory"})), Fail)


def test_waiting_says_for_whom_and_how_long() -> None:
    """Who is missing, since when each was heard of, and when the wait ends."""
    assert waiting_text(view(2, Pending("learner-2", False, 41.2), deadline_in_s=79)) == (
        "waiting for 1 more of 3: learner-2, last seen 41 s ago, round closes in 79 s"
    )
    assert waiting_text(view(1, HERE, LOST)) == (
        "waiting for 2 more of 3: c, last seen 3 s ago; d (lost), last seen 61 s ago; round closes in 60 s"
    )
    assert "; e, last seen 0 s ago; 2 others; round" in waiting_text(
        view(0, HERE, LOST, Pending("e", False, 0), HERE, HERE)
    )


def test_of_more_members_than_are_wanted_any_will_do() -> None:
    """With over-selection the number is that of the updates still wanted, not of the members still at work."""
    assert waiting_text(view(1, HERE, LOST, target=2)).startswith("waiting for 1 more of 2, any of these: c, last seen")


@given(
    reported=st.integers(0, 5),
    lost=st.lists(st.booleans(), max_size=5),
    failures=st.integers(0, 3),
    quorum=st.integers(1, 5),
    over=st.integers(0, 2),
    deadline_in_s=st.floats(-10, 10),
)
def test_no_round_waits_without_a_bound_or_closes_below_the_quorum(
    reported: int, lost: list[bool], failures: int, quorum: int, over: int, deadline_in_s: float
) -> None:
    """It waits only before the deadline for somebody; closes only with the quorum; fails only without."""
    members = reported + len(lost) + failures
    target = min(members, max(quorum, members - over))
    pending = [Pending(f"p{i}", gone, 1.0) for i, gone in enumerate(lost)]
    failed = {f"f{i}": "why" for i in range(failures)}
    verdict = decide(view(reported, *pending, failed=failed, target=target, quorum=quorum, deadline_in_s=deadline_in_s))
    if isinstance(verdict, Wait):
        assert deadline_in_s > 0
        assert pending
        assert reported < target
    else:
        assert isinstance(verdict, Close) == (reported >= quorum or (reported >= target > 0) or members == 0)
