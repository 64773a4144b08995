"""Webhooks: signed calls that say "poll now", and the addresses to which they may go."""

from __future__ import annotations

from .delivery import Webhooks

__all__ = ["Webhooks"]
