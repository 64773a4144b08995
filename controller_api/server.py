"""uvicorn with the controller's app: ends waiting polls before it waits for their connections."""

from __future__ import annotations

import asyncio
import socket

import structlog
import uvicorn
from fastapi import FastAPI

from .runtime import Runtime
from .settings import Settings
from .zero_copy import ZeroCopyProtocol

KEEP_ALIVE_S = 75  # longer than the clients keep idle connections, so that none is closed while it is taken
GRACE_S = 10  # how long running uploads may take at the end
log = structlog.get_logger("controller")


class Server(uvicorn.Server):
    """A uvicorn server that also ends when the federation is over."""

    def __init__(self, app: FastAPI, settings: Settings, zero_copy: bool = True) -> None:
        """`zero_copy` False serves by uvicorn's stock protocol."""
        self.runtime: Runtime = app.state.runtime
        self.tls = settings.server_certificate is not None
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
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                backlog=4096,
                ssl_certfile=settings.server_certificate,
                ssl_keyfile=settings.private_key,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            log.info("listening", url=self.url, docs=f"{self.url}/docs", open=self.runtime.settings.open)
            self._watch = asyncio.create_task(self._end_when_over())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let polls and event streams end, then close."""
        self._watch.cancel()
        self.runtime.drain()
        await super().shutdown(sockets)

    async def _end_when_over(self) -> None:
        await self.runtime.stopped.wait()
        self.should_exit = True

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{port}"
