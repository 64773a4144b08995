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


# ---- when they would travel in clear
TLS = {"root_certificate": "ca.pem", "server_certificate": "server.pem", "private_key": "server.key"}


def test_tls_can_be_required() -> None:
    """Beyond loopback there must be a certificate then; on loopback, where a proxy ends TLS, there need be none."""
    with pytest.raises(
        ValidationError, match=r"refusing to listen on 0\.0\.0\.0 without TLS: give .* or listen on 127"
    ):
        Settings(host="0.0.0.0", require_tls=True, **TOKENS)
    assert not Settings(host="0.0.0.0", require_tls=True, **TLS, **TOKENS).in_clear  # type: ignore[arg-type]
    assert not Settings(host="127.0.0.1", require_tls=True, **TOKENS).in_clear
    assert Settings(host="0.0.0.0", **TOKENS).in_clear


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_command_refuses_to_send_them_in_clear(start: Callable[..., Process], by: str) -> None:
    """`--require-tls`, or METIS_REQUIRE_TLS: status 2 and one line."""
    told = {**SECRETS, **({"METIS_REQUIRE_TLS": "true"} if by == "variable" else {})}
    flags = ("--require-tls",) if by == "flag" else ()
    process = start("refused", "-m", "controller_api", "--host", "0.0.0.0", "--port", "0", *flags, **told)
    assert process.wait(30) == 2
    assert process.tail().startswith("metis-controller: ")
    assert "refusing to listen on 0.0.0.0 without TLS" in process.tail()
    assert len(process.tail().splitlines()) == 1


@pytest.mark.parametrize(("host", "warnings"), [("0.0.0.0", 1), ("127.0.0.1", 0)])
async def test_the_log_warns_of_tokens_in_clear(start: Callable[..., Process], host: str, warnings: int) -> None:
    """Once, at the start, with what to do; not where only this machine, or a proxy on it, can listen."""
    process = start("controller", "-m", "controller_api", "--host", host, "--port", "0", **SECRETS)
    async with asyncio.timeout(30):
        while '"listening"' not in process.tail():  # noqa: ASYNC110 - a log
            await asyncio.sleep(0.05)
    told = [line for line in process.tail().splitlines() if "tokens travel in clear" in line]
    assert len(told) == warnings
    assert all('"level": "warning"' in line and "--require-tls" in line for line in told)


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
