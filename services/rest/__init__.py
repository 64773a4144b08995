"""The client's side of the HTTP contract."""

from .client import Client

__all__ = ["Client"]
