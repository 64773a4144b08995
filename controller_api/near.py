"""How much may be on its way to a peer that is near.

The kernel lets megabytes be on their way, which a long way needs (bandwidth times delay). Over a short one they only
make the data leave the processor's cache before the peer reads them: on one machine that halves the speed.
"""

from __future__ import annotations

import socket
import struct

NEAR_S = 200e-6  # round-trip time of a peer on this machine, at most
ON_THEIR_WAY = 1 << 18  # bytes: over NEAR_S still a gigabyte per second
RTT = struct.Struct("68xI")  # tcpi_rtt of Linux's struct tcp_info, in microseconds


def bound(connection: socket.socket) -> None:
    """Bound what may be on its way, if the peer is near; does nothing where the system cannot tell."""
    if not hasattr(socket, "TCP_INFO") or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RTT.size)
    if len(info) == RTT.size and RTT.unpack(info)[0] < NEAR_S * 1e6:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ON_THEIR_WAY)
