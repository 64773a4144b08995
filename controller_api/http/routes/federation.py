"""The federation at a glance, its event stream, its end, and whether the process is well."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from services import CONTRACT, __version__
from services import messages as m
from services.errors import NotParseable

from ...headers import number_in
from .request import runtime_of, written_runtime
from .tasks import MAX_WAIT_S

router = APIRouter(prefix="/v1", tags=["federation"])
KEPT = {
    True: "learners, runs, rounds and models are kept: a controller that is started again with them goes on",
    False: "nothing is kept: learners, runs, rounds and models are in memory and end with the controller's process",
}


@router.get("/federation")
async def federation(request: Request) -> m.FederationStatus:
    """State, learners, the newest run, what is waited for (in words), limits, version."""
    runtime = await written_runtime(request)
    state, now, settings = runtime.federation, runtime.now, runtime.settings
    run = runtime.run_message(state.find_run("latest")) if state.runs else None
    return m.FederationStatus(
        version=__version__,
        contract=CONTRACT,
        state="over" if state.over else (run.state if run and state.active else "idle"),
        waiting_for=run.waiting_for if run else None,
        learners=[state.learner_message(one, now) for one in sorted(state.roster, key=lambda one: one.name)],
        run=run,
        limits={
            "max_model_bytes": settings.max_model_bytes,
            "max_json_bytes": settings.max_json_bytes,
            "max_wait_s": MAX_WAIT_S,
            "lease_s": state.lease_s,
        },
        model_store=runtime.store.name,
        durable=runtime.store.durable,
        kept=KEPT[runtime.store.durable],
        open=settings.open,
    )


@router.post("/shutdown", status_code=202)
async def shutdown(request: Request) -> dict[str, str]:
    """End the federation and the controller: the active run stops, polls answer 410 and agents exit."""
    await runtime_of(request).shut_down()
    return {"state": "over"}


async def events(request: Request) -> Response:
    """GET /v1/events, described in openapi.py."""
    runtime = runtime_of(request)
    given = request.headers.get("last-event-id")
    start = runtime.events.last_id if given is None else number_in(given)
    if start is None:
        raise NotParseable("Last-Event-ID is the number of an event", got=str(given)[:40])

    async def lines() -> AsyncIterator[str]:
        yield ": the log follows\n\n"
        async for batch in runtime.follow(start):
            yield "".join(_server_sent(event) for event in batch) or ": still here\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        head = Response(headers=headers, media_type="text/event-stream")
        del head.headers["content-length"]  # nobody knows it
        return head
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def _server_sent(event: m.Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.model_dump_json()}\n\n"


async def healthz(request: Request) -> Response:
    """GET /healthz: the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz: it takes work; 503 while it is ending, and while its model store does not answer."""
    runtime = runtime_of(request)
    if runtime.federation.over or runtime.stopped.is_set():
        status = "over"
    else:
        status = "ready" if await runtime.calls.store_answers() else "store-unavailable"
    return JSONResponse({"status": status}, 200 if status == "ready" else 503)


async def metrics(request: Request) -> Response:
    """GET /metrics: Prometheus."""
    runtime = runtime_of(request)
    page = runtime.metrics.text(one.state for one in runtime.federation.roster)
    return Response(page, headers={"Content-Type": runtime.metrics.content_type})


ROUTES = [
    Route("/v1/events", events, methods=["GET"]),
    Route("/healthz", healthz, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]
