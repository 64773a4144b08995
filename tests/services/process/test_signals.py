"""Signals beside users' code: what its processes take, who gets them back, and what ends with a program. Real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAD = """
import asyncio, multiprocessing, os, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from services.process import end_children, end_soon, on_signals
"""


def started(source: str) -> subprocess.Popen[str]:
    """A program that begins with `HEAD`."""
    return subprocess.Popen([sys.executable, "-c", HEAD + source], stdout=subprocess.PIPE, text=True)


def said(source: str) -> str:
    """What a program prints that ends by itself."""
    process = started(source)
    out, _ = process.communicate(timeout=60)
    return f"{out.strip()} {process.returncode}"


@pytest.mark.parametrize("ended_by", ["worker.terminate()", "os.kill(worker.pid, signal.SIGINT)"])
def test_a_forked_worker_takes_signals_plainly(ended_by: str) -> None:
    """It ends by one that is meant for it, and the loop of the process that forked it hears nothing; that of its own
    does."""
    out = said(f"""
def work():
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    time.sleep(0.3)
    {ended_by}
    worker.join(20)
    return worker.exitcode

async def main():
    heard = []
    with on_signals(lambda: heard.append("it"), signal.SIGTERM, signal.SIGINT):
        status = await asyncio.to_thread(work)
        await asyncio.sleep(0.2)
        print(status, heard, end=" ")
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        print(heard)

sys.stderr = open(os.devnull, "w")
asyncio.run(main())
""")
    assert out == f"{-signal.SIGTERM if 'terminate' in ended_by else 1} [] ['it'] 0"


def test_a_pool_that_is_left_by_its_with_ends_nobody_else() -> None:
    """multiprocessing.Pool ends its workers by SIGTERM."""
    out = said("""
def work():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])

async def main():
    heard = []
    with on_signals(lambda: heard.append("it"), signal.SIGTERM):
        print(await asyncio.to_thread(work), end=" ")
        await asyncio.sleep(0.2)
        print(heard)

asyncio.run(main())
""")
    assert out == "[1, 2] [] 0"


def test_the_handlers_of_the_program_are_called_too_and_come_back() -> None:
    """One that had its own for SIGTERM has it during and after; where there was none, the system's."""
    out = said("""
signal.signal(signal.SIGTERM, lambda number, frame: print("own", end=" "))

async def main():
    with on_signals(lambda: print("ours", end=" "), signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)

asyncio.run(main())
os.kill(os.getpid(), signal.SIGTERM)
print(signal.getsignal(signal.SIGHUP) == signal.SIG_DFL)
""")
    assert out == "ours own own True 0"


def test_outside_the_main_thread_nothing_is_taken() -> None:
    """Python gives signals to the main thread alone."""
    out = said("""
async def main():
    with on_signals(print, signal.SIGTERM):
        print("works")

with ThreadPoolExecutor(1) as pool:
    pool.submit(asyncio.run, main()).result()
""")
    assert out == "works 0"


def test_what_was_started_ends_with_its_program() -> None:
    """Children and theirs, also those that do not listen to SIGTERM."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    nested = (
        f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {deaf!r}],"
        " stdout=subprocess.PIPE); child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    source = f"""
child = subprocess.Popen([sys.executable, "-c", {nested!r}], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip())
end_children()
"""
    pids = said(source).split()[:2]
    assert len(pids) == 2
    assert not any(_runs(int(pid)) for pid in pids)


def test_threads_that_are_left_keep_no_program_from_ending() -> None:
    """Not for longer than a few seconds, and with the status that it would have had."""
    begun = time.monotonic()
    out = said("""
ThreadPoolExecutor(1).submit(time.sleep, 50)
print("done")
end_soon(0)
""")
    assert out == "done 0"
    assert time.monotonic() - begun < 30


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False
