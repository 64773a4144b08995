"""From `module:factory`, as the command line gives it, to a learner."""

from __future__ import annotations

from services.process import code_named

from ..learner import Learner

METHODS = ("get_weights", "set_weights", "train", "evaluate")


def make_learner(spec: str) -> Learner:
    """The learner of `module:factory`; the working directory is importable.

    Raises ValueError for a spec of another form, ImportError, AttributeError, TypeError for what is no learner, and
    whatever the factory raises.
    """
    made = code_named(spec, "learner_agent.digits:digits_learner")()
    missing = [method for method in METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise TypeError(f"{type(made).__name__} is no learner: it lacks {', '.join(missing)}")
    return made  # type: ignore[no-any-return]
