"""Bytes between sockets and memory: the server's protocol, bodies, resumed uploads, answers of weights."""

from __future__ import annotations

from .bodies import INLINE, collect, receive
from .protocol import ZeroCopyProtocol
from .uploads import Uploads
from .weights_response import WeightsResponse

__all__ = ["INLINE", "Uploads", "WeightsResponse", "ZeroCopyProtocol", "collect", "receive"]
