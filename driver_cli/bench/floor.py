"""The floor of a federation round: bare loopback sockets, no framework, no HTTP, no hashing.

One process serves: a thread writes the model to N sockets while another reads N models in pieces and adds each piece,
weighted, into the mean while it is in cache. Another process holds the learners, a thread each, that read the model and
write it back. A round is: N models out, N in, their mean, N out again (to be evaluated), N replies of 16 bytes.
"""

from __future__ import annotations

import argparse
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..local import HOST
from .channel import Bench

PIECE = 256 * 1024  # bytes
TRAIN, EVALUATE = b"T", b"E"
REPLY = bytes(16)  # of a learner that has evaluated


def receive(connection: socket.socket, view: memoryview) -> None:
    """Fill `view`; raises EOFError when the peer has gone."""
    got = 0
    while got < len(view):
        count = connection.recv_into(view[got:])
        if not count:
            raise EOFError
        got += count


class Server:
    """The side of the controller."""

    def __init__(self, params: int, learners: int) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=learners)
        self.port: int = self._listener.getsockname()[1]
        self._learners = learners
        self._connections: list[socket.socket] = []
        self.model = np.random.default_rng(7).standard_normal(params, dtype=np.float32)
        self._mean = np.zeros_like(self.model)
        self._piece = np.empty(PIECE // 4, dtype=np.float32)

    def accept(self) -> None:
        """Wait for the learners."""
        while len(self._connections) < self._learners:
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)

    def round(self) -> float:
        """Do a round; seconds that it took."""
        start = time.perf_counter()
        self._mean.fill(0)
        self._phase(TRAIN, self._fold)
        self.model[:] = self._mean
        reply = memoryview(bytearray(REPLY))
        self._phase(EVALUATE, lambda connection: receive(connection, reply))
        return time.perf_counter() - start

    def close(self) -> None:
        """Let the learners go."""
        for connection in self._connections:
            connection.close()
        self._listener.close()

    def _phase(self, task: bytes, collect: Callable[[socket.socket], None]) -> None:
        sending = threading.Thread(target=self._dispatch, args=(task,))
        sending.start()
        for connection in self._connections:
            collect(connection)
        sending.join()

    def _dispatch(self, task: bytes) -> None:
        body = self.model.data.cast("B")
        for connection in self._connections:
            connection.sendall(task)
            connection.sendall(body)

    def _fold(self, connection: socket.socket) -> None:
        """Receive an update and add it into the mean."""
        weight, mean = np.float32(1 / self._learners), self._mean
        for at in range(0, len(mean), len(self._piece)):
            part: NDArray[Any] = self._piece[: min(len(self._piece), len(mean) - at)]
            receive(connection, part.data.cast("B"))
            np.multiply(part, weight, out=part)
            mean[at : at + len(part)] += part


def learn(port: int, index: int, params: int) -> None:
    """The side of one learner, until the server is gone."""
    connection = socket.create_connection((HOST, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    model = np.empty(params, dtype=np.float32)
    view, task = model.data.cast("B"), bytearray(1)
    try:
        while True:
            receive(connection, memoryview(task))
            receive(connection, view)
            if task == TRAIN:
                model[0] += 1e-3 * (index + 1)
                connection.sendall(view)
            else:
                connection.sendall(REPLY)
    except (EOFError, ConnectionError):
        return


def main() -> None:
    """Entry point: `python -m driver_cli.bench.floor`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=int, help="port of the bench, for the server")
    parser.add_argument("--join", type=int, help="port of the server, for the learners")
    parser.add_argument("--params", type=int, required=True)
    parser.add_argument("--learners", type=int, required=True)
    given = parser.parse_args()
    if given.join:
        for index in range(given.learners):
            threading.Thread(target=learn, args=(given.join, index, given.params)).start()
        return
    bench, server = Bench(given.bench), Server(given.params, given.learners)
    for question in bench.questions():
        if question["ask"] == "port":
            bench.answer(port=server.port)
        elif question["ask"] == "accept":
            server.accept()
            bench.answer()
        else:
            bench.answer(seconds=server.round())


if __name__ == "__main__":
    main()
