"""`--until 'accuracy>=0.9'`: a score that ends the run, as termination signals."""

from __future__ import annotations

import math
import re
from typing import Any

from services.errors import InvalidConfig

CONDITION = re.compile(r"^\s*(?P<metric>[^\s<>=!]+)\s*(?P<sign>>=|<=)\s*(?P<score>\S+)\s*$")
MODES = {">=": "max", "<=": "min"}


def parse(text: str) -> dict[str, Any]:
    """The `termination` table of `text`; raises InvalidConfig that shows how to write it."""
    found = CONDITION.match(text)
    score = _number(found["score"]) if found else None
    if found is None or score is None:
        raise InvalidConfig(f"--until {text!r}: write 'accuracy>=0.9' or 'loss<=0.2', in quotes", got=text)
    return {
        "evaluation_metric": found["metric"],
        "evaluation_metric_cutoff_score": score,
        "evaluation_metric_mode": MODES[found["sign"]],
    }


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
