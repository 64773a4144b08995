"""A network namespace of Linux from which packets vanish, silently: what a proxy cannot do."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress


def run_as_root(*command: str) -> None:
    """A command of the system; raises with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


class Namespace:
    """A network namespace that is joined to this one; in it a learner lives, from which packets are dropped."""

    INPUT, OUTPUT = "INPUT", "OUTPUT"

    def __init__(self) -> None:
        mark = os.getpid() % 10_000
        self.name, self.outer, self.inner = f"metis-{mark}", f"mo{mark}", f"mi{mark}"
        subnet = f"10.{200 + mark % 50}.{mark % 250}"
        self.here, self.there = f"{subnet}.1", f"{subnet}.2"

    def open(self) -> None:
        """Make it; raises OSError where that is not allowed."""
        run_as_root("ip", "netns", "add", self.name)
        run_as_root("ip", "link", "add", self.outer, "type", "veth", "peer", "name", self.inner)
        run_as_root("ip", "link", "set", self.inner, "netns", self.name)
        run_as_root("ip", "addr", "add", f"{self.here}/30", "dev", self.outer)
        run_as_root("ip", "link", "set", self.outer, "up")
        self.inside("ip", "addr", "add", f"{self.there}/30", "dev", self.inner)
        self.inside("ip", "link", "set", self.inner, "up")
        self.inside("iptables", "-w", "-S")

    def close(self) -> None:
        """Take it away, as far as it was made."""
        for command in (("ip", "netns", "del", self.name), ("ip", "link", "del", self.outer)):
            with suppress(OSError):
                run_as_root(*command)

    def inside(self, *command: str) -> None:
        """A command in it."""
        run_as_root("ip", "netns", "exec", self.name, *command)

    def drop(self, *chains: str) -> None:
        """Packets in (INPUT) or out (OUTPUT) vanish."""
        for chain in chains:
            self.inside("iptables", "-w", "-A", chain, "-j", "DROP")

    def heal(self) -> None:
        """No more packets vanish."""
        self.inside("iptables", "-w", "-F")

    def forget(self) -> None:
        """Heal, but the connections that are open stay dead without a word, as behind a router that lost its table."""
        said = subprocess.run(
            ["ip", "netns", "exec", self.name, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout
        ports = {int(line.split()[1].rpartition(":")[2], 16) for line in said.splitlines()[1:]}
        for port in ports:
            for chain, side in ((self.INPUT, "--dport"), (self.OUTPUT, "--sport")):
                self.inside("iptables", "-w", "-A", chain, "-p", "tcp", side, str(port), "-j", "DROP")
        for chain in (self.INPUT, self.OUTPUT):
            with suppress(OSError):
                self.inside("iptables", "-w", "-D", chain, "-j", "DROP")
