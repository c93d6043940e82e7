"""Learns what phases cost from queries as they come, and plans which are speculated on."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final, get_args

from speceyes.checks import checked_whole
from speceyes.errors import ConfigError
from speceyes.pipeline.efficiency import ENOUGH, Efficiency, Ledger, Spent, Straight, logged
from speceyes.pipeline.speculation_switch import LEAST, RECENT, Prediction, SpeculationSwitch
from speceyes.types import Completion, Result

if TYPE_CHECKING:
    from speceyes.pipeline.parts import Parts
    from speceyes.pipeline.request import RequestState

_log = logging.getLogger(__name__)

Speculate: TypeAlias = Literal["always", "auto"]
SPECULATE: tuple[Speculate, ...] = get_args(Speculate)

WINDOW: Final = 256
"""How many of the latest queries of a kind count."""


@final
class CostModel:
    """Learns costs from results as they come. Threads may share it.

    Args:
        window: How many of the latest queries of a kind count, from 1; None for all.

    Raises:
        ConfigError: It is no such number.

    Example:
        >>> from speceyes.types import Timings, Verdict
        >>> model, yes = CostModel(), Verdict(True, 0.99, 9.0, 0.98)
        >>> no = Verdict(False, 0.5, 0.0, 0.98)
        >>> for i in range(40):
        ...     model.note(Result("", "red", "draft", verdict=yes, timings=Timings(draft=0.1)))
        ...     spent = Timings(draft=0.1, fallback=1.0)
        ...     model.note(Result("", "red", "agent", verdict=no, timings=spent))
        >>> found = model.efficiency()
        >>> found.alpha, round(found.speculated, 3), found.gain, round(found.at_most, 3)
        (0.5, 0.6, None, 1.667)
        >>> for i in range(40):
        ...     model.note(Result("", "red", "agent", timings=Timings(fallback=0.75)))
        >>> round(model.efficiency().gain, 3)
        1.25
    """

    def __init__(self, window: int | None = WINDOW) -> None:
        if window is not None:
            window = checked_whole("window", window, 1)
        self._spent: deque[Spent] = deque(maxlen=window)
        self._straight: deque[Straight] = deque(maxlen=window)
        self._alone: deque[Spent] = deque(maxlen=ENOUGH)
        self._lock = threading.Lock()
        self._switch: SpeculationSwitch | None = None
        self._noted, self._reckon_at, self._said = 0, ENOUGH, False
        self.same_model, self.places = False, 1

    def serve(self, parts: Parts) -> None:
        """Takes in how the agent is served: whether its own model judges, so that a judgement tells
        what reading costs, and how many trajectories are alive at once at most.
        """
        self.same_model = parts.agent_judges
        self.places = 1 if parts.fallback is None else parts.fallback.max_batch
        if self._switch is not None:
            self._switch.places = self.places

    def record(self, request: RequestState) -> None:
        """Takes down the costs of a request that has its result; see `note`."""
        assert request.result is not None
        self.note(
            request.result,
            stage_alone=request.stage_alone,
            agent_alone=request.agent_alone,
            straight=request.straight,
        )

    @property
    def speculating(self) -> bool:
        """True where "auto" speculates now, but for the queries that try the other way."""
        return self._switch is None or self._switch.speculating

    @property
    def going_straight(self) -> bool:
        """True where the next queries will go straight to the agent, whatever comes."""
        return self._switch is not None and self._switch.going_straight

    def note(
        self,
        result: Result,
        *,
        stage_alone: bool = True,
        agent_alone: bool = True,
        straight: int | None = None,
    ) -> None:
        """Takes a query's costs down. One that no model worked on, or that failed, is left out.

        Args:
            result: The result.
            stage_alone: Nothing ran beside its judgement and its draft.
            agent_alone: Nothing was judged or drafted while the agent worked on it.
            straight: Its number among those that were planned to go straight to the agent.
        """
        spent, switch = result.timings, self._switch
        if straight is not None and switch is not None:
            switch.concluded(straight)
        if result.route == "error":
            return
        read, written = _tokens(result)
        with self._lock:
            self._noted += 1
            if result.judgement is None and result.verdict is None:
                counts = straight is None or switch is None or switch.counts(straight)
                if spent.fallback is not None and agent_alone and counts:
                    self._straight.append(Straight(spent.fallback, read, written))
                return
            wanted = result.judgement is None or not result.judgement.needs_tools
            draft = None if spent.draft is None else spent.draft + (spent.gate or 0.0)
            one = Spent(
                spent.judge,
                draft,
                spent.fallback,
                result.route == "draft",
                wanted,
                stage_alone,
                agent_alone,
                read,
                written,
                _unkept(None if result.judgement is None else result.judgement.completion),
            )
            self._spent.append(one)
            if stage_alone:
                self._alone.append(one)
            if switch is not None:
                switch.speculated()

    def _planning(self) -> SpeculationSwitch:
        """The switch. It begins with the first plan: where all are speculated on there is none."""
        with self._lock:
            if self._switch is None:
                self._switch = SpeculationSwitch(noted=len(self._spent))
                self._switch.places = self.places
            return self._switch

    def plan(self, n: int) -> list[bool]:
        """Plan for the next n queries, a batch, under "auto": True for those to speculate on; see
        `SpeculationSwitch`.
        """
        switch = self._planning()
        if switch.undecided:
            switch.decide(self._recent(switch.fresh))
        return switch.plan(n)

    def probe(self, n: int, share: float) -> list[bool]:
        """Plan for the next n queries under "always": False for those that are sent straight to the
        agent, to learn what it costs alone. They come in blocks, so that they are alone with it.
        """
        return self._planning().probe(n, share)

    def next_straight(self) -> int:
        """Number of the next query that goes straight to the agent as planned."""
        return self._planning().next_straight()

    def _recent(self, fresh: int) -> Prediction | None:
        """Gain by the latest queries, of those since the trial or look began; None where that
        can't be told yet.
        """
        with self._lock:
            latest = min(RECENT, fresh)
            seen = self._ledger(latest)
        if latest < LEAST or len(seen.spent) < LEAST or (priced := seen.priced()) is None:
            return None
        costs, alone = [one.all for one in priced], [one.seconds for one in seen.straight]
        bound = len(alone) < LEAST
        if bound:  # fallbacks, which accepted queries cost no more than
            alone = [one.alone for one in priced if one.alone is not None]
            if len(alone) < LEAST or len(costs) < ENOUGH:
                return None
        if not (sum(alone) > 0 and sum(costs) > 0):  # by a clock that stood still
            return None
        return Prediction(*logged(alone, costs), len(costs), bound)

    def warn(self) -> None:
        """Says once in the log that speculation is a loss, where it surely is.

        May be called for every batch: costs are reckoned once there are enough, and again after as
        many further queries.
        """
        with self._lock:
            if self._said or self._noted < self._reckon_at:
                return
            self._reckon_at = self._noted + ENOUGH
            seen = self._ledger()
        found, at_most = seen.reckon()
        interval = found.interval or at_most
        if interval is not None and interval[1] < 1:
            self._said = True
            _log.warning(
                "speculation costs more than it saves: predicted gain %.2fx (%.2f to %.2f). The "
                "agent alone is faster here; speculate='auto' switches by itself",
                found.at_most if found.gain is None else found.gain,
                *interval,
            )

    def efficiency(self, seconds: float | None = None, queries: int | None = None) -> Efficiency:
        """Efficiency by the costs so far.

        Args:
            seconds: Wall time that the queries took, for `measured`.
            queries: How many took that time; None for those looked at.
        """
        with self._lock:
            seen = self._ledger()
        return seen.reckon(seconds, queries)[0]

    def _ledger(self, latest: int = 0) -> Ledger:
        """Costs that count now; of the queries that were speculated on the latest, or all by 0."""
        return Ledger(
            list(self._spent)[-latest:],
            list(self._straight),
            list(self._alone),
            same_model=self.same_model,
            places=self.places,
        )


def efficiency(results: Iterable[Result], seconds: float | None = None) -> Efficiency:
    """The same of results at hand, all of them (`CostModel` keeps the latest only).

    Args:
        results: What a pipeline gave.
        seconds: Wall time that they took.

    Raises:
        ConfigError: seconds is not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"seconds={seconds}; the wall time must be above 0")
    results = list(results)
    model = CostModel(window=None)
    for result in results:
        model.note(result)
    return model.efficiency(seconds, len(results))


def _tokens(result: Result) -> tuple[int, int]:
    """Tokens that the agent read, those left out that were kept, and tokens that it wrote."""
    steps = () if result.trajectory is None else result.trajectory.steps
    read = sum(max(0, step.prompt_tokens - (step.cached_tokens or 0)) for step in steps)
    return read, sum(step.tokens for step in steps)


def _unkept(said: Completion | None) -> int:
    return 0 if said is None else max(0, said.prompt_tokens - (said.cached_tokens or 0))
