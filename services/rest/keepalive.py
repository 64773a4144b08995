"""Connections that notice when the other side is gone without a word: a router lost its table, a machine its power.

TCP alone would wait for a quarter of an hour for what it sent, and for ever for what it was promised.
"""

from __future__ import annotations

import socket

SILENT_S = 45  # what is sent is acknowledged after so long, or the connection is given up
IDLE_S, PROBE_S = 30, 5  # after so long without a byte the other side is probed, so often
OPTIONS = (
    ("TCP_KEEPIDLE", IDLE_S),
    ("TCP_KEEPINTVL", PROBE_S),
    ("TCP_KEEPCNT", (SILENT_S - IDLE_S) // PROBE_S),
    ("TCP_USER_TIMEOUT", SILENT_S * 1000),  # RFC 5482
)


def watch(connection: socket.socket) -> None:
    """Have the system notice it, as far as it can."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in OPTIONS:
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
