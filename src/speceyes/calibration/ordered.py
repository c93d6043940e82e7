"""Evidence that takes outcomes in the order in which audits were drawn, however they come back.

The bets of `evidence` are fair one query after the other. If good outcomes were counted at once and
those of audits when they come back, a burst of audits would look like a run of bad queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from speceyes.calibration.evidence import RiskEvidence

_LEFT_OUT: Final = "left out"


@dataclass(slots=True)
class _Slot:
    """An audit, and how many good queries came between it and the next."""

    outcome: bool | str | None = None
    goods: int = 0


@final
class OrderedEvidence:
    """`RiskEvidence` behind a buffer; not for several threads at once.

    Args:
        target: The risk that was promised.

    Example:
        >>> ordered = OrderedEvidence(0.05)
        >>> ordered.draw(1)
        >>> ordered.draw(2)
        >>> ordered.settle(2, False)
        >>> ordered.evidence.seen
        0
        >>> ordered.settle(1, True)
        >>> ordered.evidence.seen, ordered.evidence.bad
        (2, 1)
    """

    def __init__(self, target: float) -> None:
        self.evidence = RiskEvidence(target)
        self.peak = 1.0
        self._slots: dict[int, _Slot] = {}

    def add(self, bad: bool) -> None:
        """Takes in an outcome that is known at once: after all that was drawn before it."""
        if bad or not self._slots:
            assert not (bad and self._slots), "a bad one has a slot of its own"
            self._count(bad)
        else:
            self._slots[next(reversed(self._slots))].goods += 1

    def draw(self, number: int) -> None:
        """Keeps a place for an audit's outcome."""
        self._slots[number] = _Slot()

    def settle(self, number: int, bad: bool | None) -> None:
        """Fills a place; None leaves that audit out."""
        self._slots[number].outcome = _LEFT_OUT if bad is None else bad
        self._count_settled()

    def _count_settled(self) -> None:
        """Counts what is settled, up to the first audit that isn't."""
        while self._slots:
            first = next(iter(self._slots))
            slot = self._slots[first]
            if slot.outcome is None:
                break
            del self._slots[first]
            if slot.outcome != _LEFT_OUT:
                self._count(bool(slot.outcome))
            for _ in range(slot.goods):
                self._count(False)

    def state(self) -> dict[str, Any]:
        """Everything, as JSON can carry it."""
        slots = [[number, slot.outcome, slot.goods] for number, slot in self._slots.items()]
        return {"evidence": self.evidence.state(), "peak": self.peak, "slots": slots}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> OrderedEvidence:
        """The one whose `state` it is. Audits that were under way are left out, for whoever ran
        them is gone.
        """
        ordered = cls(state["evidence"]["target"])
        ordered.evidence = RiskEvidence.restored(state["evidence"])
        ordered.peak = float(state["peak"])
        ordered._slots = {int(n): _Slot(outcome, int(g)) for n, outcome, g in state["slots"]}
        for slot in ordered._slots.values():
            if not isinstance(slot.outcome, bool):
                slot.outcome = _LEFT_OUT
        ordered._count_settled()
        return ordered

    def _count(self, bad: bool) -> None:
        self.evidence.add(bad)
        self.peak = max(self.peak, self.evidence.value)
