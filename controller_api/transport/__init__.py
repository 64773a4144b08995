"""Bytes between sockets and memory: the server's protocol, bodies and their pace, slots, resumed uploads, answers of
weights, and what is left of a body that was answered."""

from __future__ import annotations

from .bodies import INLINE, collect, receive
from .incoming import Incoming, incoming_of
from .pace import Pace, Rules
from .protocol import ZeroCopyProtocol
from .rest import Rest
from .slots import Slots
from .strangers import Strangers
from .uploads import Uploads
from .weights_response import WeightsResponse

__all__ = [
    "INLINE",
    "Incoming",
    "Pace",
    "Rest",
    "Rules",
    "Slots",
    "Strangers",
    "Uploads",
    "WeightsResponse",
    "ZeroCopyProtocol",
    "collect",
    "incoming_of",
    "receive",
]
