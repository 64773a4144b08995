"""Bytes between sockets and memory: the server's protocol, bodies and their pace, slots, resumed uploads, answers of
weights."""

from __future__ import annotations

from .bodies import INLINE, collect, receive
from .incoming import Incoming, incoming_of
from .pace import Pace, Rules
from .protocol import ZeroCopyProtocol
from .slots import Slots
from .uploads import Uploads
from .weights_response import WeightsResponse

__all__ = [
    "INLINE",
    "Incoming",
    "Pace",
    "Rules",
    "Slots",
    "Uploads",
    "WeightsResponse",
    "ZeroCopyProtocol",
    "collect",
    "incoming_of",
    "receive",
]
