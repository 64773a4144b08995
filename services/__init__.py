"""The domain of the federation: its configuration, its rules, its state machine, and the client of its contract."""

from .config import ClientParams, ControllerConfig, ModelStoreConfig, RunConfig, ServerParams, TerminationSignals

TerminationSingals = TerminationSignals  # MetisFL's spelling
__version__ = "0.1.0"

__all__ = [
    "ClientParams",
    "ControllerConfig",
    "ModelStoreConfig",
    "RunConfig",
    "ServerParams",
    "TerminationSignals",
    "TerminationSingals",
]
