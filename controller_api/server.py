"""A controller process: its settings from the environment, its log, and uvicorn with the controller's app.

It ends in order: polls at once, running uploads within a grace, then the process. The first SIGTERM or SIGINT ends it
in this order, the second at once. Either way what was acknowledged is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from services import ControllerConfig, ModelStoreConfig
from services.process import collect_seldom, secret, start_log

from .app import create_app
from .runtime import Runtime
from .settings import Settings
from .transport import ZeroCopyProtocol

KEEP_ALIVE_S = 75  # longer than the clients keep idle connections, so that none is closed while it is taken
GRACE_S = 15  # how long running uploads may take at the end
CANCEL_S = 1  # and then, once their connections are cut, what is still done with them
LAST_S = 15.0  # and after them an aggregation that is under way; a controller that is started again does it anew
ECHO_S = 0.1  # a signal that comes again so soon is the same: timeout(1) sends it to a process and to its group
SIGNALLED = 128  # exit status of a process that a signal ended at once: this and the signal's number
log = structlog.get_logger("controller")


class Server(uvicorn.Server):
    """A uvicorn server that also ends when the federation is over."""

    def __init__(self, app: FastAPI, settings: Settings, zero_copy: bool = True) -> None:
        """`zero_copy` False serves by uvicorn's stock protocol."""
        self.runtime: Runtime = app.state.runtime
        self.tls = settings.server_certificate is not None
        self._asked_at = 0.0  # to end, by a signal
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                ws="none",  # an upgrade is answered as the plain request that it also is
                http=ZeroCopyProtocol if zero_copy else "httptools",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S + CANCEL_S,
                backlog=4096,
                ssl_certfile=settings.server_certificate,
                ssl_keyfile=settings.private_key,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where. In the place of uvicorn's own, which leaves a minute to a TLS hand-shake."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        settings, config, loop = self.runtime.settings, self.config, asyncio.get_running_loop()
        try:
            listening = await loop.create_server(
                lambda: config.http_protocol_class(config, self.server_state, self.lifespan.state),  # type: ignore[call-arg]
                config.host,
                config.port,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=settings.tls_handshake_s if self.tls else None,
            )
        except OSError as error:
            log.error("cannot listen", why=str(error))
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        self.servers = [listening]
        self.started = True
        log.info("listening", url=self.url, docs=f"{self.url}/docs", open=settings.open)
        self._watch = asyncio.create_task(self._end_when_over())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order at the first signal, at once at the second."""
        now = time.monotonic()
        if not self._captured_signals:
            self._asked_at = now
            super().handle_exit(sig, frame)
        elif now - self._asked_at > ECHO_S:
            os._exit(SIGNALLED + sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let polls and event streams end, then running uploads, then close."""
        self._watch.cancel()
        loop = asyncio.get_running_loop()
        grace = loop.call_later(GRACE_S, self._cut)
        if self._captured_signals:
            log.info("ending: running uploads are waited for", at_most_s=GRACE_S)
            loop.call_later(GRACE_S + LAST_S, os._exit, 0)
        self.runtime.drain()
        await super().shutdown(sockets)
        grace.cancel()

    def _cut(self) -> None:
        """The grace is over: an upload that is not whole is lost with its connection."""
        log.warning("ending: connections are cut", connections=len(self.server_state.connections))
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def _end_when_over(self) -> None:
        await self.runtime.stopped.wait()
        self.should_exit = True

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{port}"


SECRETS = ("enroll_token", "operator_token", "viewer_token", "model_store_url")


def settings_from_environment(**flags: Any) -> Settings:
    """Settings of `METIS_*`, overridden by the flags that are not None. Raises ValueError with what is wrong."""
    given = {name: value for name, value in flags.items() if value is not None}
    for name in SECRETS:
        if name not in given and (value := secret(f"METIS_{name.upper()}")):
            given[name] = value
    return Settings(**given)


def serve(
    settings: Settings,
    controller_config: ControllerConfig | None = None,
    model_store_config: ModelStoreConfig | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or the federation's end."""
    pretty = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    start_log(getattr(logging, settings.log_level.upper()), "iso", as_json=not pretty, cached=True)
    app = create_app(settings, controller_config, model_store_config)
    if settings.open:
        structlog.get_logger("controller").warning(
            "running open: no token is configured, everyone who reaches this address is the operator"
        )
    elif settings.in_clear:
        log.warning(
            "tokens travel in clear: give certificates, or listen on 127.0.0.1 behind a proxy that ends TLS;"
            " --require-tls refuses to start without",
            host=settings.host,
        )
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # uvicorn raises it again after its shutdown
    collect_seldom()
    allow_descriptors()
    with contextlib.suppress(KeyboardInterrupt):
        Server(app, settings).run()


def allow_descriptors() -> None:
    """As many as the system lets this process have: each learner that polls holds one, and while a round is aggregated
    each update on disk does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
