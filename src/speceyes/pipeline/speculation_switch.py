"""Turns speculation on and off under "auto": a trial, and then what it found.

A trial speculates on a batch and sends the next queries straight to the agent, which loses nothing
against the agent alone. Where the gain comes out below 1, speculation stops; where that isn't
settled, it goes on until it is, for `RECENT` queries at most. What was decided is looked at again:
while speculating, all the time by the latest queries, with now and then a block that goes straight
to the agent; while not, by a batch now and then, as seldom as keeps what that costs below `BUDGET`.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal, TypeAlias, final

_log = logging.getLogger(__name__)

RECENT: Final = 64
"""Queries that the gain is told by while speculating; most that a loss goes on for."""
LEAST: Final = 12
"""Fewest queries of a kind that say anything."""
BLOCK: Final = 32
"""Fewest queries in a row that go straight to the agent to learn what it costs, beside those that
fill its places before."""
REFRESH: Final = 1024
"""Queries that are speculated on between two such blocks."""
BUDGET: Final = 0.005
"""Most that looks at speculation may cost of the time while the agent works alone."""
_SURE: Final = NormalDist().inv_cdf(0.9)
"""Standard deviations: nine times in ten, one side."""

State: TypeAlias = Literal["trial", "on", "off"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Gain by the latest queries.

    Args:
        log_gain: Logarithm of the gain.
        deviation: Its standard deviation.
        queries: How many speculated ones tell it.
        bound: The gain is that at most.
    """

    log_gain: float
    deviation: float
    queries: int
    bound: bool = False

    @property
    def loses(self) -> bool:
        """True where it is a loss, nine times in ten."""
        return self.log_gain + _SURE * self.deviation < 0

    @property
    def wins(self) -> bool:
        """True where it is a gain, nine times in ten."""
        return not self.bound and self.log_gain - _SURE * self.deviation > 0


@final
class SpeculationSwitch:
    """Plans queries a batch at a time. Threads may share it.

    Args:
        noted: Queries that were speculated on before it was asked for a plan.
    """

    def __init__(self, noted: int = 0) -> None:
        self.places = 16
        """Trajectories that the agent works on at once."""
        self._lock = threading.Lock()
        self._state: State = "trial"
        self._on = self._off = self._open = 0
        self._noted = noted
        self._numbers = 0
        self._block: tuple[int, int] | None = None
        self._left: set[int] = set()
        self._next_look = 0
        self._looking = self._settled = False
        self._probed = self._asked = 0
        self._told = False
        self._random = random.Random(0)

    @property
    def speculating(self) -> bool:
        """True where speculation isn't given up."""
        return self._state != "off"

    @property
    def going_straight(self) -> bool:
        """True where the next queries will go straight to the agent, whatever comes."""
        with self._lock:
            if self._block is not None:
                return True
            return self._state == "off" and not self._looking and self._off < self._next_look

    @property
    def undecided(self) -> bool:
        """True where a prediction would be of use."""
        with self._lock:
            return self._state != "off" or self._looking

    @property
    def fresh(self) -> int:
        """Queries that were speculated on since the trial, or the last look, began."""
        with self._lock:
            return self._noted

    def speculated(self) -> None:
        """Notes the end of a query that was speculated on."""
        with self._lock:
            self._noted += 1

    def next_straight(self) -> int:
        """Number of the next query that goes straight to the agent."""
        with self._lock:
            self._numbers += 1
            return self._numbers - 1

    def concluded(self, number: int) -> None:
        """Notes the end of such a query."""
        with self._lock:
            self._left.discard(number)

    def counts(self, number: int) -> bool:
        """True where it tells what the agent costs: the first of a block, which all begin at once,
        don't, and neither do those that began last, and are seen only if they end soon.
        """
        with self._lock:
            if self._block is None:
                return self._state == "off"
            return self._block[0] + self.places <= number < self._block[1]

    def decide(self, found: Prediction | None) -> None:
        """Takes the latest prediction into account."""
        with self._lock:
            if self._block is not None and (self._left or self._numbers < self._block[1]):
                start, end = self._block
                if self._numbers - start < 4 * (end - start):  # some may be given up, and never end
                    return
            began, self._block = self._block, None
            if found is None:
                return
            if self._state == "trial" and began is not None:
                self._state = "on"
                if found.log_gain < 0:
                    self._stop(found)
            elif self._state == "off":
                if self._noted >= LEAST:
                    self._looking = False
                    if found.wins:
                        self._start(found)
                    else:
                        self._next_look = self._off + _wait(found)
            else:
                doubted = not (self._settled or found.bound) and found.queries >= RECENT
                self._settled = self._settled or doubted
                if found.loses or (doubted and found.log_gain < 0):
                    self._stop(found)

    def plan(self, n: int) -> list[bool]:
        """True for those of the next n queries, a batch, to speculate on."""
        with self._lock:
            if self._block is not None:
                return [False] * n
            if self._state == "trial":
                if self._on >= LEAST:  # the trial's batch is under way, or over
                    self._open_block()
                    return [False] * n
                self._on += n
                return [True] * n
            if self._state == "on":
                self._on += n
                if self._on >= REFRESH:
                    self._on = 0
                    self._open_block()
                    return [False] * n
                return [True] * n
            self._off += n
            if self._looking:
                if self._open >= LEAST:
                    return [False] * n
                self._open += n
                return [True] * n
            if self._off >= self._next_look:
                self._looking, self._open, self._noted = True, n, 0
                return [True] * n
            return [False] * n

    def probe(self, n: int, share: float) -> list[bool]:
        """False for those that go straight to the agent, in blocks, a share of all."""
        with self._lock:
            self._asked += n
            if self._block is not None and not self._left and self._numbers >= self._block[1]:
                self._block = None
            due = self._probed + (self.places + max(BLOCK, self.places)) / 2 < share * self._asked
            if self._block is None and due:
                self._open_block()
            if self._block is None:
                return [True] * n
            self._probed += n
            return [False] * n

    def _open_block(self) -> None:
        self._block = self._numbers, self._numbers + self.places + max(BLOCK, self.places)
        self._left = set(range(*self._block))

    def _stop(self, found: Prediction) -> None:
        self._state, self._looking, self._off = "off", False, 0
        self._next_look = _wait(found)
        self._say("given up", found)

    def _start(self, found: Prediction) -> None:
        self._state, self._on, self._settled = "on", 0, False
        self._say("taken up again", found)

    def _say(self, what: str, found: Prediction) -> None:
        reach = _SURE * found.deviation
        # That routes change is told once where everybody sees it.
        _log.log(
            logging.INFO if self._told else logging.WARNING,
            "speculation is %s: predicted gain %s%.2fx (%.2f to %.2f); speculate='always' keeps on",
            what,
            "at most " if found.bound else "",
            *(math.exp(found.log_gain + by) for by in (0, -reach, reach)),
        )
        self._told = True


def _wait(found: Prediction) -> int:
    """Queries until speculation is looked at again."""
    lost = max(0.0, math.exp(-found.log_gain) - 1)
    return max(RECENT * 4, math.ceil(16 * lost / BUDGET))
