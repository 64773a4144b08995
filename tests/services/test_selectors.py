"""RoundRobin, ByLabel and PowerOfChoice: who is chosen, by hand and as a run goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidConfig
from services.federation import RunState, check_names
from services.selection import ByLabel, Candidate, PowerOfChoice, RoundRobin
from tests.services.federation.test_plan import configured
from tests.services.fleet import Fleet

SITE = ByLabel("site")


def names(chosen: list[Candidate]) -> list[str]:
    """Their names."""
    return [one.name for one in chosen]


def members(run: RunState) -> list[list[str]]:
    """Who trained in each round."""
    return [[task.learner for task in one.train.values()] for one in run.rounds]


def selecting(fleet: Fleet, selector: str, ratio: float, **parameters: Any) -> RunState:
    """A run in round 1 that does not evaluate."""
    return fleet.train(
        selector=selector,
        selection={"participation_ratio": ratio, "parameters": parameters},
        termination={"federation_rounds": 20},
        evaluation={"every": 0},
    )


def next_round(fleet: Fleet, run: RunState, **losses: float | None) -> list[str]:
    """The members of the round train, reporting these losses; who they were."""
    drawn = members(run)[-1]
    for name in drawn:
        told: dict[str, Any] = {"loss": losses[name]} if name in losses else {}
        fleet.do(name, **told)
    fleet.aggregate()
    return drawn


# ---- RoundRobin
def test_round_robin_takes_those_chosen_least_often() -> None:
    """Two that were chosen once go before three that were chosen twice, whatever the draw says."""
    often = {"a": 2, "b": 1, "c": 2, "d": 1, "e": 2}
    candidates = [Candidate(name, name, chosen=times) for name, times in often.items()]
    for number in range(1, 20):
        chosen = names(RoundRobin().select(candidates, 3, 1990, number))
        assert {"b", "d"} < set(chosen)
        assert names(RoundRobin().select(candidates, 2, 1990, number)) == ["b", "d"]
    thirds = {names(RoundRobin().select(candidates, 3, 1990, number))[0] for number in range(1, 20)}
    assert "a" in thirds  # ties are drawn
    assert "b" in thirds


@given(learners=st.integers(1, 12), count=st.integers(1, 12), seed=st.integers(0, 2**32), rounds=st.integers(1, 15))
def test_round_robin_keeps_everyone_within_one_round(learners: int, count: int, seed: int, rounds: int) -> None:
    """After any number of rounds nobody was chosen two times more often than another."""
    candidates = [Candidate(f"{i}", f"{i:02}") for i in range(learners)]
    for number in range(1, rounds + 1):
        chosen = set(names(RoundRobin().select(candidates, min(count, learners), seed, number)))
        candidates = [replace(one, chosen=one.chosen + (one.name in chosen)) for one in candidates]
    times = [one.chosen for one in candidates]
    assert max(times) - min(times) <= 1
    assert sum(times) == rounds * min(count, learners)


def test_a_run_takes_turns() -> None:
    """Six learners, two a round: in every three rounds each trains once. A newcomer is next."""
    fleet = Fleet(*"abcdef")
    run = selecting(fleet, "RoundRobin", 1 / 3)
    for _ in range(2):
        assert sorted(name for _ in range(3) for name in next_round(fleet, run)) == list("abcdef")
    fleet.join("g")
    next_round(fleet, run)
    assert "g" in next_round(fleet, run)


def test_another_run_draws_the_same_turns_and_a_name_keeps_its_turn() -> None:
    """A federation with other ids has the same members; a learner that enrols again under its name is not new."""
    drawn = []
    for learners in ("abcde", "edcba"):
        fleet = Fleet(*learners)
        run = selecting(fleet, "RoundRobin", 0.4)
        for number in range(10):
            if number == 3:
                again = next(name for name in learners if name not in members(run)[-1])
                fleet.leave(again)
                fleet.join(again)
            next_round(fleet, run)
        drawn.append(members(run)[:10])
        assert set(Counter(name for one in drawn[-1] for name in one).values()) == {4}
    assert drawn[0] == drawn[1]


# ---- ByLabel
def labelled(**sizes: int) -> list[Candidate]:
    """So many candidates of each site; `none`: without the label."""
    made = [
        Candidate(f"{site}{i}", f"{site}{i:03}", {} if site == "none" else {"site": site, "other": str(i)})
        for site, size in sizes.items()
        for i in range(size)
    ]
    return sorted(made, key=lambda one: one.name)


def by_site(chosen: list[Candidate]) -> dict[str, int]:
    """How many of each site."""
    return dict(Counter(one.labels.get("site", "none") for one in chosen))


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),  # the exact shares
        ({"a": 50, "b": 30, "none": 20}, 10, {"a": 5, "b": 3, "none": 2}),  # no label is a group too
        ({"a": 98, "b": 1, "c": 1}, 10, {"a": 8, "b": 1, "c": 1}),  # at least one each: more than their share
        ({"a": 7, "b": 3}, 4, {"a": 3, "b": 1}),  # 2.8 and 1.2
        ({"a": 1, "b": 1, "c": 4}, 5, {"a": 1, "b": 1, "c": 3}),  # never more than there are
        ({"a": 6}, 2, {"a": 2}),
    ],
)
def test_each_site_gets_its_share(sizes: dict[str, int], count: int, expected: dict[str, int]) -> None:
    """The same in every round: only who of a site is chosen changes."""
    for number in range(1, 10):
        assert by_site(SITE.select(labelled(**sizes), count, 1990, number)) == expected


def test_fewer_places_than_sites_go_to_sites_that_are_drawn() -> None:
    """Two places, five sites: two different ones each time, and all of them in time."""
    candidates = labelled(a=40, b=1, c=1, d=1, none=1)
    drawn = [by_site(SITE.select(candidates, 2, 1990, number)) for number in range(1, 60)]
    assert all(set(one.values()) == {1} and len(one) == 2 for one in drawn)
    assert {site for one in drawn for site in one} == {"a", "b", "c", "d", "none"}


@given(
    sizes=st.dictionaries(st.sampled_from(["a", "b", "c", "d", "none"]), st.integers(1, 20), min_size=1),
    count=st.integers(1, 60),
    number=st.integers(1, 1000),
)
def test_shares_are_near_the_exact_ones(sizes: dict[str, int], count: int, number: int) -> None:
    """With enough places everyone has one; beyond that a site has less than one place more than its exact share."""
    candidates, total = labelled(**sizes), sum(sizes.values())
    count = min(count, total)
    got = by_site(SITE.select(candidates, count, 1990, number))
    assert sum(got.values()) == count
    if count < len(sizes):
        assert set(got.values()) == {1}
        return
    assert set(got) == set(sizes)
    for site, places in got.items():
        assert places <= sizes[site]
        assert places == 1 or places < count * sizes[site] / total + 1


def test_a_label_that_nobody_has_is_a_plain_draw() -> None:
    """One group: everyone is as likely as any other."""
    candidates = labelled(a=5, b=5)
    drawn = Counter(one.id for n in range(300) for one in ByLabel("region").select(candidates, 2, 1990, n))
    assert len(drawn) == 10


def test_a_run_draws_by_the_labels_of_the_registration() -> None:
    """Of eight learners at one site and two at another four train: three and one."""
    fleet = Fleet()
    for i in range(10):
        fleet.join(f"learner-{i}", labels={"site": "small" if i in (3, 7) else "large"})
    run = selecting(fleet, "ByLabel", 0.4, label="site")
    drawn = [next_round(fleet, run) for _ in range(5)]
    assert [len({"learner-3", "learner-7"} & set(one)) for one in drawn] == [1] * 5
    assert {len(one) for one in drawn} == {4}


# ---- PowerOfChoice
def test_power_of_choice_keeps_the_highest_losses_of_those_drawn() -> None:
    """With every candidate drawn the three worst are chosen, whatever round it is; equal ones are drawn."""
    losses = [0.1, 0.9, 0.5, 0.7, 0.2, 0.5]
    candidates = [Candidate(f"{i}", f"{i}", metrics={"loss": loss}) for i, loss in enumerate(losses)]
    chosen = {tuple(names(PowerOfChoice(6).select(candidates, 3, 1990, number))) for number in range(1, 30)}
    assert chosen == {("1", "2", "3"), ("1", "3", "5")}
    assert names(PowerOfChoice(100).select(candidates, 2, 1990, 1)) == ["1", "3"]


def test_it_chooses_among_those_drawn_only() -> None:
    """Two candidates drawn of ten, one kept: the worst of all is chosen in about a fifth of the rounds, not always.

    500 rounds, 100 expected, nine standard deviations are 81. The best of all is never the higher of two.
    """
    candidates = [Candidate(f"{i}", f"{i}", metrics={"loss": float(i)}) for i in range(10)]
    drawn = Counter(names(PowerOfChoice(2).select(candidates, 1, 1990, number))[0] for number in range(500))
    assert 19 < drawn["9"] < 181
    assert drawn["0"] == 0
    assert drawn["9"] > drawn["4"] > drawn["1"]


def test_fewer_candidates_than_places_is_a_plain_draw_and_the_default_is_twice_as_many() -> None:
    """Whoever is drawn is chosen; unset, two in ten are the worst two of four."""
    candidates = [Candidate(f"{i}", f"{i}", metrics={"loss": float(i)}) for i in range(10)]
    seen = {one for number in range(1, 60) for one in names(PowerOfChoice(1).select(candidates, 3, 1990, number))}
    assert seen == {f"{i}" for i in range(10)}
    for number in range(1, 20):
        assert PowerOfChoice().select(candidates, 2, 7, number) == PowerOfChoice(4).select(candidates, 2, 7, number)


def test_learners_that_told_nothing_come_first() -> None:
    """Nobody is left out for what is not known of it; another metric may be the one that counts."""
    told: dict[str, dict[str, float]] = {"a": {"loss": 9.0}, "b": {"accuracy": 0.5}, "c": {"loss": 1.0}, "d": {}}
    candidates = [Candidate(name, name, metrics=metrics) for name, metrics in told.items()]
    assert names(PowerOfChoice(4).select(candidates, 2, 1990, 1)) == ["b", "d"]
    assert names(PowerOfChoice(4).select(candidates, 3, 1990, 1)) == ["a", "b", "d"]
    by_accuracy = PowerOfChoice(4, metric="accuracy").select(candidates, 3, 1990, 1)
    assert names(by_accuracy) == ["a", "c", "d"]


def test_a_run_goes_to_the_learners_that_are_worst_off() -> None:
    """Everyone once, then the two with the highest loss of their last update; a loss of null does not count."""
    fleet = Fleet(*"abcdef")
    run = selecting(fleet, "PowerOfChoice", 1 / 3, candidates=6)
    losses = {"a": 0.3, "b": 0.8, "c": 0.1, "d": 0.6, "e": 0.2, "f": 0.4}
    first = [name for _ in range(3) for name in next_round(fleet, run, **losses)]
    assert sorted(first) == list("abcdef")
    assert next_round(fleet, run, b=None, d=0.05) == ["b", "d"]
    assert next_round(fleet, run, b=0.02, f=0.01) == ["b", "f"]  # null told nothing new of b
    assert next_round(fleet, run) == ["a", "e"]


# ---- their parameters
@pytest.mark.parametrize(
    ("selector", "parameters", "why"),
    [
        ("ByLabel", {}, "ByLabel needs label"),
        ("ByLabel", {"label": ""}, "label must be a text, got ''"),
        ("ByLabel", {"label": 3}, "label must be a text, got 3"),
        ("PowerOfChoice", {"candidates": 0}, "candidates must be a whole number of at least 1, got 0"),
        ("PowerOfChoice", {"candidates": 2.5}, "candidates must be a whole number .* got 2.5"),
        ("PowerOfChoice", {"candidates": True}, "candidates must be a whole number .* got True"),
        ("PowerOfChoice", {"metric": ["loss"]}, "metric must be a text"),
        ("RoundRobin", {"label": "site"}, "RoundRobin does not take .*label"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(selector: str, parameters: dict[str, Any], why: str) -> None:
    """The sentence names the table, the selector and the value."""
    with pytest.raises(InvalidConfig, match=f"selection.parameters: .*{why}"):
        check_names(configured(selector=selector, selection={"parameters": parameters}))
