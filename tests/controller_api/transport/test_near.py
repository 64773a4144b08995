"""What may be on its way to a peer that is near is bounded; to others it is the system's choice."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from controller_api.transport import protocol as near


@pytest.fixture
def accepted() -> Iterator[socket.socket]:
    """A connection from this machine, as a server sees it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        yield connection


def buffer_of(connection: socket.socket) -> int:
    """Bytes that the system lets be on their way (twice what was set: Linux counts its own overhead)."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@pytest.mark.skipif(sys.platform != "linux", reason="tells round-trip times by Linux's TCP_INFO")
def test_a_near_peer_is_bounded(accepted: socket.socket) -> None:
    """One on this machine is near."""
    before = buffer_of(accepted)
    near.bound(accepted)
    assert before > buffer_of(accepted) <= 2 * near.ON_THEIR_WAY


def test_a_far_peer_is_not(accepted: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is nearer than at once."""
    monkeypatch.setattr(near, "NEAR_S", 0.0)
    before = buffer_of(accepted)
    near.bound(accepted)
    assert buffer_of(accepted) == before


def test_other_sockets_are_left_alone() -> None:
    """A Unix socket has no round-trip time."""
    one, other = socket.socketpair()
    with one, other:
        near.bound(one)
