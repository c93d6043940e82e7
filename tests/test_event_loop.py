"""Event loop of the background: what is under way ends in order, however often it is stopped."""

from __future__ import annotations

import subprocess
import sys

_ENDS_WHILE_CLEANING_UP = """
import asyncio, threading, time
from speceyes.event_loop import EventLoop

begun, cleaning = threading.Event(), threading.Event()

async def work():
    begun.set()
    try:
        await asyncio.sleep(60)
    finally:
        cleaning.set()
        await asyncio.sleep(0.3)
        print("closed", flush=True)

loop = EventLoop()
loop.submit(work())
assert begun.wait(60)
del loop  # stops it once; the interpreter's exit stops it again, while it closes
assert cleaning.wait(60)
"""


def test_exit_lets_a_loop_that_is_already_ending_close_what_it_holds() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ENDS_WHILE_CLEANING_UP],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "closed\n", "")
