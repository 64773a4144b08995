"""How a learner's updates fare: one that is refused in three rounds in a row is put aside, and is given no tasks.

What is counted are rounds, not bodies: a learner may correct an update and send it again. An update that is taken says
that all is well. An operator lets a learner back, and so does its own restart: whoever starts it again has looked.
"""

from __future__ import annotations

from typing import Literal

from ..failures import one_line
from .roster import Member

REFUSED_ROUNDS = 3  # in a row, after which a learner is put aside

Health = Literal["ok", "failing", "aside"]


def health_of(member: Member) -> Health:
    """In a word, as the contract shows it."""
    if member.aside is not None:
        return "aside"
    return "failing" if member.refused else "ok"


def note_refused(member: Member, task_id: str, why: str) -> bool:
    """The update of a task was refused; whether that is told for the first time of this task."""
    if member.refused_task == task_id:
        return False
    member.refused, member.refused_task = member.refused + 1, task_id
    if member.refused >= REFUSED_ROUNDS and member.aside is None:
        member.aside = f"its updates were refused in {member.refused} rounds in a row, the last one: {one_line(why)}"
    return True


def clear(member: Member) -> bool:
    """An update was taken, or somebody lets the learner back; whether there was something to forget."""
    known = bool(member.refused) or member.aside is not None
    member.refused, member.refused_task, member.aside = 0, "", None
    return known
