"""Model sizes of the MetisFL paper's stress test (Stripelis et al. 2023, arXiv:2311.00334), and lists of them.

The model has 13 inputs, 100 hidden layers of one width and one output, all float32.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from services.errors import InvalidConfig

INPUTS, HIDDEN_LAYERS = 13, 100
WIDTHS = {100_000: 32, 1_000_000: 100, 10_000_000: 320}  # the paper's: 106,081, 1,011,501 and 10,276,801 parameters
UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
MOST_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class Size:
    """A model size: the name that was asked for, and the width that comes nearest."""

    name: str
    width: int

    @property
    def params(self) -> int:
        """Number of parameters."""
        w = self.width
        return (INPUTS * w + w) + HIDDEN_LAYERS * (w * w + w) + (w + 1)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return 4 * self.params

    @property
    def asked_of_learners(self) -> int:
        """What `learner_agent.synthetic --params` makes this width of."""
        return HIDDEN_LAYERS * self.width**2


def sizes(text: str) -> list[Size]:
    """The sizes in a list such as `100k,1M,10M`; raises InvalidConfig."""
    return [_size(part.strip()) for part in text.split(",")]


def counts(text: str, most: int) -> list[int]:
    """The numbers in a list such as `10,25`, each from 1 to `most`; raises InvalidConfig."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", part) and 1 <= int(part) <= most for part in parts):
        raise InvalidConfig(f"{text!r} is not a list of numbers from 1 to {most}; write 10 or 10,25,50", got=text)
    return [int(part) for part in parts]


def _size(text: str) -> Size:
    found = re.fullmatch(r"([0-9]{1,10})(k|M|)", text)
    asked = int(found[1]) * UNITS[found[2]] if found else 0
    if not 1 <= asked <= MOST_PARAMETERS:
        raise InvalidConfig(f"{text!r} is not a number of parameters; write 106081, 100k or 10M", got=text)
    return Size(text, WIDTHS.get(asked) or _width(asked))


def _width(params: int) -> int:
    """The width whose model has the number of parameters nearest to `params`: 100w² + 115w + 1 solved for w."""
    a, b = HIDDEN_LAYERS, INPUTS + HIDDEN_LAYERS + 2
    return max(1, round((math.sqrt(b * b + 4 * a * (params - 1)) - b) / (2 * a)))
