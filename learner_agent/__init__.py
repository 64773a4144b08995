"""The learner's side: implement `Learner`, call `app(learner, client_params=…)`."""

from .learner import Learner
from .reporting import progress
from .run import app
from .steps import TimedBatches

__all__ = ["Learner", "TimedBatches", "app", "progress"]
