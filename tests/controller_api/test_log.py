"""The controller's log: what others named themselves, and wrote, is no command to the terminal that shows it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import Process, free_port, serve

NAME = "m\x9b2Ja\u202ellory"


@pytest.mark.parametrize("form", ["text", "json"])
def test_names_are_written_out(start: Callable[..., Process], tmp_path: Path, form: str) -> None:
    """Controls and bidirectional marks of a name, alone or among words, and lines of a reason: an event is one line."""
    served = serve(start, tmp_path, METIS_LOG_FORMAT=form)
    unheard = f"http://127.0.0.1:{free_port()}/"
    httpx.post(f"{served.url}/v1/learners", json={"name": NAME, "callback_url": unheard}).raise_for_status()
    httpx.post(f"{served.url}/v1/runs", json={"termination": {"federation_rounds": 1}}).raise_for_status()
    deadline = time.monotonic() + 60
    while "webhook failed" not in served.process.tail() and time.monotonic() < deadline:
        time.sleep(0.05)
    forged = {"reason": "\x1b]0;owned\x07\n2030-01-01T00:00:00Z [info] all is well"}
    httpx.post(f"{served.url}/v1/runs/current/stop", json=forged).raise_for_status()
    httpx.post(f"{served.url}/v1/shutdown").raise_for_status()
    assert served.process.wait(30) == 0
    log = served.process.log.read_text(encoding="utf-8")
    assert not set(log) & set("\x9b\u202e\x1b\x07")
    name = r"m\\+x9b2Ja\\+u202ellory" if form == "text" else r"m\\u009b2Ja\\u202ellory"
    assert re.search(f"{name} joined", log)
    assert [line for line in log.splitlines() if "webhook failed" in line and re.search(name, line)]
    assert "all is well" in log
    assert not [line for line in log.splitlines() if line.startswith("2030-01-01")]
