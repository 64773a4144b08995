"""schemathesis against a controller at work, with tokens and open: no answer is a 5xx of a bug, none is one that the
document does not tell. For ten minutes: `make fuzz`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Process, serve
from tests.contract.conftest import HERE, Run
from tests.controller_api.driving import ENROLL, MSGPACK, OPERATOR, VIEWER, bearer, digest_of, model

pytestmark = [pytest.mark.internet, pytest.mark.slow]
SECONDS = float(os.environ.get("METIS_FUZZ_S", "60")) / 2  # each: with tokens, and open
TOKENS: dict[str, Any] = {"METIS_ENROLL_TOKEN": ENROLL, "METIS_OPERATOR_TOKEN": OPERATOR, "METIS_VIEWER_TOKEN": VIEWER}
PHASES = "coverage,fuzzing" if SECONDS > 120 else "fuzzing"  # the first is the same each time, and takes a minute
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    "response_schema_conformance",
)
# The controller would end, and the stream would not.
LEFT_OUT = ("--exclude-operation-id=shutdown", "--exclude-operation-id=events")


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("tokens", [TOKENS, {}], ids=["tokens", "open"])
def test_every_answer_is_as_told(
    python: Run, start: Callable[..., Process], tmp_path: Path, tokens: dict[str, Any]
) -> None:
    """Statuses, media types, headers, JSON: of calls that follow the document and of calls that do not."""
    served, operator = serve(start, tmp_path, **tokens), OPERATOR if tokens else None
    first = model([1.0, 2.0])
    with httpx.Client(base_url=served.url, headers=bearer(operator)) as http:
        sent = http.put(f"/v1/models/{digest_of(first)}", content=first, headers={"Content-Type": MSGPACK})
        sent.raise_for_status()
        run = {"initial_model": digest_of(first), "termination": {"federation_rounds": 1000}}
        http.post("/v1/runs", json=run).raise_for_status()
        known = [operator, None, *((VIEWER, ENROLL, "nobody has this token") if tokens else ())]
        fuzzed = {"url": served.url, "tokens": known, "digest": digest_of(first)}
        said = python(
            *("schemathesis.cli", "run", f"{served.url}/openapi.json", f"--url={served.url}", *LEFT_OUT),
            *(f"--phases={PHASES}", f"--max-time={max(1, int(SECONDS))}", f"--checks={','.join(CHECKS)}"),
            *("--max-examples=10", "--request-timeout=90", "--continue-on-failure"),
            *("--warnings=off", "--suppress-health-check=all"),
            cwd=tmp_path,
            seconds=SECONDS + 200,
            SCHEMATHESIS_HOOKS="fuzzing",
            PYTHONPATH=str(HERE),
            METIS_FUZZED=json.dumps(fuzzed),
        )
        assert http.get("/healthz").status_code == 200, said
