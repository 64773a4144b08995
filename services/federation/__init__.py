"""The state machine of a federation: learners, runs, rounds and tasks, synchronous and pure."""

from __future__ import annotations

from .changes import Changes
from .controls import Held, Shift
from .federation import Federation
from .job import Aggregation, Share
from .journal import Entry, Journal
from .manifest import ARITHMETIC, Counted, Manifest, config_digest, fingerprint_of
from .plan import Plan, check_names, plan
from .roster import EnrolmentRate, Member
from .rounds import Assignment, ModelInfo, Outcome, RoundState, States
from .run import RunState
from .shares import take_newest

__all__ = [
    "ARITHMETIC",
    "Aggregation",
    "Assignment",
    "Changes",
    "Counted",
    "EnrolmentRate",
    "Entry",
    "Federation",
    "Held",
    "Journal",
    "Manifest",
    "Member",
    "ModelInfo",
    "Outcome",
    "Plan",
    "RoundState",
    "RunState",
    "Share",
    "Shift",
    "States",
    "check_names",
    "config_digest",
    "fingerprint_of",
    "plan",
    "take_newest",
]
