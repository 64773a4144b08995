"""What is told of a failure: one line, and its traceback apart. Both are bounded, and neither shows a variable."""

from __future__ import annotations

from collections.abc import Sequence
from traceback import TracebackException
from types import TracebackType
from typing import NamedTuple

LINE = 500  # characters of the one line
LINES, WIDTH = 40, 200  # of a traceback, and characters of each
TRACEBACK = LINES * (WIDTH + 1)  # characters of the whole
FIRST = 16  # lines that are kept of its beginning when it is longer
FRAMES = 24  # of each exception in it, the innermost
UNKNOWN = "no reason given"


class Reason(NamedTuple):
    """Why something failed."""

    line: str
    traceback: str | None = None


def of_error(error: BaseException, begin: TracebackType | None = None, place: str = "") -> Reason:
    """Type and first line of the message, and the place if one is given. The traceback begins at `begin`.

    What an error says of itself may be long and costs as much: of a user's error, call it in a thread.
    """
    told = TracebackException(type(error), error, begin or error.__traceback__, limit=-FRAMES, compact=True)
    name, where = one_line(type(error).__name__, 100), f" ({one_line(place, 100)})" if place else ""
    said = one_line(str(told), LINE - len(name) - len(where) - 2)
    text = bounded("".join(part[:TRACEBACK] for part in told.format()))
    return Reason(f"{name}: {said}{where}" if said else f"{name}{where}", text)


def split(error: str, traceback: str | None = None) -> Reason:
    """What a learner told of a failure. Those of 0.1 tell all of a traceback, or of a stack, as their `error`."""
    lines = [line for line in error.splitlines() if line.strip()]
    if traceback is None and len(lines) > 1:
        traceback = error
    return Reason(one_line(_message(lines)) or UNKNOWN, bounded(traceback or "") or None)


def one_line(text: str, most: int = LINE) -> str:
    """The first line that says something, of at most so many characters, all of which can be printed."""
    line = next(iter(text.lstrip()[: most + 1].splitlines()), "")
    return shortened(_printable(line).strip(), most)


def shortened(text: str, most: int = LINE) -> str:
    """A text of a bounded length."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def bounded(traceback: str) -> str:
    """A traceback of at most so many lines, its first and its last ones, each of a bounded length, and printable."""
    lines = traceback.strip("\r\n").splitlines()
    if len(lines) > LINES:
        last = LINES - FIRST - 1
        lines = [*lines[:FIRST], f"… {len(lines) - FIRST - last} lines …", *lines[-last:]]
    return "\n".join(_printable(shortened(line, WIDTH)) for line in lines).rstrip()


def _printable(line: str) -> str:
    """Without what moves a terminal's cursor, turns text round, or is half a character."""
    return "".join(one if one.isprintable() else " " for one in line)


def _message(lines: Sequence[str]) -> str:
    """The line with the message. Of a traceback of Python's it comes after the last frame; a stack of JavaScript's or
    Java's begins with it, and so does what is neither."""
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if frames or (lines and lines[0].startswith("Traceback")):
        after = lines[frames[-1] + 1 if frames else 1 :]
        return next((line for line in after if not line.startswith(" ")), lines[-1])
    return lines[0] if lines else ""


__all__ = ["LINE", "TRACEBACK", "Reason", "bounded", "of_error", "one_line", "shortened", "split"]
