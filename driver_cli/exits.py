"""Exit statuses of the command line, and how an error becomes one: a sentence on stderr, never a traceback.

0 done (a run that an operator stopped ended as asked, and is done too) · 1 the run failed, or the controller refused ·
2 wrong usage, a refused configuration or token · 3 the controller cannot be reached · 130 interrupted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from typing import Any, Final, NoReturn, TypeVar

from services import errors
from services.process import on_signals, plain

T = TypeVar("T")

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130

STATUS: Final[dict[type[errors.FederationError], int]] = {
    errors.FederationError: FAILED,
    errors.InvalidRequest: USAGE,
    errors.NotParseable: USAGE,
    errors.Unauthenticated: USAGE,
    errors.Forbidden: USAGE,
    errors.Unreachable: UNREACHABLE,
    errors.UnexpectedAnswer: UNREACHABLE,
    errors.ProxyRefused: FAILED,
    errors.Unavailable: UNREACHABLE,
}

NEXT: Final[dict[type[errors.FederationError], str]] = {
    errors.Unreachable: "start it with `metis-controller`, or name another: --controller URL, METIS_CONTROLLER_URL",
    errors.UnexpectedAnswer: "check --controller (METIS_CONTROLLER_URL)",
    errors.ProxyUnavailable: "",  # these two say it themselves
    errors.ProxyRefused: "",
    errors.Unauthenticated: "give the operator's token with --token-file FILE, or in METIS_TOKEN",
    errors.Forbidden: "this needs the operator's token: --token-file FILE, or METIS_TOKEN",
    errors.RunActive: "`metis watch` follows it, `metis run --attach` takes it over, `metis stop` ends it",
    errors.UnknownRun: "`metis run` starts one",
    errors.NotManual: 'post the run with advance = "manual" to start its rounds by hand',
}


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or a closed terminal ended the command, after it had tidied up."""


class ChildDied(Exception):
    """A process that this command started ended before its time; the message holds the tail of its log."""


def status_of(error: BaseException) -> int:
    """The exit status for `error`: that of its nearest class in `STATUS`."""
    if isinstance(error, Interrupted | KeyboardInterrupt | asyncio.CancelledError):
        return INTERRUPTED
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), FAILED)


def status_of_results(results: Mapping[str, Any]) -> int:
    """The exit status for a run that has ended: a run that was stopped ended as asked."""
    return FAILED if results["run"]["state"] == "failed" else DONE


def explain(error: BaseException) -> str:
    """`error` in a sentence, with what to do next where that is known."""
    if isinstance(error, errors.FederationError):
        hint = next((NEXT[kind] for kind in type(error).__mro__ if kind in NEXT), None)
        if "CERTIFICATE_VERIFY_FAILED" in error.detail:
            hint = "give the PEM file that its certificate is signed with: --root-certificate, METIS_ROOT_CERTIFICATE"
        return f"{error.detail}\n  {hint}" if hint else error.detail
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, Interrupted | ChildDied):
        return str(error)
    return f"{type(error).__name__}: {error}\n  METIS_DEBUG=1 shows where this came from"


def leave(error: BaseException) -> NoReturn:
    """Say what went wrong on stderr and exit with its status."""
    while isinstance(error, BaseExceptionGroup):  # of a TaskGroup: the first that failed ended the others
        error = error.exceptions[0]
    if isinstance(error, BrokenPipeError):  # of `metis … | head`: there is nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        sys.exit(FAILED)
    if os.environ.get("METIS_DEBUG"):
        raise error
    if text := explain(error):
        print(f"metis: {plain(text)}", file=sys.stderr, flush=True)
    sys.exit(status_of(error))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main`; Ctrl-C, SIGTERM and a closed terminal cancel it, which raises Interrupted once it has tidied up."""
    try:
        return asyncio.run(_interruptible(main))
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted") from error


async def _interruptible(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    with on_signals(task.cancel, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        try:
            return await task
        except asyncio.CancelledError as error:
            raise Interrupted("interrupted") from error
