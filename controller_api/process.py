"""A controller process: its settings from the environment, its log, its server."""

from __future__ import annotations

import contextlib
import logging
import resource
import signal
import sys
from typing import Any

import structlog

from services import ControllerConfig, ModelStoreConfig
from services.process.environment import secret
from services.process.garbage import collect_seldom

from .app import create_app
from .server import Server
from .settings import Settings

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
    start_log(settings)
    app = create_app(settings, controller_config, model_store_config)
    if settings.open:
        structlog.get_logger("controller").warning(
            "running open: no token is configured, everyone who reaches this address is the operator"
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


class Lossy:
    """Standard error, whose lines are lost while it cannot be written: a full disk stops nobody by its log."""

    def write(self, text: str) -> None:
        """See io.TextIOBase."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """See io.TextIOBase."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def start_log(settings: Settings) -> None:
    """Lines on standard error: for people on a terminal, else JSON."""
    pretty = settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())
    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer: Any = for_people if pretty else structlog.processors.JSONRenderer()
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not pretty else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(Lossy()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
