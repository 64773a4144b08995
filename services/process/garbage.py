"""The garbage collector of a process that works for long: what is there when it has started is not looked at again."""

from __future__ import annotations

import gc

YOUNG = 10_000  # new objects that may be garbage in cycles before they are looked through: a megabyte or two


def freeze() -> None:
    """What is here by now stays. To look through all modules again and again takes pauses of tens of milliseconds."""
    gc.collect()
    gc.freeze()


def collect_seldom() -> None:
    """The same, and new objects are seldom looked through: with thousands of waiting polls that is half of their CPU.

    For processes whose large buffers are not part of cycles.
    """
    freeze()
    gc.set_threshold(YOUNG)
