"""`python -m tests.attacks.probe PORT`: asks for /healthz without pause, and prints a line for each answer that took
more than a moment: when it was asked for, on the machine's monotonic clock, and how long it took, in seconds."""

from __future__ import annotations

import http.client
import sys
import time

MOMENT_S = 0.01
PAUSE_S = 0.002


def main(port: int) -> None:
    """Until it is killed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while True:
        start = time.monotonic()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        if (took := time.monotonic() - start) > MOMENT_S:
            print(start, took, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(int(sys.argv[1]))
