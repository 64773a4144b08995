"""`metis-learner` as a command, `app()` as a script calls it, and how they end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from learner_agent import app
from learner_agent.__main__ import cli
from learner_agent.loading import make
from learner_agent.run import Membership, secret
from services import ServerParams
from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, free_port, serve, until
from tests.learner_agent.homework import Pupil

HERE = Path(__file__).parents[2]
PUPIL = "tests.learner_agent.homework:Pupil"
DIGITS = "learner_agent.digits:digits_learner"


def pupil(start: Callable[..., Process], url: str, name: str = "pupil", **environment: str) -> Process:
    """`metis-learner` as a process."""
    arguments = ("-m", "learner_agent", "--controller", url, "--learner", PUPIL, "--name", name)
    return start(name, *arguments, cwd=HERE, **environment)


# ---- the command line
def test_help_names_every_flag() -> None:
    """And how to give the token, which is no flag: arguments are seen by every user of a machine."""
    shown = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    for word in ("--controller", "--learner", "--name", "--state-dir", "--process", "--label", "METIS_ENROLL_TOKEN"):
        assert word in shown.output
    assert "--token" not in shown.output


@pytest.mark.parametrize("process", [[], ["--process"]], ids=["thread", "process"])
@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("digits", "write it as module:factory, for example learner_agent.digits:digits_learner"),
        (":digits", "write it as module:factory"),
        ("no_such_module:learner", ": "),  # the words of Python's import
        ("learner_agent.digits:nobody", ": "),
        ("builtins:dict", "dict is no learner: it lacks get_weights, set_weights, train, evaluate"),
        ("tests.learner_agent.homework:broken", "METIS_SHARD must be a whole number"),
    ],
)
def test_a_bad_learner_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, process: list[str], spec: str, says: str
) -> None:
    """Exit status 2; no traceback, nothing left on disk."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(cli, ["--learner", spec, *process])
    assert ended.exit_code == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith(f"metis-learner: --learner {spec}: ")
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label", "north"], "--label north: write key=value"),
        (["--label", "=north"], "--label =north: write key=value"),
        (["--callback-url", "http://a/b"], "a callback URL needs a place to listen"),
    ],
)
def test_bad_flags_are_told_in_a_line(flags: list[str], says: str) -> None:
    """Exit status 2."""
    ended = CliRunner().invoke(cli, ["--learner", DIGITS, *flags])
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_learner_is_needed() -> None:
    """Exit status 2, naming the flag."""
    ended = CliRunner().invoke(cli, [])
    assert ended.exit_code == 2
    assert "--learner" in ended.stderr


def test_a_factory_may_be_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a script of the user's."""
    (tmp_path / "my_own_learner.py").write_text("from learner_agent.digits import digits_learner as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    assert type(make("my_own_learner:mine")).__name__ == "DigitsLearner"


# ---- membership
def test_a_membership_does_not_show_its_token() -> None:
    """Neither in a log nor in an error."""
    assert "secret" not in repr(Membership("http://localhost", token="secret-of-anna"))


def test_a_callback_url_needs_a_place_to_listen() -> None:
    """Nothing would hear it."""
    with pytest.raises(ValueError, match="needs a place to listen"):
        app(Pupil(), callback_url="http://learner.example/poll-now")
    assert Membership("http://c", listen=ServerParams("127.0.0.1", 0), callback_url="http://l/").callback_url


def test_a_secret_is_read_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable first, then the file that `<variable>_FILE` names, without its last newline."""
    (tmp_path / "token").write_text("from-a-file\n")
    monkeypatch.delenv("METIS_ENROLL_TOKEN", raising=False)
    assert secret("METIS_ENROLL_TOKEN") is None
    monkeypatch.setenv("METIS_ENROLL_TOKEN_FILE", str(tmp_path / "token"))
    assert secret("METIS_ENROLL_TOKEN") == "from-a-file"
    monkeypatch.setenv("METIS_ENROLL_TOKEN", "from-the-variable")
    assert secret("METIS_ENROLL_TOKEN") == "from-the-variable"


# ---- processes
async def test_a_learner_process_waits_for_its_controller(start: Callable[..., Process], tmp_path: Path) -> None:
    """Started first, it says that it waits, and takes part when there is a controller."""
    port = free_port()
    learner = pupil(start, f"http://127.0.0.1:{port}")

    async def waits() -> bool:
        return "waiting for the controller" in learner.tail()

    await until(waits, 20)
    served = serve(start, tmp_path, port=port)
    async with Client(served.url) as client:
        await client.start_run({"termination": {"federation_rounds": 1}})

        async def completed() -> bool:
            return (await client.run()).state == "completed"

        await until(completed, 60)


@pytest.mark.parametrize("quiet", [False, True], ids=["calls progress", "does not"])
async def test_sigterm_in_mid_training_hands_the_task_back_and_ends_at_once(
    start: Callable[..., Process], served: Served, tmp_path: Path, quiet: bool
) -> None:
    """Though train() still runs: exit status 0, the learner has left, its round does not wait for it."""
    learner = pupil(start, served.url, METIS_TEST_PIDS=str(tmp_path / "pids"))
    train = {"do": "wait", "until": str(tmp_path / "never"), "quiet": quiet}
    async with Client(served.url) as client:
        await client.start_run({"termination": {"federation_rounds": 1}, "train": train})

        async def training() -> bool:
            return (tmp_path / "pids").exists()

        await until(training)
        learner.kill(15)
        assert learner.wait(5) == 0, learner.tail()
        assert await client.learners() == []
        (only,) = await client.rounds()
        assert only.failed == {"pupil": "pupil left"}
        assert (await client.run()).state in m.TERMINAL
    assert "left the federation" in learner.tail()
    assert "Traceback" not in learner.tail()


async def test_a_token_file_is_left_for_the_next_start(
    start: Callable[..., Process], served: Served, tmp_path: Path
) -> None:
    """Killed, it leaves a file of mode 0600; started again it has the same id at once, and no token is in any log."""
    first = pupil(start, served.url)
    async with Client(served.url) as client:
        (before,) = await until(client.learners, 20)
        first.kill()
        first.wait()
        (file,) = (tmp_path / "state").glob("learner-pupil-*.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        seen = before.last_seen
        second = pupil(start, served.url, METIS_STATE_DIR=str(tmp_path / "state"))

        async def back() -> bool:
            return (await client.learner(before.id)).last_seen != seen and "enrolled" in second.tail(1)

        await until(back, 20)
        assert [one.id for one in await client.learners()] == [before.id]
    token = file.read_text().split('"token": "')[1].split('"')[0]
    assert token not in first.log.read_text() + served.process.log.read_text()


async def test_a_controller_that_refuses_for_good_ends_the_command_with_a_line(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """A wrong enrolment token: exit status 1, the reason, no traceback."""
    tokens = {"METIS_OPERATOR_TOKEN": "operator-token-operator", "METIS_ENROLL_TOKEN": "enroll-token-enroll-token"}
    served = serve(start, tmp_path, **tokens)
    learner = pupil(start, served.url, METIS_ENROLL_TOKEN="not-the-enrolment-token")
    assert learner.wait(20) == 1
    assert learner.tail(1).startswith("metis-learner: ")
    assert "Traceback" not in learner.tail()
    synthetic = ("-m", "learner_agent.synthetic", "--controller", served.url, "--learners", "2")
    many = start("synthetic", *synthetic, "--token", "not-the-enrolment-token")
    assert many.wait(20) == 1
    assert many.tail(1).startswith("synthetic learners: ")
    assert "Traceback" not in many.tail()


async def test_an_address_that_is_no_controllers_ends_the_command_with_a_line(start: Callable[..., Process]) -> None:
    """Another web server answers there: waiting would not help."""
    port = free_port()
    web = start("web", "-m", "http.server", "--bind", "127.0.0.1", str(port))

    async def listens() -> bool:
        return "Serving HTTP" in web.tail()

    await until(listens, 20)
    learner = pupil(start, f"http://127.0.0.1:{port}")
    assert learner.wait(20) == 1
    assert "is this the controller's address?" in learner.tail(1)
    assert os.linesep not in learner.tail(1)
