"""The learner's side: implement `Learner`, call `app(learner, client_params=…)`."""

from .agent import progress
from .batches import TimedBatches
from .learner import Learner
from .membership import app

__all__ = ["Learner", "TimedBatches", "app", "progress"]
