"""Runs: start, follow, stop, results, and the models that they make."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response

from services import messages as m
from services.errors import UnknownModel

from .models import model_response
from .request import runtime_of, written_runtime

router = APIRouter(prefix="/v1/runs", tags=["runs"])
RUN_CONFIG = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/RunConfig"},
                "examples": {
                    "five rounds": {
                        "value": {
                            "min_learners": 3,
                            "train": {"epochs": 1, "learning_rate": 0.05},
                            "termination": {"federation_rounds": 5},
                        }
                    }
                },
            }
        },
    }
}


@router.post("", status_code=201, openapi_extra=RUN_CONFIG)
async def start(
    request: Request,
    response: Response,
    given: Annotated[dict[str, Any], Body()],
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> m.Run:
    """Start a run. Send only the keys that differ from the controller's defaults (the values shown); nested maps are
    merged key by key. One run at a time: 409 while one is active. An `Idempotency-Key` makes the call repeatable."""
    runtime = runtime_of(request)
    run = await runtime.start_run(given, idempotency_key)
    response.headers["Location"] = f"runs/{run.id}"
    return runtime.run_message(run)


@router.get("")
async def runs(request: Request) -> list[m.Run]:
    """Every run that is remembered, oldest first."""
    runtime = await written_runtime(request)
    return [runtime.run_message(one) for one in runtime.federation.runs.values()]


@router.get("/{run_id}")
async def run(request: Request, run_id: str) -> m.Run:
    """One run; `current` and `latest` stand for an id."""
    runtime = await written_runtime(request)
    return runtime.run_message(runtime.federation.find_run(run_id))


@router.get("/{run_id}/rounds")
async def rounds(request: Request, run_id: str) -> list[m.Round]:
    """The rounds so far, the one in progress included."""
    federation = (await written_runtime(request)).federation
    return [one.message(federation.journal.iso) for one in federation.find_run(run_id).rounds]


@router.get("/{run_id}/results")
async def results(request: Request, run_id: str) -> m.Results:
    """Everything about a run; before its end, the closed rounds."""
    runtime = await written_runtime(request)
    return runtime.federation.results(runtime.federation.find_run(run_id), runtime.now)


@router.get("/{run_id}/model", include_in_schema=False)
async def model(
    request: Request, run_id: str, which: Annotated[Literal["latest", "best"], Query()] = "latest"
) -> Response:
    """Described in openapi.py: the answer is a weights document."""
    runtime = await written_runtime(request)
    found = runtime.federation.find_run(run_id)
    info = found.model if which == "latest" else (found.best[2] if found.best else None)
    if info is None:
        why = "has no model yet" if which == "latest" else "has no evaluated model: nothing says which one is best"
        raise UnknownModel(f"run {found.id} {why}", run=found.id, which=which)
    return await model_response(request, runtime, info.digest, "private, no-cache")


@router.post("/{run_id}/stop", status_code=202)
async def stop(request: Request, run_id: str, body: m.StopRequest | None = None) -> m.Run:
    """End a run now; what it made so far is kept. Stopping an ended run changes nothing."""
    runtime = runtime_of(request)
    ended = await runtime.stop_run(run_id, (body or m.StopRequest()).reason)
    return runtime.run_message(ended)


@router.post("/{run_id}/rounds", status_code=202)
async def next_round(request: Request, run_id: str, body: m.RoundRequest | None = None) -> m.Run:
    """Start the next round of a run that was posted with `advance: "manual"`. With the number of the round the call
    may be repeated: it changes nothing once that round has begun."""
    runtime = runtime_of(request)
    advanced = await runtime.next_round(run_id, body.round if body else None)
    await asyncio.sleep(0)  # learners get their tasks before the operator gets this answer
    return runtime.run_message(advanced)


@router.put("/{run_id}/rounds/{number}/scores")
async def take_scores(request: Request, run_id: str, number: int, body: m.EvaluationResult) -> m.Round:
    """The driver's scores of a round's model, in a run with `evaluation.who: "driver"`. The round closes with them, and
    the termination signals go by them. The same scores may be sent again."""
    runtime = runtime_of(request)
    one = await runtime.take_scores(run_id, number, body.metrics)
    return one.message(runtime.federation.journal.iso)
