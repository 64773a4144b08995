"""How a learner's updates fare: one that is refused in three rounds in a row is put aside, and is given no tasks.

One that could not do its last train task, or has not fetched its last task, is `failing`: it is shown, and who is away
is not drawn while others are there.

What is counted are rounds, not bodies: a learner may correct an update and send it again. An update that is taken says
that all is well. An operator lets a learner back, and so does its own restart: whoever starts it again has looked.
"""

from __future__ import annotations

from typing import Literal

from ..failures import one_line
from .journal import Journal
from .roster import Member
from .rounds import Assignment

REFUSED_ROUNDS = 3  # in a row, after which a learner is put aside

Health = Literal["ok", "failing", "aside"]


def health_of(member: Member) -> Health:
    """In a word, as the contract shows it."""
    if member.aside is not None:
        return "aside"
    return "failing" if member.refused or member.failed or member.away else "ok"


def reason_of(member: Member) -> str | None:
    """Why it is not well."""
    if member.aside is None and member.failed:
        return f"its last {member.failed} train tasks failed, the newest: {member.failure}"
    if member.aside is None and member.away:
        return "it has not asked for its last task before the round closed"
    return member.aside


def note_failed(member: Member, why: str) -> None:
    """It could not do a train task."""
    member.failed, member.failure = member.failed + 1, one_line(why)


def note_refused(member: Member, task_id: str, why: str) -> bool:
    """The update of a task was refused; whether that is told for the first time of this task."""
    if member.refused_task == task_id:
        return False
    member.refused, member.refused_task = member.refused + 1, task_id
    if member.refused >= REFUSED_ROUNDS and member.aside is None:
        member.aside = f"its updates were refused in {member.refused} rounds in a row, the last one: {one_line(why)}"
    return True


def tell_refused(journal: Journal, member: Member, task: Assignment, why: str, now: float) -> None:
    """Tell of an update that was refused, and of its learner if that put it aside."""
    reason = one_line(why)
    text, data = f"{member.name}'s update was refused: {reason}", {"task": task.id, "reason": reason}
    journal.emit(now, "update-refused", text, run=task.run_id, round_number=task.round, learner=member.name, data=data)
    if member.aside is not None:
        text = (
            f"{member.name} is put aside and gets no tasks: {member.aside}; once that is mended,"
            f" `metis readmit {member.name}` or its restart lets it back"
        )
        journal.emit(now, "learner-aside", text, learner=member.name, data={"reason": member.aside})


def clear(member: Member) -> bool:
    """An update was taken, or somebody lets the learner back; whether there was something to forget."""
    known = bool(member.refused or member.failed) or member.aside is not None
    member.refused, member.refused_task, member.aside = 0, "", None
    member.failed, member.failure = 0, ""
    return known
