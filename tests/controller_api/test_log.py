"""The controller's log: what others named themselves, and wrote, is no command to the terminal that shows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import Process, serve

NAME = "m\x9b2Ja\u202ellory"


@pytest.mark.parametrize("form", ["text", "json"])
def test_names_are_written_out(start: Callable[..., Process], tmp_path: Path, form: str) -> None:
    """Controls and bidirectional marks of a name, and lines of a reason: each event is one line."""
    served = serve(start, tmp_path, METIS_LOG_FORMAT=form)
    httpx.post(f"{served.url}/v1/learners", json={"name": NAME}).raise_for_status()
    httpx.post(f"{served.url}/v1/runs", json={"termination": {"federation_rounds": 1}}).raise_for_status()
    forged = {"reason": "\x1b]0;owned\x07\n2030-01-01T00:00:00Z [info] all is well"}
    httpx.post(f"{served.url}/v1/runs/current/stop", json=forged).raise_for_status()
    httpx.post(f"{served.url}/v1/shutdown").raise_for_status()
    assert served.process.wait(30) == 0
    log = served.process.log.read_text(encoding="utf-8")
    assert not set(log) & set("\x9b\u202e\x1b\x07")
    joined = r"m\\+x9b2Ja\\+u202ellory joined" if form == "text" else r"m\\u009b2Ja\\u202ellory joined"
    assert re.search(joined, log)
    assert "all is well" in log
    assert not [line for line in log.splitlines() if line.startswith("2030-01-01")]
