"""`app()` and `metis-learner` take part in a federation, and how they end."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learner_agent import app
from learner_agent.membership import Membership
from services import ServerParams
from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, free_port, serve, until
from tests.faults.proxy import Proxy
from tests.learner_agent.scripted_learner import Pupil

HERE = Path(__file__).parents[2]
PUPIL = "tests.learner_agent.scripted_learner:Pupil"


def pupil(start: Callable[..., Process], url: str, name: str = "pupil", **environment: str) -> Process:
    """`metis-learner` as a process."""
    arguments = ("-m", "learner_agent", "--controller", url, "--learner", PUPIL, "--name", name)
    return start(name, *arguments, cwd=HERE, **environment)


# ---- membership
def test_a_membership_does_not_show_its_token() -> None:
    """Neither in a log nor in an error."""
    assert "secret" not in repr(Membership("http://localhost", token="secret-of-anna"))


def test_a_callback_url_needs_a_place_to_listen() -> None:
    """Nothing would hear it."""
    with pytest.raises(ValueError, match="needs a place to listen"):
        app(Pupil(), callback_url="http://learner.example/poll-now")
    assert Membership("http://c", listen=ServerParams("127.0.0.1", 0), callback_url="http://l/").callback_url


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
        await client.start_run(
            {"termination": {"federation_rounds": 1}, "train": train, "schedule": {"max_failed_rounds": 1}}
        )

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


async def test_killed_before_it_hears_that_it_is_a_member_it_is_the_same_learner_at_its_next_start(
    start: Callable[..., Process], served: Served
) -> None:
    """By kill -9, with the controller's answer on the way: at once, with no second member and no name that is taken."""
    async with Client(served.url) as client, Proxy(served.port) as proxy:
        proxy.down.hold()
        first = pupil(start, proxy.url)
        (before,) = await until(client.learners, 20)
        first.kill()
        first.wait()
        assert "enrolled" not in first.log.read_text()
        proxy.forget()
        proxy.heal()
        second = pupil(start, proxy.url)

        async def said() -> str:
            return second.tail(1)

        assert "enrolled" in await until(said, 20)
        assert [one.id for one in await client.learners()] == [before.id]


async def test_a_controller_that_refuses_for_good_ends_the_command_with_a_line(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """A wrong enrolment token: exit status 1, the reason, no traceback."""
    tokens: dict[str, Any] = {
        "METIS_OPERATOR_TOKEN": "operator-token-operator",
        "METIS_ENROLL_TOKEN": "enroll-token-enroll-token",
    }
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
