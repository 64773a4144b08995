"""`create_app(settings)`: the controller as an ASGI application."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from services import ControllerConfig, ModelStoreConfig
from services.config import resolve
from services.errors import FederationError
from services.federation import Federation, check_names
from services.store import ModelStore, is_durable, open_store

from . import problems
from .durability import Folder
from .http import Answer, Gate, Refused, describe, page_routes, shared
from .http.routes import federation as status
from .http.routes import learners, models, runs, tasks
from .runtime import Metrics, Runtime
from .settings import Settings
from .tokens import Identity, Role, Tokens
from .transport import Strangers
from .webhooks import Webhooks


class App(FastAPI):
    """A FastAPI application behind its gate, which is the outermost layer."""

    gate: ASGIApp
    refused: Refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Every request passes the gate first."""
        scope["app"] = self
        if scope["type"] == "http":
            send = Answer(scope, send, self.refused).send
        await self.gate(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the gate let through, to FastAPI's own routes."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings | None = None,
    controller_config: ControllerConfig | None = None,
    model_store_config: ModelStoreConfig | None = None,
) -> FastAPI:
    """The application; its Runtime is `app.state.runtime` from now on, and works while the lifespan lasts.

    `controller_config` gives the defaults of runs; `model_store_config` goes before the store of `settings`.
    Raises InvalidConfig for names that do not exist.
    """
    settings = settings or Settings()
    defaults = (controller_config or ControllerConfig()).run_defaults()
    check_names(resolve({}, defaults))
    store_config = _store_config(settings, model_store_config)
    metrics, (folder, store) = Metrics(), _opened(store_config, settings.data_dir)
    federation = _federation(defaults, store_config, folder, settings.told_bytes)
    federation.roster.keeps_names = not settings.open
    strangers = Strangers(None if settings.open else settings.stranger_connections, settings.trusted_proxies)
    runtime = Runtime(settings, store, federation, metrics, Webhooks(settings), folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with runtime.running():
            yield {"clock": runtime.clock, "strangers": strangers}  # for the server's protocol

    app = App(
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.runtime = runtime
    for router in (learners.router, runs.router, status.router):
        app.include_router(router)
    app.router.routes += [
        *learners.ROUTES,
        *tasks.ROUTES,
        *models.ROUTES,
        *status.ROUTES,
        *page_routes(),
        Route("/openapi.json", _document),
    ]
    hot_endpoints = {
        (method, route.path): route.endpoint
        for route in (*learners.ROUTES, *tasks.ROUTES, *models.ROUTES)
        for method in route.methods or ()
    }
    tokens, known = _tokens(settings, runtime), _known(runtime)
    gate = Gate(app.routed, settings, tokens, metrics, known, hot_endpoints, runtime.pace)
    app.gate = shared(gate, settings.allowed_origins)
    app.refused = Refused()
    app.add_exception_handler(FederationError, problems.on_federation_error)
    app.add_exception_handler(RequestValidationError, problems.on_validation_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(ClientDisconnect, problems.on_hang_up)
    app.add_exception_handler(Exception, problems.on_bug)
    return app


def _store_config(settings: Settings, given: ModelStoreConfig | None) -> ModelStoreConfig:
    """What was given, else what the settings say; where Redis is may come from the settings in both cases."""
    chosen = given or ModelStoreConfig(settings.model_store, settings.lineage_length)
    return replace(
        chosen,
        model_store_url=chosen.model_store_url or settings.model_store_url,
        model_store_prefix=chosen.model_store_prefix or settings.model_store_prefix,
        fsync=chosen.fsync or settings.fsync,
    )


def _opened(store: ModelStoreConfig, path: Path) -> tuple[Folder | None, ModelStore]:
    """The folder of a durable controller, None for another's, and its models."""
    if not is_durable(store):
        return None, open_store(store, path)
    folder = Folder(path)
    try:
        opened = open_store(store, path)
        opened.claim(folder.database.identity())
    except BaseException:
        folder.close()
        raise
    return folder, opened


def _federation(
    defaults: Mapping[str, Any], store: ModelStoreConfig, folder: Folder | None, told_bytes: int
) -> Federation:
    federation = Federation(
        defaults,
        epoch=folder.epoch() if folder else time.time() - time.monotonic(),
        new_id=lambda: secrets.token_hex(8),
        stopwatch=time.perf_counter,
        lineage_length=store.lineage_length,
        told_bytes=told_bytes,
    )
    if folder:
        federation.runs.kept_rounds = store.lineage_length
        folder.fill(federation)
    return federation


def _tokens(settings: Settings, runtime: Runtime) -> Tokens:
    given: dict[Role, object] = {
        "enroll": settings.enroll_token,
        "operator": settings.operator_token,
        "viewer": settings.viewer_token,
    }
    configured: dict[Role, str] = {}
    for role, token in given.items():
        if token is not None:
            configured[role] = token.get_secret_value()  # type: ignore[attr-defined]

    def find_learner(token_hash: bytes) -> str | None:
        member = runtime.federation.roster.by_token(token_hash)
        if member is None:
            return None
        if member.key_hash is not None:
            runtime.note_used(member)
        return member.id

    return Tokens(configured, find_learner)


def _known(runtime: Runtime) -> Callable[[Mapping[str, str], Identity], None]:
    def check(parameters: Mapping[str, str], caller: Identity) -> None:
        state = runtime.federation
        if task_id := parameters.get("task_id"):
            state.offers.get(task_id, caller.learner)
        if run_id := parameters.get("run_id"):
            state.find_run(run_id)
        if learner_id := parameters.get("learner_id"):
            state.roster.get(learner_id)

    return check


async def _document(request: Request) -> Response:
    return JSONResponse(describe(request.app), headers={"Cache-Control": "no-cache"})
