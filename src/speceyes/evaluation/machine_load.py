"""Load of the machine while an arm ran: our own CPU seconds, and other processes' share."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

BUSY: Final = 0.1
"""Share of the machine that others may take before a run's speed is called disturbed."""
_STAT: Final = Path("/proc/stat")


@final
@dataclass(frozen=True, slots=True)
class Load:
    """The counters at one moment.

    Args:
        wall: Seconds of a monotonic clock.
        own: CPU seconds of this process and of children that have ended.
        all: CPU seconds that the machine spent on anything; None where the system doesn't say.
    """

    wall: float
    own: float
    all: float | None

    def since(self, before: Load) -> tuple[float, float, float | None]:
        """(wall seconds, own CPU seconds, others' share of the machine, 0 to 1) since then.

        The share is None where the system doesn't tell it, or the time was too short for its
        clock, which ticks a hundred times a second.
        """
        wall, own = self.wall - before.wall, self.own - before.own
        if self.all is None or before.all is None or wall < 0.05:
            return wall, own, None
        others = self.all - before.all - own
        return wall, own, min(1.0, max(0.0, others / (wall * (os.cpu_count() or 1))))


def now(stat: Path = _STAT) -> Load:
    """The counters now.

    Args:
        stat: The file that Linux tells them in.
    """
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Load(time.perf_counter(), own, _all(stat))


def _all(stat: Path) -> float | None:
    try:
        with stat.open(encoding="ascii") as file:
            name, *ticks = file.readline().split()
        counts = [int(tick) for tick in ticks]
    except (OSError, ValueError):
        return None
    if name != "cpu" or len(counts) < 7:
        return None
    # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted within user.
    busy = sum(counts[:3]) + sum(counts[5:8])
    return busy / os.sysconf("SC_CLK_TCK")
