"""Threads in which learners work."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from services.process import Workers


def raises(error: BaseException) -> Any:
    """A call that raises."""
    raise error


async def test_a_call_runs_in_a_thread_and_its_result_comes_back() -> None:
    """Not in the thread of the event loop."""
    name, doubled = await Workers().run(lambda x: (threading.current_thread().name, 2 * x), 21)
    assert (name, doubled) == ("learner-0", 42)


async def test_an_exception_is_raised_where_the_call_was_made() -> None:
    """The same object, and the thread lives on."""
    workers, error = Workers(), ValueError("no such layer")
    with pytest.raises(ValueError, match="no such layer") as raised:
        await workers.run(raises, error)
    assert raised.value is error
    assert await workers.run(lambda: 1) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
async def test_what_would_end_the_event_loop_is_an_ordinary_error(error: BaseException) -> None:
    """sys.exit() in a learner's code fails the task, not the agent; the cause is kept."""
    with pytest.raises(RuntimeError, match=f"the learner raised {type(error).__name__}") as raised:
        await Workers().run(raises, error)
    assert raised.value.__cause__ is error


async def test_one_worker_runs_one_call_at_a_time() -> None:
    """The second call begins when the first has ended."""
    workers, gate, order = Workers(), threading.Event(), list[str]()

    def waits() -> None:
        gate.wait(10)
        order.append("first")

    first = asyncio.create_task(workers.run(waits))
    second = asyncio.create_task(workers.run(lambda: order.append("second")))
    done, _ = await asyncio.wait([second], timeout=0.1)
    assert not done
    gate.set()
    await asyncio.gather(first, second)
    assert order == ["first", "second"]


async def test_several_workers_run_together() -> None:
    """Two calls that wait for each other."""
    barrier = threading.Barrier(2, timeout=10)
    workers = Workers(2)
    await asyncio.gather(workers.run(barrier.wait), workers.run(barrier.wait))


def test_a_worker_does_not_keep_a_process_from_ending() -> None:
    """Its threads are daemons."""
    before = set(threading.enumerate())
    Workers(2)
    assert [thread.daemon for thread in set(threading.enumerate()) - before] == [True, True]
