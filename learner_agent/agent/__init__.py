"""The agent: it enrols a learner in a federation, takes its tasks, has them done and sends what comes out."""

from .agent import Agent, Source
from .factory import make_learner
from .learner_process import LearnerProcess
from .sources import Webhook, poll
from .state_file import StateFile, state_path
from .task_report import LearnerFailed, progress
from .tasks import LearnerAtWork, Work
from .threads import limit_threads
from .webhook import Listener

__all__ = [
    "Agent",
    "LearnerAtWork",
    "LearnerFailed",
    "LearnerProcess",
    "Listener",
    "Source",
    "StateFile",
    "Webhook",
    "Work",
    "limit_threads",
    "make_learner",
    "poll",
    "progress",
    "state_path",
]
