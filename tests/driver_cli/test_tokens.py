"""A controller that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Federation, metis

OPERATOR = "operator-token-of-the-tests"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A controller with tokens and no learner."""
    federation = Federation(tmp_path_factory.mktemp("guarded"))
    try:
        federation.start_controller(METIS_OPERATOR_TOKEN=OPERATOR, METIS_ENROLL_TOKEN="enrolment-token-of-the-tests")
        federation.wait_for(0, OPERATOR)
        yield federation
    finally:
        federation.end()


def test_without_a_token_or_with_a_wrong_one_the_command_is_refused(guarded: Federation, tmp_path: Path) -> None:
    """The message says how to give the token, and does not repeat it."""
    for token in ((), ("--token", "wrong-wrong-wrong-wrong")):
        done = metis("status", "--controller", guarded.url, *token, cwd=tmp_path)
        assert done.returncode == 2
        assert "--token-file" in done.stderr
        assert "wrong-wrong" not in done.stderr


def test_token_comes_by_option_file_or_environment(guarded: Federation, tmp_path: Path) -> None:
    """Each way is good, a file best: it is not in the list of processes."""
    (tmp_path / "token").write_text(OPERATOR + "\n")
    for arguments, environment in (
        (("--token", OPERATOR), {}),
        (("--token-file", "token"), {}),
        ((), {"METIS_TOKEN": OPERATOR}),
        ((), {"METIS_TOKEN_FILE": "token"}),
        ((), {"METIS_OPERATOR_TOKEN": OPERATOR}),
        ((), {"METIS_OPERATOR_TOKEN_FILE": "token"}),
    ):
        done = metis("status", "--controller", guarded.url, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 0, done.stderr


def test_learners_that_do_not_come_fail_the_run_within_the_bound(guarded: Federation, tmp_path: Path) -> None:
    """The driver says who is missing, and its bound on the wait is the run's."""
    done = metis(
        *("run", "--controller", guarded.url, "--learners", "2", "--rounds", "1", "--learners-timeout", "1"),
        cwd=tmp_path,
        METIS_TOKEN=OPERATOR,
    )
    assert done.returncode == 1
    assert "2 more of 2 learners" in done.stdout
    assert "failed" in done.stdout
