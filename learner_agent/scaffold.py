"""`Scaffold` where version 0.1 had it: imports of that time go on working until 1.0."""

from __future__ import annotations

import warnings

from .pytorch import Scaffold

__all__ = ["Scaffold"]
warnings.warn("import Scaffold from learner_agent.pytorch", DeprecationWarning, stacklevel=2)
