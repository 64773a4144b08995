"""A run in the driver's hands, from its configuration to the results that it leaves."""

from . import run_config
from .connection import Connection, connection_to, token_of_file
from .driver_session import DriverSession
from .run_handle import RunHandle

__all__ = ["Connection", "DriverSession", "RunHandle", "connection_to", "run_config", "token_of_file"]
