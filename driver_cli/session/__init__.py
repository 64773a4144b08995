"""A run in the driver's hands, from its configuration to the results that it leaves."""

from . import run_config
from .driver_session import DriverSession
from .run_handle import RunHandle

__all__ = ["DriverSession", "RunHandle", "run_config"]
