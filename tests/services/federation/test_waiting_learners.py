"""Leases of learners whose polls wait."""

from __future__ import annotations

from tests.services.fleet import START, Fleet

LEASE_S = 30.0  # the default


def state_after(fleet: Fleet, seconds: float) -> str:
    """Of the learner "a", so much later."""
    fleet.now += seconds
    fleet.federation.tick(fleet.now)
    return fleet.federation.roster.get(fleet.ids["a"]).state


def test_a_learner_whose_poll_waits_is_here() -> None:
    """However long; and it was heard of now."""
    fleet = Fleet("a")
    fleet.federation.waits(fleet.ids["a"], 1)
    assert state_after(fleet, 100 * LEASE_S) == "active"
    member = fleet.federation.roster.get(fleet.ids["a"])
    assert fleet.federation.learner_message(member, fleet.now).last_seen_s == 0.0


def test_its_lease_begins_when_the_last_of_its_polls_ends() -> None:
    """Of two polls one may end; after the other the lease runs as ever."""
    fleet = Fleet("a")
    one = fleet.ids["a"]
    fleet.federation.waits(one, 1)
    fleet.federation.waits(one, 1)
    fleet.now += 10 * LEASE_S
    fleet.federation.waits(one, -1)
    assert state_after(fleet, 10 * LEASE_S) == "active"
    fleet.federation.waits(one, -1)
    fleet.federation.renew(one, fleet.now)
    assert state_after(fleet, LEASE_S - 1) == "active"
    assert state_after(fleet, 2) == "lost"


def test_the_next_deadline_is_never_after_a_lease_that_ends() -> None:
    """Whoever joins, waits or is heard of in between: a silent learner is lost at the end of its lease."""
    fleet = Fleet("a")
    for number in range(20):
        fleet.now += LEASE_S / 25
        other = fleet.join(f"other-{number}").id
        fleet.federation.waits(other, 1)
        deadline = fleet.federation.next_deadline()
        assert deadline is not None
        assert deadline <= START + LEASE_S
    assert state_after(fleet, 4 * LEASE_S / 25) == "active"
    deadline = fleet.federation.next_deadline()
    assert deadline is not None
    assert deadline <= fleet.now + LEASE_S / 25 + 1e-6
    assert state_after(fleet, LEASE_S / 25) == "lost"
