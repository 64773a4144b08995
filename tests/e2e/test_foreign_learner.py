"""A learner written from /openapi.json alone completes rounds beside two of ours."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services import messages as m
from services.rest import Client
from tests.conftest import Process, Served, digits_learners, serve, until

FOREIGN = Path(__file__).with_name("foreign_learner.py")
DIGITS = Path(__file__).parents[2] / "learner_agent" / "digits" / "digits.npz"
OURS = ("services", "controller_api", "learner_agent", "driver_cli", "tests")
# Python in isolated mode, in which nothing of this project can be imported.
ALONE = f"""
import runpy, sys
for name in {OURS}:
    sys.modules[name] = None
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(name + " can be imported")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SECRETS: dict[str, Any] = {
    "METIS_OPERATOR_TOKEN": "operator-of-this-test",
    "METIS_ENROLL_TOKEN": "enrolment-of-this-test",
}


def foreign(start: Callable[..., Process], url: str, *more: str, rows: tuple[int, int] = (0, 450)) -> Process:
    """The foreign learner as a process."""
    arguments = (url, "stranger", str(DIGITS), *map(str, rows), *more)
    return start("stranger", "-I", "-c", ALONE, str(FOREIGN), *arguments)


async def ended(client: Client) -> m.Results | None:
    """The results of the latest run once it is over."""
    return await client.results() if (await client.run()).state in m.TERMINAL else None


async def progress(client: Client, began: asyncio.Event) -> list[int]:
    """The epochs that are told as they are trained, until the run's end; `began` is set by the first event of all."""
    epochs = []
    async for event in client.events(0):
        began.set()
        if event.kind == "task-progress":
            epochs.append(event.data["epoch"])
        if event.kind == "run-ended":
            break
    return epochs


def test_it_uses_nothing_of_this_project_and_no_client_of_http() -> None:
    """Its imports: the standard library, msgpack and numpy."""
    imports = [
        node for node in ast.walk(ast.parse(FOREIGN.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = [node.module or "." for node in imports if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    assert len(names) > 5
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "msgpack", "numpy"}


async def test_three_rounds_beside_two_of_ours(start: Callable[..., Process], served: Served) -> None:
    """Every round has all three updates and scores; its rows count; the model learns; it ends when all is over."""
    digits_learners(start, served.url, 2, "own", shares=3)
    stranger = foreign(start, served.url)
    async with Client(served.url) as client:
        await client.start_run({"min_learners": 3, "termination": {"federation_rounds": 3}})
        results: m.Results = await until(lambda: ended(client), 60)
        await client.shutdown()
    assert results.run.state == "completed", (results.run.reason, stranger.tail())
    assert [sorted(one.completed) for one in results.rounds] == [["own-0", "own-1", "stranger"]] * 3
    assert {task.factor for task in results.tasks if (task.learner, task.kind) == ("stranger", "train")} == {450}
    scores = [one.evaluation_metrics.learners["stranger"]["accuracy"] or 0 for one in results.rounds]
    assert len(scores) == 3
    assert scores[-1] > 0.85
    assert scores[-1] >= scores[0]
    assert await asyncio.to_thread(stranger.wait, 20) == 0, stranger.tail()


async def test_alone_and_with_tokens_it_begins_and_improves_the_model(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    """It enrols under the enrolment token, gives model 0, reports its progress, and its loss falls."""
    secret = tmp_path / "enrolment"
    secret.write_text(SECRETS["METIS_ENROLL_TOKEN"])
    served = await asyncio.to_thread(serve, start, tmp_path, **SECRETS)
    stranger = foreign(start, served.url, str(secret), rows=(500, 700))
    async with Client(served.url, SECRETS["METIS_OPERATOR_TOKEN"]) as client:
        began = asyncio.Event()
        told = asyncio.create_task(progress(client, began))
        await asyncio.wait_for(began.wait(), 20)
        await client.start_run({"train": {"epochs": 10}, "termination": {"federation_rounds": 2}})
        results: m.Results = await until(lambda: ended(client), 60)
        assert results.run.state == "completed", (results.run.reason, stranger.tail())
        assert [task.kind for task in results.tasks] == ["init", "train", "evaluate", "train", "evaluate"]
        first, second = (one.evaluation_metrics.combined["loss"] for one in results.rounds)
        assert first is not None
        assert second is not None
        assert second < first
        assert await asyncio.wait_for(told, 10) == [*range(1, 11)] * 2
        await client.shutdown()
    assert await asyncio.to_thread(stranger.wait, 20) == 0, stranger.tail()
