"""`Proximal` where version 0.1 had it: imports of that time go on working until 1.0."""

from __future__ import annotations

import warnings

from .pytorch import Proximal

__all__ = ["Proximal"]
warnings.warn("import Proximal from learner_agent.pytorch", DeprecationWarning, stacklevel=2)
