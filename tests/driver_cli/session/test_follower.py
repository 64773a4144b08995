"""Following a run: what is known of it is kept up to date."""

from __future__ import annotations

import asyncio

from driver_cli.session import follower
from driver_cli.show.view import View
from tests.conftest import InProcess

from ..show.example_run import drawn


async def test_what_is_waited_for_is_kept_up_to_date_while_nothing_happens(controller: InProcess) -> None:
    """No event tells that time passes: the controller is asked, and the seconds on the screen go down."""
    client = controller.client()
    run = await client.start_run({"termination": {"federation_rounds": 1}})
    seen = View("http://here:1", run, since=run.started_at)
    assert "gives up in 3600 s" in drawn(seen)
    async with asyncio.timeout(4 * follower.CHECK_S):
        await follower.Follower(
            client, client.events, seen, lambda _: None, lambda: "gives up in 3600 s" not in str(seen.run.waiting_for)
        ).follow()
    assert "waiting for 1 more of 1 learners; here: nobody; gives up in 359" in drawn(seen)
