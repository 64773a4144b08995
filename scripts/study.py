"""What the scripts that measure learning share: a whole federation in this process, and a table's place in a page."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from controller_api.app import create_app
from controller_api.settings import Settings
from learner_agent import Learner
from learner_agent.agent import Agent, LearnerAtWork, poll
from services import ModelStoreConfig
from services import messages as m
from services.process.worker import Workers
from services.rest import Client

URL = "http://localhost"


async def federation(
    learners: Sequence[Learner],
    config: Mapping[str, Any],
    threads: int = 0,
    look: Callable[[m.Run], None] = lambda run: None,
) -> m.Results:
    """The results of a run of these learners, through the real controller, agents and state machine; only the network
    is left out. So many train at the same time (0: all); `look` is shown the run from time to time."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), model_store="InMemory", log_level="error")
        app = create_app(settings, model_store_config=ModelStoreConfig("InMemory", 2))
        transport, workers = httpx.ASGITransport(app), Workers(threads or len(learners))
        async with app.router.lifespan_context(app), AsyncExitStack() as stack, asyncio.TaskGroup() as group:

            async def client() -> Client:
                return await stack.enter_async_context(Client(URL, transport=transport))

            for index, learner in enumerate(learners):
                request = m.JoinRequest(name=f"learner-{index:02}")
                agent = Agent(LearnerAtWork(learner), await client(), poll, request, workers=workers)
                group.create_task(agent.run())
            driver = await client()
            run = await driver.start_run({"min_learners": len(learners), **config})
            while not run.ended_at:
                await asyncio.sleep(0.02)
                run = await driver.run(run.id)
                look(run)
            results = await driver.results(run.id)
            await driver.shutdown()
            return results


def put_between(page: str, name: str, lines: Sequence[str]) -> str:
    """The page with these lines between its marks of that name, if it has them."""
    before, mark, rest = page.partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"<!-- {name}: end -->\n")
    return before + mark + "\n" + "\n".join(lines) + "\n\n" + end + after if mark and end else page
