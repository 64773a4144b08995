"""A learner that writes down each time it trains, so that work done twice is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from learner_agent import Learner
from tests.e2e.adding_learner import Adds


class Counts(Adds):
    """Adds 1, and a line to the file TRAINED: the round that it trained for."""

    def train(self, weights: list[NDArray[Any]], config: dict[str, Any]) -> Any:
        """See the class."""
        with Path(os.environ["TRAINED"]).open("a") as file:
            file.write(f"{config['round']}\n")
        return super().train(weights, config)


def make() -> Learner:
    """The learner of this process."""
    return Counts(1.0)
