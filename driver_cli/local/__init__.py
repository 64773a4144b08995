"""Federations on this machine alone. Others build on the processes, which are this room's face.

`demo`, `simulation` and `verification` are programs, each imported by the command that runs it: what one needs, the
others do not load.
"""

from .processes import HOST, Child, Children, LocalController, children, start_controller

__all__ = ["HOST", "Child", "Children", "LocalController", "children", "start_controller"]
