"""The domain of the federation: its configuration, its rules, its state machine, and the client of its contract."""

from .config import ClientParams, ControllerConfig, ModelStoreConfig, RunConfig, ServerParams, TerminationSignals

TerminationSingals = TerminationSignals  # MetisFL's spelling
__version__ = "0.1.0"
CONTRACT = 1  # of HTTP; raise it with a change after which a client written for the one before may fail

__all__ = [
    "ClientParams",
    "ControllerConfig",
    "ModelStoreConfig",
    "RunConfig",
    "ServerParams",
    "TerminationSignals",
    "TerminationSingals",
]
