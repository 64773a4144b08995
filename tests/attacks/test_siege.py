"""`make attacks`: a minute of each attack beside an honest federation, which goes on as if it were not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.attacks.attackers import ATTACKS
from tests.attacks.figures import Figures, load, table, write
from tests.attacks.siege import NOBODY, Outcome, Siege
from tests.docs.pages import ROOT

MEASURED = ROOT / "docs" / "security" / "figures.jsonl"
SLOWER = 1.2  # rounds, at most
LONGEST_S = 36.0  # a round in which eight learners take all slots for the first time
GROWTH = 5.0  # percent beyond the same federation without the attack, at most
in_full = pytest.mark.skipif(os.environ.get("METIS_ATTACKS") != "all", reason="`make attacks` runs it")


def figures_of(one: Outcome) -> Figures:
    """What is told of it."""
    memory, folder = (
        100 * (late / early - 1)
        for early, late in ((one.early.memory, one.late.memory), (one.early.folder, one.late.folder))
    )
    return Figures(
        one.attack,
        one.rounds,
        round(one.round_s, 3),
        round(one.beside_dummy_s, 3),
        round(one.longest_s, 3),
        len(one.lost),
        round(memory, 1),
        round(folder, 1),
    )


def told(one: Figures) -> None:
    """Add it to the file that ATTACK_FIGURES names, if it does."""
    if file := os.environ.get("ATTACK_FIGURES"):
        write(Path(file), one)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """The same federation, which nobody attacks."""
    found = figures_of(Siege(tmp_path_factory.mktemp("unharmed"), NOBODY).outcome())
    told(found)
    return found


@in_full
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_honest_federation_goes_on(attack: str, unharmed: Figures, tmp_path: Path) -> None:
    """Its rounds are hardly slower than beside the same attackers aimed at a dummy, nobody is lost, its model is its
    own, and the controller does not grow."""
    outcome = Siege(tmp_path, attack).outcome()
    found = figures_of(outcome)
    told(found)
    assert (outcome.lost, outcome.others, outcome.intact) == ([], [], True)
    assert found.ratio <= SLOWER
    assert found.longest_s <= LONGEST_S
    assert found.memory_percent <= unharmed.memory_percent + GROWTH
    assert found.folder_percent <= unharmed.folder_percent + GROWTH


def test_page_shows_what_was_measured() -> None:
    """docs/security.md has the table of the figures beside it, of each attack, as `scripts/attacks` writes it."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- attacks: table -->\n")[2].partition("<!-- attacks: end -->")[0]
    figures = load(MEASURED)
    assert shown.strip() == table(figures)
    assert [one.attack for one in figures] == [NOBODY, *ATTACKS]
    assert all(one.ratio <= SLOWER and not one.lost for one in figures)
