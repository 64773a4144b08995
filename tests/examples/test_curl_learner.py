"""The learner in curl, as a process beside two of the project's own, and alone against a controller with tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, digits_learners, free_port, serve, until

SCRIPT = Path(__file__).parents[2] / "examples" / "curl-learner" / "learner.sh"
SECRETS: dict[str, Any] = {
    "METIS_OPERATOR_TOKEN": "operator-of-this-test",
    "METIS_ENROLL_TOKEN": "enrolment-of-this-test",
}
BECOME_BASH = "import os, sys; os.execvp('bash', ['bash', *sys.argv[1:]])"  # the same process, so signals reach it

pytestmark = pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="needs bash and curl")


def curl_learner(start: Callable[..., Process], url: str, **environment: str) -> Process:
    """The script as a process; its python3 is the one that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return start("curl", "-c", BECOME_BASH, str(SCRIPT), url, "curl", PATH=path, **environment)


async def said(process: Process, words: str) -> bool:
    """Whether a process has written these words."""
    return words in process.tail(1000)


async def ended(client: Client) -> m.Results | None:
    """The results of the latest run once it is over."""
    return await client.results() if (await client.run()).state in m.TERMINAL else None


@pytest.mark.slow
async def test_it_takes_part_in_every_round_beside_two_of_ours(start: Callable[..., Process], served: Served) -> None:
    """Three rounds with all three updates and scores; at the end of the federation the script exits 0."""
    digits_learners(start, served.url, 2, "own", shares=3)
    script = curl_learner(start, served.url)
    async with Client(served.url) as client:
        await client.start_run({"min_learners": 3, "termination": {"federation_rounds": 3}})
        results: m.Results = await until(lambda: ended(client), 60)
        await client.shutdown()
    assert results.run.state == "completed", results.run.reason
    assert [sorted(one.completed) for one in results.rounds] == [["curl", "own-0", "own-1"]] * 3
    assert all("accuracy" in one.evaluation_metrics.learners["curl"] for one in results.rounds)
    assert {task.factor for task in results.tasks if (task.learner, task.kind) == ("curl", "train")} == {200}
    accuracy = results.rounds[-1].evaluation_metrics.learners["curl"]["accuracy"]
    assert accuracy is not None
    assert accuracy > 0.8
    assert await asyncio.to_thread(script.wait, 20) == 0, script.tail()
    assert script.tail().endswith("the federation is over")


async def test_it_shows_its_enrolment_token_and_begins_the_model(start: Callable[..., Process], tmp_path: Path) -> None:
    """Alone: it gives the initial weights, and what it trains becomes the model; a second run finds it again."""
    served = await asyncio.to_thread(serve, start, tmp_path, **SECRETS)
    script = curl_learner(start, served.url, METIS_ENROLL_TOKEN=SECRETS["METIS_ENROLL_TOKEN"])
    async with Client(served.url, SECRETS["METIS_OPERATOR_TOKEN"]) as client:
        for epochs in (1, 2):
            await client.start_run({"train": {"epochs": epochs}, "termination": {"federation_rounds": 1}})
            results: m.Results = await until(lambda: ended(client), 60)
            assert results.run.state == "completed", (results.run.reason, script.tail())
            assert [task.kind for task in results.tasks] == ["init", "train", "evaluate"]
        secrets = [*SECRETS.values(), "Bearer"]
        assert not [secret for secret in secrets if secret in script.tail(1000)]


async def test_a_wrong_enrolment_token_is_told(start: Callable[..., Process], tmp_path: Path) -> None:
    """The script ends with status 1 and the controller's words."""
    served = await asyncio.to_thread(serve, start, tmp_path, **SECRETS)
    script = curl_learner(start, served.url, METIS_ENROLL_TOKEN="another-token-of-nobody")
    assert await asyncio.to_thread(script.wait, 20) == 1
    assert "/errors/unauthenticated" in script.tail()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_leaves_when_it_is_asked_to_end(start: Callable[..., Process], served: Served, number: int) -> None:
    """In the middle of a poll of half a minute: it leaves the federation at once and exits 0."""
    script = curl_learner(start, served.url)
    async with Client(served.url) as client:
        await until(lambda: said(script, "enrolled as curl"), 20)
        script.kill(number)
        assert await asyncio.to_thread(script.wait, 10) == 0, script.tail()
        assert await client.learners() == []


async def test_it_waits_for_a_controller_that_starts_later(start: Callable[..., Process], tmp_path: Path) -> None:
    """Started first, it enrols once there is somebody to enrol with."""
    port = free_port()
    script = curl_learner(start, f"http://127.0.0.1:{port}")
    await asyncio.to_thread(serve, start, tmp_path, port=port)
    async with Client(f"http://127.0.0.1:{port}") as client:
        (learner,) = await until(client.learners, 30)
        assert learner.name == "curl"
    assert script.child.poll() is None


async def test_the_commands_of_its_readme_work(start: Callable[..., Process], tmp_path: Path) -> None:
    """Word for word but for the port: controller, script and driver, which ends with status 0 after three rounds."""
    text = SCRIPT.with_name("README.md").read_text(encoding="utf-8").replace("50051", str(free_port()))
    controller, learner, driver = re.findall(r"```bash\n(.*?)\n```", text, re.DOTALL)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    root = f"cd {SCRIPT.parents[2]} && exec "
    for name, command in (("controller", f"{controller} --data-dir {tmp_path}"), ("learner", learner)):
        start(name, "-c", BECOME_BASH, "-c", root + command, PATH=path)
    run = start("run", "-c", BECOME_BASH, "-c", f"exec {driver} --out results.json", cwd=tmp_path, PATH=path)
    assert await asyncio.to_thread(run.wait, 60) == 0, run.tail()
    results = json.loads(await asyncio.to_thread((tmp_path / "results.json").read_text))
    assert [one["completed"] for one in results["rounds"]] == [["anna"]] * 3
