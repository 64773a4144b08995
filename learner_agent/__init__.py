"""The learner's side: implement `Learner`, call `app(learner, client_params=…)`."""

from .learner import Learner
from .reporting import progress
from .run import app

__all__ = ["Learner", "app", "progress"]
