"""A controller on this machine, for the demo and the bench: started on a free port, waited for until it is healthy."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import tenacity

from services.errors import InvalidConfig, Unreachable

from ..race import race
from .processes import Child, Children

HOST = "127.0.0.1"
HEALTHY_S = 60.0  # how long a controller may take to start
ASK_S = 0.05  # how often it is asked meanwhile


@dataclass(frozen=True)
class LocalController:
    """A controller that this process started."""

    url: str
    process: Child


async def start_controller(
    started: Children, model_store: str, port: int = 0, environment: Mapping[str, str] | None = None
) -> LocalController:
    """Start a controller on the loopback interface, with `environment` as its other settings; wait until it answers.

    Raises InvalidConfig when the port is taken, ChildDied when it ends, Unreachable when it takes too long.
    """
    port = usable_port(port)
    data = started.folder / "controller"
    arguments = ("--host", HOST, "--port", str(port), "--data-dir", str(data), "--model-store", model_store)
    process = started.start("controller", "controller_api", *arguments, **(environment or {}))
    url = f"http://{HOST}:{port}"
    await race(_healthy(url), process.died())
    return LocalController(url, process)


def usable_port(port: int) -> int:
    """`port` if nothing listens on it; for 0 one that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be used: {error.strerror}"
            raise InvalidConfig(f"port {port} {why}; --port 0 takes a free one", port=port) from error
        return int(probe.getsockname()[1])


async def _healthy(url: str) -> None:
    """Ask until the controller answers that it is well."""
    attempts = tenacity.AsyncRetrying(
        wait=tenacity.wait_fixed(ASK_S),
        stop=tenacity.stop_after_delay(HEALTHY_S),
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            async for attempt in attempts:
                with attempt:
                    (await http.get(f"{url}/healthz")).raise_for_status()
    except tenacity.RetryError as error:
        raise Unreachable(f"the controller at {url} was not healthy after {HEALTHY_S:g} s", url=url) from error
