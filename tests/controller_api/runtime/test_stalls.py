"""A controller whose loop stood still: it tells so, moves what it waits for, and waits as long as before."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import structlog

from controller_api.clock import TICK_S
from controller_api.runtime import shutdown
from tests.conftest import InProcess, until
from tests.controller_api.driving import begin, document, join, weights

LEASE_S, STALL_S = 0.6, 1.2


def stand_still() -> None:
    """Block the event loop for twice the lease."""
    time.sleep(STALL_S)


async def turns() -> None:
    """Whatever is due is done, the ticker included."""
    await asyncio.sleep(2 * TICK_S)


async def state_of(controller: InProcess) -> list[str]:
    """Of the learners."""
    return [one["state"] for one in (await controller.http.get("/v1/learners")).json()]


async def test_a_blocked_loop_ends_no_lease(controller: InProcess) -> None:
    """Silent before, silent after: nobody is lost until the rest of the lease is over; the round goes on, the update is
    taken; it is told once, and counted."""
    schedule = {"lease_s": LEASE_S, "round_deadline_s": LEASE_S + 0.5, "min_updates": 1}
    with structlog.testing.capture_logs() as logs:
        anna, bert = await begin(controller.http, "anna", "bert", schedule=schedule, evaluation={"every": 0})
        task = await bert.task()
        await anna.work(1.0)
        stand_still()
        await turns()
        assert await state_of(controller) == ["active", "active"]
        assert (await bert.put(task, document(*weights(2.0)))).status_code == 201
    told = [one for one in logs if "stood still" in one["event"]]
    (long,) = [one for one in told if one["log_level"] == "warning"]
    assert STALL_S - 0.2 < long["seconds"] < STALL_S + 5  # a busy machine makes it longer
    text = (await controller.http.get("/metrics")).text
    (line,) = [one for one in text.splitlines() if one.startswith("metis_stalled_seconds_total ")]
    assert float(line.split()[1]) == pytest.approx(sum(one["seconds"] for one in told), abs=0.3)

    async def lost() -> bool:
        return await state_of(controller) == ["lost", "lost"]

    await until(lost, 5)


async def test_a_status_right_after_a_stall_is_right(controller: InProcess) -> None:
    """Whoever asks for the time before anything else ran has moved the leases with it."""
    await begin(controller.http, "anna", schedule={"lease_s": LEASE_S})
    runtime: Any = controller.app.state.runtime
    await turns()
    stand_still()
    assert runtime.federation.roster.lapsed(runtime.now, LEASE_S) == []


async def test_a_stall_takes_nothing_of_the_grace_at_the_end(
    controller: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process waits for agents to hear that the federation is over, however long it stood still meanwhile."""
    monkeypatch.setattr(shutdown, "GRACE_S", LEASE_S)
    anna = await join(controller.http, "anna")
    runtime: Any = controller.app.state.runtime
    assert (await controller.http.post("/v1/shutdown")).status_code in (200, 202, 204)
    await asyncio.sleep(0)
    stand_still()
    await turns()
    assert not runtime.stopped.is_set()
    assert (await anna.call("GET", f"{anna.path}/task")).status_code >= 400
    async with asyncio.timeout(5):
        await runtime.stopped.wait()


async def test_short_stalls_are_written_down_together(controller: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each moves the deadlines; only when they add up to a second are open tasks written anew."""
    (anna,) = await begin(controller.http, "anna")
    runtime: Any = controller.app.state.runtime
    task = runtime.federation.offers.get((await anna.task())["id"], anna.id)
    lost, first = runtime.clock.lost(), task.deadline
    written = []
    for count in range(1, 9):
        monkeypatch.setattr(runtime.clock, "lost", lambda count=count: lost + 0.3 * count)
        assert runtime.now
        assert -1e-6 < task.deadline - (first + 0.3 * count) < 5  # the machine may really stand still, too
        if runtime.federation.changes.tasks:
            written.append(count)
        runtime.federation.changes.clear()
    assert written in ([4, 8], [3, 7])  # what was lost before counts too
