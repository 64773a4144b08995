"""A process's own log: no variable of a frame, no end without a bound, whoever writes to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[3]
WRITES = """
import asyncio, gc, logging, sys, structlog
from services.process import start_log
start_log(as_json=sys.argv[1] == "json")
log = structlog.get_logger("somebody")

def train(rows):
    patients = rows
    raise ValueError("no rows " + "x" * 3_000_000)

async def lost():
    asyncio.create_task(later())
    await asyncio.sleep(0)

async def later():
    train("".join(("can", "ary")))

try:
    train("".join(("can", "ary")))
except ValueError as error:
    log.exception("failed")
    log.error("failed", exc_info=error)
    log.error("failed", exc_info=(type(error), error, error.__traceback__))
    logging.getLogger("library").exception("failed")
log.error("nothing", exc_info=True)
log.error("nothing", exception=None)
asyncio.run(lost())
gc.collect()
"""
BUG = """
import asyncio, sys
from types import SimpleNamespace
from controller_api.problems import answered
from services.process import start_log
start_log(as_json=sys.argv[1] == "json")

async def endpoint(request):
    body = "".join(("can", "ary"))
    raise RuntimeError("a bug" + "x" * 3_000_000)

print(asyncio.run(answered(endpoint, SimpleNamespace(scope={"path": "/v1"}))).status_code)
"""


def written(code: str, form: str) -> str:
    """The log of a process that runs it."""
    done = subprocess.run(
        [sys.executable, "-c", code, form], capture_output=True, text=True, timeout=60, check=True, cwd=HERE
    )
    return done.stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_exceptions_are_told_without_variables_and_in_bounds(form: str) -> None:
    """Those of our own code and of others', by structlog and by the standard library's log."""
    log = written(WRITES, form)
    assert log.count("ValueError: no rows xxx") == 5
    assert log.count("in train") == 5
    assert "canary" not in log
    assert len(log) < 20_000
    assert max(map(len, log.splitlines())) < (3000 if form == "json" else 400)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_of_the_controller_is_told_without_variables(form: str) -> None:
    """What an endpoint held of a request is in no log."""
    log = written(BUG, form)
    assert "RuntimeError: a bugxxx" in log
    assert "in endpoint" in log
    assert "canary" not in log
    assert len(log) < 10_000


def test_json_has_an_object_a_line() -> None:
    """With the traceback under `exception`, where there is one."""
    lines = [json.loads(line) for line in written(WRITES, "json").splitlines() if line.startswith("{")]
    assert [("Traceback" in line.get("exception", ""), line["event"]) for line in lines] == [
        *[(True, "failed")] * 3,
        *[(False, "nothing")] * 2,
    ]
