"""A failure in a line, and its traceback apart: bounded, without variables, and split out of what 0.1 tells."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

import pytest

from services.failures import LINE, LINES, TRACEBACK, WIDTH, bounded, of_error, one_line, split

OLD = "Traceback (most recent call last):\n" + '  File "a.py", line 3, in train\n    load(rows)\n' * 2


def caught(call: Callable[[], object]) -> BaseException:
    """What a call raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raise_(error: BaseException) -> None:
    """Raise it."""
    patients = ["".join(("can", "ary"))] * 3  # no source line holds the word
    raise error if patients else AssertionError


# ---- of an error
def test_a_line_and_a_traceback() -> None:
    """Type and first line of the message, the place where one is given; the traceback as Python has it."""
    error = caught(lambda: raise_(ValueError("no rows\nof 2024")))
    told = of_error(error, place="clinic.py:41 in train")
    assert told.line == "ValueError: no rows (clinic.py:41 in train)"
    assert told.traceback == "".join(traceback.format_exception(error)).strip()
    assert "canary" not in (told.traceback or "")
    assert of_error(KeyError()).line == "KeyError"


def test_it_may_begin_further_in() -> None:
    """Frames before `begin` are left out."""
    error = caught(lambda: raise_(ValueError("x")))
    assert error.__traceback__
    assert error.__traceback__.tb_next
    told = of_error(error, error.__traceback__.tb_next).traceback or ""
    assert "in caught" not in told
    assert "in raise_" in told


def chain(length: int) -> None:
    """An error with as many before it."""
    error: BaseException = ValueError("the first")
    for number in range(length):
        made = ValueError(f"number {number}")
        made.__cause__, error = error, made
    raise error


def deep(level: int) -> None:
    """A recursion."""
    if level:
        (even if level % 2 else deep)(level - 1)
    else:
        raise ValueError("deep")


def even(level: int) -> None:
    """The other half of it: two frames that take turns are not told as one that is repeated."""
    deep(level)


@pytest.mark.parametrize(
    "call",
    [
        lambda: raise_(ValueError("x" * 20_000_000)),
        lambda: raise_(ValueError("\n".join(["x"] * 1_000_000))),
        lambda: raise_(ValueError("\ud800\x1b[2J\u202e" * 1000)),
        lambda: raise_(ExceptionGroup("many", [ValueError("y" * 1000)] * 1000)),
        lambda: chain(300),
        lambda: deep(sys.getrecursionlimit() // 2),
        lambda: raise_(type("N" * 5000, (Exception,), {"__str__": lambda self: 1 / 0})()),
    ],
)
def test_whatever_is_raised_is_told_in_bounds(call: Callable[[], object]) -> None:
    """In time, in a line that can be printed, in a traceback whose lines can be, too."""
    error, began = caught(call), time.process_time()
    line, trace = of_error(error, place="p" * 1000)
    assert time.process_time() - began < 5
    assert trace
    assert line.isprintable()
    assert len(line) <= LINE + 110  # a place is never cut off by a message
    assert len(trace) <= TRACEBACK
    assert max(map(len, trace.splitlines())) <= WIDTH
    assert len(trace.splitlines()) <= LINES
    assert all(one.isprintable() for one in trace.splitlines())


def test_the_first_and_the_last_lines_are_kept() -> None:
    """What is left out between them is counted."""
    lines = bounded("\n".join(map(str, range(100)))).splitlines()
    assert len(lines) == LINES
    assert (lines[0], lines[16], lines[-1]) == ("0", "… 61 lines …", "99")
    assert lines[17] == "77"


# ---- what was told
@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ValueError: no rows", "ValueError: no rows"),
        ("unsupported-task", "unsupported-task"),
        ("", "no reason given"),
        (" \n\t\n", "no reason given"),
        (f"{OLD}ValueError: no rows", "ValueError: no rows"),
        (f"{OLD}ValueError: no rows\nof 2024\n  at all", "ValueError: no rows"),
        (f"{OLD[OLD.index('  File') :]}ValueError: no rows", "ValueError: no rows"),  # the last twelve lines of it
        (f"{OLD}KeyError: 1\n\nDuring handling …:\n\n{OLD}ValueError: no rows", "ValueError: no rows"),
        (f"{OLD}learner_agent.LearnerFailed: {OLD}ValueError: no rows", "ValueError: no rows"),
        ("Traceback …\nMemoryError: no memory", "MemoryError: no memory"),
        ("TypeError: no rows\n    at train (file.js:3:7)\n    at run (main.js:9:1)", "TypeError: no rows"),
        ("java.lang.Error: no rows\n\tat Clinic.train(Clinic.java:4)", "java.lang.Error: no rows"),
        ("thread 'main' panicked at 'no rows'\nnote: run with …", "thread 'main' panicked at 'no rows'"),
        ("\n\nfirst\nsecond", "first"),
    ],
)
def test_the_line_with_the_message_is_found(error: str, line: str) -> None:
    """All of what was told in several lines is the traceback."""
    told = split(error)
    assert told.line == line
    whole = error.strip("\n").replace("\t", " ")
    assert told.traceback == (whole if "\n" in error and error.strip() else None)
    assert split(error, "the traceback\n apart") == (line, "the traceback\n apart")
    assert split(told.line, told.traceback) == told


def test_what_was_told_is_bounded_and_can_be_printed() -> None:
    """Whatever it holds."""
    line, trace = split("x" * 20000 + "\n" + "\x1b]0;\n" * 9000)
    assert (len(line), len((trace or "").splitlines())) == (LINE, LINES)
    assert one_line("a\x1b[2Jb\x85c") == "a [2Jb"
    assert one_line("\u202egnp.exe") == "gnp.exe"
