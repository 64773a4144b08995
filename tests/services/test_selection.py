"""Selection: how many train, and who, as a pure function of candidates, seed and round. Laws of every selector."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selection import SELECTORS, Candidate, Selector, draw_count, draw_order, in_order, target_count

TEN = [Candidate(f"id{i}", f"learner-{i}") for i in range(10)]
NEEDS: dict[str, dict[str, Any]] = {"ByLabel": {"label": "site"}}  # what a selector cannot do without
every_selector = pytest.mark.parametrize("name", SELECTORS)


def made(name: str) -> Selector:
    """The selector of that name."""
    return SELECTORS[name](**NEEDS.get(name, {}))


def with_a_past(labelled: int) -> list[Candidate]:
    """Ten candidates, so many of them with labels, who were chosen and have reported differently often."""
    sites = [{"site": "ab"[i % 2]} if i < labelled else {} for i in range(10)]
    told = [{"loss": i / 3} if i % 3 else {} for i in range(10)]
    return [Candidate(f"id{i}", f"learner-{i}", sites[i], i % 4, told[i]) for i in range(10)]


@pytest.mark.parametrize(
    ("active", "ratio", "min_updates", "expected"),
    [
        (10, 1.0, 1, 10),
        (10, 0.5, 1, 5),
        (10, 0.51, 1, 6),  # ceil(5.1)
        (10, 0.3, 1, 3),  # 0.3 · 10 is 3.0000000000000004 in no order of rounding: 3, not 4
        (100, 0.07, 1, 7),  # 0.07 · 100 is 7.000000000000001
        (10, 0.1, 3, 3),  # never fewer than the quorum
        (10, 0.001, 1, 1),
        (2, 0.5, 5, 2),  # never more than there are
        (3, 1 / 3, 1, 1),
    ],
)
def test_a_round_wants_the_share_rounded_up(active: int, ratio: float, min_updates: int, expected: int) -> None:
    """max(min_updates, ceil(r·N - 1e-9)), at most N."""
    assert target_count(active, ratio, min_updates) == expected


@pytest.mark.parametrize(
    ("target", "over", "expected"),
    [(10, 0.0, 10), (10, 0.3, 13), (10, 0.31, 14), (3, 0.5, 5), (1, 0.01, 2), (4, 2, 12)],
)
def test_over_selection_draws_that_share_more(target: int, over: float, expected: int) -> None:
    """ceil(k·(1+s)) are drawn so that k report."""
    assert draw_count(target, over) == expected


@given(active=st.integers(1, 10_000), ratio=st.floats(1e-6, 1), min_updates=st.integers(1, 100))
def test_the_count_is_within_its_bounds(active: int, ratio: float, min_updates: int) -> None:
    """Between the quorum and all, and no more than a learner above the exact share."""
    target = target_count(active, ratio, min_updates)
    assert min(active, min_updates) <= target <= active
    assert target <= max(min_updates, math.ceil(ratio * active))
    assert target >= min(active, ratio * active - 1e-9)


@every_selector
def test_everyone_trains_when_nobody_is_left_out(name: str) -> None:
    """As many as there are, or more, are all of them in their order."""
    assert made(name).select(TEN, 10, 1990, 1) == TEN
    assert made(name).select(TEN, 12, 1990, 1) == TEN


@every_selector
@given(
    count=st.integers(1, 10),
    seed=st.integers(0, 2**63 - 1),
    number=st.integers(1, 10_000),
    candidates=st.integers(0, 10).map(with_a_past) | st.just(TEN),
)
def test_a_draw_is_without_replacement_and_can_be_repeated(
    name: str, count: int, seed: int, number: int, candidates: list[Candidate]
) -> None:
    """So many different candidates, in the order of their names, and the same ones for the same arguments."""
    chosen = made(name).select(candidates, count, seed, number)
    assert len({one.id for one in chosen}) == len(chosen) == count
    assert chosen == in_order(chosen)
    assert all(one in candidates for one in chosen)
    assert made(name).select(candidates, count, seed, number) == chosen


@every_selector
def test_ids_do_not_matter(name: str) -> None:
    """The draw goes by names: a run that is repeated with learners of other ids has the same members."""
    here = with_a_past(7)
    renamed = [replace(one, id=f"other-{9 - i}") for i, one in enumerate(here)]
    for number in range(1, 6):
        names = [one.name for one in made(name).select(here, 3, 1990, number)]
        assert names == [one.name for one in made(name).select(renamed, 3, 1990, number)]


@every_selector
def test_another_seed_or_round_draws_others(name: str) -> None:
    """Neither the rounds of a run nor two runs draw the same members again and again."""
    selector = made(name)
    assert len({tuple(one.id for one in selector.select(TEN, 3, 1990, number)) for number in range(1, 21)}) > 10
    assert len({tuple(one.id for one in selector.select(TEN, 3, seed, 1)) for seed in range(20)}) > 10


@every_selector
def test_each_of_equal_candidates_is_as_likely_as_any_other(name: str) -> None:
    """Over 1000 rounds of 3 in 10 each is drawn about 300 times (six standard deviations are 87)."""
    selector = made(name)
    drawn = Counter(one.id for number in range(1, 1001) for one in selector.select(TEN, 3, 1990, number))
    assert set(drawn) == {one.id for one in TEN}
    assert all(213 <= count <= 387 for count in drawn.values())


def test_the_order_of_asking_for_weights_depends_on_names_and_seed_only() -> None:
    """Ids and the order of joining do not matter; everyone is asked once; another seed asks another first."""
    renamed = [Candidate(f"other-{one.id}", one.name) for one in reversed(TEN)]
    names = [one.name for one in draw_order(TEN, 1990)]
    assert names == [one.name for one in draw_order(renamed, 1990)]
    assert sorted(names) == [one.name for one in TEN]
    assert len({draw_order(TEN, seed)[0] for seed in range(30)}) > 5
