"""The options of `metis run` as a sparse RunConfig, over the one in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services import config as cfg

from . import settings, until

PATHS = {
    "learners": "min_learners",
    "rounds": "termination.federation_rounds",
    "minutes": "termination.execution_cutoff_time_mins",
    "patience": "termination.patience_rounds",
    "scheduler": "scheduler",
    "rule": "aggregation_rule",
    "scaling_factor": "scaling_factor",
    "participation": "selection.participation_ratio",
}


def run_config(file: Path | None, given: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The file, then the options that were given, then each `--set`; raises InvalidConfig for what cannot be."""
    config = settings.sparse(file)
    if given.get("until") is not None:
        config = cfg.merge(config, {"termination": until.parse(given["until"])})
    for name, path in PATHS.items():
        if given.get(name) is not None:
            config = cfg.merge(config, settings.nested(path, given[name]))
    return settings.checked(cfg.merge(config, settings.of_options(assignments)))
