"""From `module:factory`, as the command line gives it, to a learner."""

from __future__ import annotations

import importlib
import os
import sys

from .learner import Learner

METHODS = ("get_weights", "set_weights", "train", "evaluate")


def make(spec: str) -> Learner:
    """The learner of `module:factory`; the working directory is importable.

    Raises ValueError for a spec of another form, ImportError, AttributeError, TypeError for what is no learner, and
    whatever the factory raises.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ValueError("write it as module:factory, for example learner_agent.digits:digits_learner")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    made = getattr(importlib.import_module(module_name), attribute)()
    missing = [method for method in METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise TypeError(f"{type(made).__name__} is no learner: it lacks {', '.join(missing)}")
    return made  # type: ignore[no-any-return]
