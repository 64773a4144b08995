"""Tokens: where they come from, when they are required, and that nothing ever shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from controller_api.server import settings_from_environment
from controller_api.settings import Settings
from tests.conftest import Process, serve
from tests.controller_api.driving import TOKENS, Member, bearer, begin, document, weights

CANARY = "canary-5bd1e09c7f"
SECRETS: dict[str, Any] = {
    f"METIS_{role}_TOKEN": f"{role.lower()}-{CANARY}" for role in ("OPERATOR", "ENROLL", "VIEWER")
}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ("OPERATOR", "ENROLL", "VIEWER"):
        monkeypatch.delenv(f"METIS_{role}_TOKEN", raising=False)
        monkeypatch.delenv(f"METIS_{role}_TOKEN_FILE", raising=False)


# ---- when they are required
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "controller.example", ""])
def test_beyond_loopback_a_controller_needs_tokens(host: str) -> None:
    """It refuses to start, and says which variables to set; `insecure` is the way to insist."""
    with pytest.raises(ValidationError, match="METIS_OPERATOR_TOKEN and METIS_ENROLL_TOKEN"):
        Settings(host=host)
    assert Settings(host=host, insecure=True).open
    assert not Settings(host=host, **TOKENS).open


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_a_controller_may_run_open(host: str) -> None:
    """Nobody else can reach it."""
    assert Settings(host=host).open


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"enroll_token": "e" * 16}, "METIS_OPERATOR_TOKEN"),
        ({"operator_token": "short"}, "at least 16"),
        ({"operator_token": "o" * 16, "viewer_token": "o" * 16}, "must differ"),
    ],
)
def test_tokens_that_cannot_work_are_refused(given: dict[str, str], told: str) -> None:
    """Weak, equal, or without an operator's."""
    with pytest.raises(ValidationError, match=told):
        Settings(**given)  # type: ignore[arg-type]


def test_the_command_refuses_too(start: Callable[..., Process]) -> None:
    """`metis-controller --host 0.0.0.0` without tokens ends with status 2 and one line."""
    process = start("refused", "-m", "controller_api", "--host", "0.0.0.0")
    assert process.wait(30) == 2
    assert process.tail().startswith("metis-controller: refusing to listen on 0.0.0.0 without tokens")
    assert "Traceback" not in process.tail()


# ---- where they come from
def test_a_token_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`METIS_…_TOKEN_FILE`; the line's end is not part of it, and the variable itself goes before."""
    secret = tmp_path / "operator"
    secret.write_text(f"from-a-file-{CANARY}\n")
    monkeypatch.setenv("METIS_OPERATOR_TOKEN_FILE", str(secret))
    token = settings_from_environment().operator_token
    assert token is not None
    assert token.get_secret_value() == f"from-a-file-{CANARY}"
    monkeypatch.setenv("METIS_OPERATOR_TOKEN", f"from-a-variable-{CANARY}")
    token = settings_from_environment().operator_token
    assert token is not None
    assert token.get_secret_value() == f"from-a-variable-{CANARY}"


def test_a_token_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller does not start without the token that it was to have."""
    monkeypatch.setenv("METIS_OPERATOR_TOKEN_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"METIS_OPERATOR_TOKEN_FILE: .*nowhere"):
        settings_from_environment()


# ---- that nothing shows them
def test_settings_do_not_show_their_tokens() -> None:
    """Neither their repr, nor their dump, nor the error about them."""
    made = Settings(**{role: f"{role}-{CANARY}" for role in TOKENS})  # type: ignore[arg-type]
    with pytest.raises(ValidationError) as caught:
        Settings(viewer_token=CANARY)
    for shown in (repr(made), str(made), made.model_dump_json(), str(caught.value), repr(caught.value)):
        assert CANARY not in shown


def test_the_command_does_not_show_the_tokens_that_it_refuses(start: Callable[..., Process]) -> None:
    """Its error names the rule, not the value."""
    process = start("refused", "-m", "controller_api", METIS_OPERATOR_TOKEN="canary", METIS_ENROLL_TOKEN=CANARY)
    assert process.wait(30) == 2
    assert "at least 16 characters" in process.tail()
    assert "canary" not in process.tail()


async def test_no_secret_is_written_or_answered_anywhere(start: Callable[..., Process], tmp_path: Path) -> None:
    """Logs at their most talkative, errors, pages, metrics and files: no configured token, no learner's token."""
    served = await asyncio.to_thread(
        serve, start, tmp_path, METIS_LOG_LEVEL="debug", METIS_LOG_FORMAT="json", **SECRETS
    )
    operator, enroll, viewer = SECRETS.values()
    async with httpx.AsyncClient(base_url=served.url, timeout=20) as http:
        (anna,) = await begin(http, "anna", operator=operator, termination={"federation_rounds": 1})
        await provoke(http, anna, [operator, enroll, viewer])
        await anna.work()
        await anna.work()
        shown = [
            (await http.get(path, headers=bearer(operator))).text
            for path in (
                *("/", "/docs", "/openapi.json", "/metrics", "/v1/federation", "/v1/learners", "/v1/runs"),
                "/v1/runs/latest/results",
            )
        ]
        await http.post("/v1/shutdown", headers=bearer(operator))
        await anna.call("GET", f"{anna.path}/task")
    assert await asyncio.to_thread(served.process.wait, 20) == 0
    assert "anna joined" in served.process.tail(1000)
    for text in [*shown, *await asyncio.to_thread(written, tmp_path)]:
        assert CANARY not in text
        assert anna.token not in text


def written(folder: Path) -> list[str]:
    """What all files of a folder hold."""
    return [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]


async def provoke(http: httpx.AsyncClient, anna: Member, tokens: list[str]) -> None:
    """Errors under every token, with the token where it does not belong; none of the answers repeats it."""
    for token in (*tokens, anna.token):
        answers = [
            await http.get("/v1/nowhere", headers=bearer(token)),
            await http.get("/v1/federation", headers=bearer(f"{token}x")),
            await http.get("/v1/federation", headers={"Authorization": token}),
            await http.post(
                "/v1/learners", content=b"{", headers={**bearer(token), "Content-Type": "application/json"}
            ),
            await http.delete("/v1/runs", headers=bearer(token)),
        ]
        task = await anna.task()
        answers.append(await anna.put(task, document(weights()[0])))
        for answer in answers:
            assert answer.status_code >= 400
            assert token not in answer.text
