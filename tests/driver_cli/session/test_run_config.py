"""The run's configuration from a file, options, a condition and Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from driver_cli.session import run_config
from driver_cli.session.driver_session import DriverSession
from driver_cli.session.run_config import of_condition
from services import ServerParams, TerminationSignals
from services.errors import InvalidConfig


def test_set_takes_toml_values_and_plain_words() -> None:
    """Numbers, booleans, lists and strings are TOML; a word needs no quotes; paths make nested tables."""
    given = run_config.of_options(
        ["train.lr=0.01", "train.nested.on=true", "train.sizes=[1, 2]", "selector=All", 'name="a b"']
    )
    assert given == {
        "train": {"lr": 0.01, "nested": {"on": True}, "sizes": [1, 2]},
        "selector": "All",
        "name": "a b",
    }


@pytest.mark.parametrize("text", ["train.lr", "=1", "train..lr=1", "train.lr=0.0.1", "name=a b"])
def test_set_that_cannot_be_read_is_refused(text: str) -> None:
    """A mistyped assignment is refused, and repeated in the message."""
    with pytest.raises(InvalidConfig, match="--set"):
        run_config.of_options([text])


def test_options_go_before_the_file_and_set_before_both(tmp_path: Path) -> None:
    """file < option < --set, key by key."""
    file = tmp_path / "federation.toml"
    file.write_text("min_learners = 3\nseed = 7\n[termination]\nfederation_rounds = 5\npatience_rounds = 2\n")
    given = {"rounds": 8, "learners": 4, "until": "loss<=0.1"}
    assert run_config.of_command_line(file, given, ["seed=9"]) == {
        "min_learners": 4,
        "seed": 9,
        "termination": {
            "federation_rounds": 8,
            "patience_rounds": 2,
            "evaluation_metric": "loss",
            "evaluation_metric_cutoff_score": 0.1,
            "evaluation_metric_mode": "min",
        },
    }


def test_unknown_key_names_the_nearest() -> None:
    """A mistyped key is refused before anything is sent."""
    with pytest.raises(InvalidConfig, match="min_learners"):
        run_config.of_command_line(None, {}, ["min_learner=3"])


def test_session_sends_only_what_its_user_wrote() -> None:
    """A list of learners counts, `is_async` names the scheduler, and the controller's defaults stay its own."""
    learners = [ServerParams(), ServerParams()]
    session = DriverSession(
        "localhost:8080", learners, TerminationSignals(federation_rounds=3), is_async=True, token="t"
    )
    assert session.config == {
        "min_learners": 2,
        "scheduler": "Asynchronous",
        "termination": {"federation_rounds": 3},
        "schedule": {"join_deadline_s": 600.0},
    }


def test_session_leaves_min_learners_of_its_configuration() -> None:
    """Three learners may be expected and two be enough."""
    assert DriverSession("localhost:8080", 3, config={"min_learners": 2}).config["min_learners"] == 2


@pytest.mark.parametrize(
    ("text", "metric", "score", "mode"),
    [
        ("accuracy>=0.9", "accuracy", 0.9, "max"),
        ("loss<=0.2", "loss", 0.2, "min"),
        ("  f1.macro  >=  -1e-3 ", "f1.macro", -0.001, "max"),
        ("loss<=0", "loss", 0.0, "min"),
    ],
)
def test_condition_becomes_signals(text: str, metric: str, score: float, mode: str) -> None:
    """Metric, score and direction are read from the condition; 0 is a score like any other."""
    assert of_condition(text) == {
        "evaluation_metric": metric,
        "evaluation_metric_cutoff_score": score,
        "evaluation_metric_mode": mode,
    }


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy>0.9", "accuracy=0.9", ">=0.9", "a>=b", "a>=nan", "a>=inf"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """What is no condition says how to write one."""
    with pytest.raises(InvalidConfig, match=r"accuracy>=0\.9"):
        of_condition(text)
