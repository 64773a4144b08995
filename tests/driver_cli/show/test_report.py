"""The report: a table and a curve in text."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from driver_cli.show.report import BLOCKS, curve, report
from driver_cli.show.tables import columns, learners, rounds
from driver_cli.show.words import put_aside, round_line, round_title
from services import messages as m

from .example_run import results


def test_table_has_a_line_a_round_with_every_score() -> None:
    """Columns line up; a missing score is a dash; the driver's own scores have columns of their own."""
    lines = report(results(0.5, 0.75), {2: {"accuracy": 0.7}}).splitlines()
    assert lines[0].split() == ["round", "learners", "train", "loss", "accuracy", "loss", "central", "accuracy", "time"]
    assert lines[1].split() == ["1/2", "1/2", "0.5", "0.5", "-", "-", "2.50", "s"]
    assert lines[2].split() == ["2/2", "1/2", "0.5", "0.75", "-", "0.7", "2.50", "s"]
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[-1] == "run r1 completed: 3 rounds are done"


def test_factors_that_were_capped_are_named() -> None:
    """With the round, what the learner said and what it counted: in the report, the table of rounds, in lines."""
    found = results(0.5, 0.75)
    first = found.rounds[0].model_copy(update={"capped": {"a": m.Capped(factor=2.0**53, counts=550_000.0)}})
    told = "a's factor 9.0072e+15 counts as 550000"
    found = found.model_copy(update={"rounds": [first, found.rounds[1]]})
    for text in (report(found), rounds(found.run, found.rounds)):
        assert f"scaling factors that were capped (schedule.factor_cap):\nround 1/2: {told}\n" in text
    assert round_line(found.run.config, first).endswith(told)
    assert "factor" not in report(results(0.5, 0.75))


def test_rounds_that_failed_are_named() -> None:
    """With the reason, and that the model stayed; they are none of those that a run is to make."""
    found = results(0.5, 0.75)
    failed = found.rounds[0].model_copy(update={"model": None, "failure": "the step overflows"})
    found = found.model_copy(update={"rounds": [failed, found.rounds[1]]})
    for text in (report(found), rounds(found.run, found.rounds)):
        assert "rounds that failed:\nround 1/2: no model, the one before stays: the step overflows\n" in text
    assert "no model: the step overflows" in round_line(found.run.config, failed)
    assert round_title(found.run.config, 3) == "3"


def test_learners_that_get_no_tasks_are_named_with_what_to_do() -> None:
    """In the list of learners and in the status; one that is failing is marked."""
    known = [
        m.Learner(id=name, name=name, state="active", joined_at="", last_seen="", last_seen_s=1.0, **more)
        for name, more in {
            "a": {},
            "b": {"health": "failing"},
            "c": {"health": "aside", "health_reason": "its updates were refused"},
        }.items()
    ]
    lines = learners(known).splitlines()
    assert [re.split("  +", line)[1] for line in lines[1:4]] == ["active", "active, failing", "active, aside"]
    assert lines[4:] == [
        "",
        "c is put aside and gets no tasks: its updates were refused; once that is mended, `metis readmit c` or its"
        " restart lets it back",
    ]
    assert put_aside(known) == lines[5:]


def test_curve_spans_round_numbers_around_the_values() -> None:
    """From 0.5 to 1: the middle value fills half of the six lines, the lowest is a thin line, the highest fills all."""
    lines = curve([(1, 0.5), (2, 0.75), (3, 1.0)], "accuracy").splitlines()
    assert lines[0] == "accuracy: 0.5 to 1"
    assert [line.partition("┤")[0].strip() for line in lines[1:7]] == ["1", "", "", "", "", "0.5"]
    columns_ = [line.partition("┤")[2][::6] for line in lines[1:7]]
    assert columns_ == ["  █", "  █", "  █", " ██", " ██", "▁██"]
    assert lines[7].endswith("round 1 to 3")


def test_curve_of_many_rounds_is_thinned_and_keeps_the_last() -> None:
    """A thousand rounds fit the width of a terminal."""
    lines = curve([(n, float(n)) for n in range(1, 1001)], "loss").splitlines()
    assert max(map(len, lines)) <= 90
    assert lines[0] == "loss: 14 to 1000"
    assert lines[-1].endswith("to 1000")


def test_equal_values_and_single_rounds_are_no_trouble() -> None:
    """A flat curve is drawn; one round has no curve."""
    assert curve([(1, 3.0), (2, 3.0)], "loss").splitlines()[0] == "loss: 3 to 3"
    assert "┤" not in report(results(0.5))
    assert columns([["a", "bb"], ["ccc", "d"]]) == "  a  bb\nccc   d"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=70))
@example([0.9555555555555556, 0.9555555555555557])  # one bit apart: once a division by zero
@example([-1.7e308, 1.7e308])
@example([5e-324, 1e-323])
def test_any_scores_have_a_curve(values: list[float]) -> None:
    """Whatever learners report is drawn in six lines, every column within them."""
    lines = curve(list(enumerate(values, 1)), "score").splitlines()
    assert len(lines) == 8
    assert all(set(line.partition("┤")[2]) <= set(BLOCKS) for line in lines[1:7])
