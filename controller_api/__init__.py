"""The controller: the federation behind HTTP."""

from .controller import Controller

__all__ = ["Controller"]
