"""A process's own log on standard error: a line an event, tracebacks that are bounded and show no variable."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

from ..failures import bounded, of_error
from .terminal import plain_entry


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


class Bounded(logging.Formatter):
    """Records of the standard library's log, which asyncio and uvicorn write to."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return bounded(super().format(record))


def start_log(level: int = logging.INFO, stamp: str = "%H:%M:%S", as_json: bool = False, cached: bool = False) -> None:
    """For people, or one JSON object a line. `cached` loggers are faster and keep this configuration for ever."""
    import structlog  # only by processes that have a log

    for_people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer() if as_json else for_people
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt=stamp, utc=True),
            _tell_exception,
            *([] if as_json else [plain_entry]),  # JSON has its own way to write what is no text
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(Lossy()),  # type: ignore[arg-type]
        cache_logger_on_first_use=cached,
    )
    handler = logging.StreamHandler(Lossy())
    handler.setFormatter(Bounded("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _tell_exception(logger: Any, method: str, event: Any) -> Any:
    """Exceptions that other code gives to the log: structlog's own renderers show the variables of every frame."""
    given = event.pop("exc_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event["exception"] = of_error(error).traceback
    elif event.get("exception", "") is None:
        del event["exception"]
    return event
