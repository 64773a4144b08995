"""A real controller driven in any order: three learners that poll, answer once, twice, late and otherwise, fail, leave
and come back, runs that are stopped, and kill -9 between calls, in the middle of one, and right after its answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.driven import EVERYBODY, MARKS, Driven, Step, driven_controller
from tests.faults.federation import IN_FULL

WORK = ("all", "all", "work") * 4  # half of the steps: rounds close
REST = ("poll", "send", "again", "other", "late", "late", "fail", "report", "leave", "stop", "kill")
ONE_STEP = st.tuples(st.sampled_from(WORK + REST), st.sampled_from([*MARKS]), st.integers(0, 9))
EXAMPLES = 22 if IN_FULL else 2
IN_EACH = {"rounds of all": 1, "runs": 2, "late": 1, "duplicates": 5, "other bodies": 1, "kills": 2, "events": 10}
ON_AVERAGE = {"closed rounds": 5}  # two of them by the first and the last steps, like all of the above
AT_ALL = {"lost answers": 1}


async def first_steps(driven: Driven) -> None:
    """A round of the first two of three: a result five times at once, another one, one that is late, and a kill right
    after an answer."""
    for step in ("poll carl", "poll anna", "again anna", "other anna", "work bert", "send carl"):
        kind, name = step.split()
        await driven.do((kind, name, 0))
    await driven.poll(driven.learners["anna"], wait=10)
    await driven.do(("kill", "anna", 9))
    await close_a_round(driven)


async def last_steps(driven: Driven) -> None:
    """A round of all: one update is there when the controller is killed, one on its way, one comes later. Then a last
    look at all runs."""
    for name in MARKS:
        await driven.do(("poll", name, 0))
    while driven.next_selection != EVERYBODY:
        await driven.do(("stop", "anna", 0))
    for step in ("stop anna", "poll anna", "send anna", "poll bert", "kill bert"):
        kind, name = step.split()
        await driven.do((kind, name, 0))
    await close_a_round(driven)
    for run in driven.runs:
        await driven.check(run)
    driven.seen["runs"] += len(driven.runs)
    driven.seen["events"] += len(driven.events)


async def close_a_round(driven: Driven) -> None:
    """All work until one more is closed."""
    before = driven.seen["closed rounds"]
    async with asyncio.timeout(60):
        while driven.seen["closed rounds"] == before:
            await driven.do(("all", "anna", 0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_order() -> None:
    """No order of calls and deaths loses an acknowledged result, counts one twice, or turns a round back."""
    seen: Counter[str] = Counter()

    async def drive(steps: list[Step]) -> None:
        async with driven_controller(seen) as driven:
            await first_steps(driven)
            for step in steps:
                await driven.do(step)
            await last_steps(driven)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        derandomize=not IN_FULL,
        phases=[Phase.reuse, Phase.generate],  # no shorter one is looked for: each try takes seconds
    )
    @given(st.lists(ONE_STEP, min_size=24, max_size=60))
    def examples(steps: list[Step]) -> None:
        asyncio.run(drive(steps))

    examples()
    least = {what: count * EXAMPLES for what, count in (IN_EACH | ON_AVERAGE).items()} | AT_ALL
    assert all(seen[what] >= count for what, count in least.items()), f"{dict(seen)}, at least {least}"
