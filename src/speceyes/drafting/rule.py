"""Rule for deeper drafts: those that are worth their cost.

A draft that the gate accepts is done. One that it would reject costs L_agent seconds of the agent,
unless a deeper draft, for c_1 seconds more, is accepted. With p(S) the chance of that at the
separability S of the first draft, depth is expected to save

    gain(S) = p(S) * L_agent - c_1    seconds,

and is chosen where that is above 0: where p(S) is above c_1 / L_agent. What the first draft cost,
c_S, is spent either way. Over all drafts E[L] of the paper's Sec. 3.5 (arXiv 2603.23483) becomes

    E[L] = c_J + beta (c_S + delta c_1) + (1 - beta (alpha_0 + delta alpha_1)) L_agent

with delta the share of drafts that go deeper, alpha_0 the share accepted at once and alpha_1 the
share accepted of those that went deeper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from speceyes.errors import ConfigError
from speceyes.protocols import SupportsFloor, offers
from speceyes.types import Completion, Verdict

DEPTH: Final = "depth"
"""Name of the note (`Completion.notes`) that holds how many tool calls stand behind a draft."""


def depth_of(completion: Completion) -> int:
    """Number of tool calls that stand behind a draft; 0 where it was made at once.

    Example:
        >>> depth_of(Completion("red"))
        0
    """
    return int(completion.notes.get(DEPTH, 0.0))


@final
@dataclass(frozen=True, slots=True)
class DepthRule:
    """Sends a draft deeper where the gate would reject it and depth is expected to save time.

    Args:
        gate: The gate that will judge the drafts. Alone, it sends every draft deeper that it
            would reject.
        edges: Separabilities that part the scores of rejected drafts into bins, ascending.
        chances: For each bin, how often a deeper draft was accepted (0 to 1): one more than
            edges. Empty: always.
        extra_s: c_1, seconds that a deeper draft costs on top of the first.
        agent_s: L_agent, seconds that the agent costs on a draft that was rejected.

    Raises:
        ConfigError: Numbers that can't be costs or chances, or that don't fit together.

    Example:
        >>> from speceyes.gate import SeparabilityGate
        >>> gate = SeparabilityGate(0.98, top_k=4)
        >>> rule = DepthRule(gate, (2.0,), (0.1, 0.9), extra_s=0.2, agent_s=1.0)
        >>> round(rule.gain(1.0), 2), round(rule.gain(3.0), 2)
        (-0.1, 0.7)
    """

    gate: Callable[[Completion], Verdict]
    edges: tuple[float, ...] = ()
    chances: tuple[float, ...] = ()
    extra_s: float = 0.0
    agent_s: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.gate):
            raise ConfigError(f"gate is a {type(self.gate).__name__}; pass the pipeline's gate")
        if (self.edges or self.chances) and len(self.chances) != len(self.edges) + 1:
            raise ConfigError(
                f"{len(self.chances)} chances for {len(self.edges)} edges; there must be one "
                "chance more than edges, or none of either"
            )
        if any(a > b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ConfigError(f"edges={self.edges}; they must ascend")
        if not all(0 <= chance <= 1 for chance in self.chances):
            raise ConfigError(f"chances={self.chances}; each must be from 0 to 1")
        for name, value in (("extra_s", self.extra_s), ("agent_s", self.agent_s)):
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}={value}; it must be finite seconds, at least 0")

    @classmethod
    def fit(
        cls,
        gate: Callable[[Completion], Verdict],
        before: Sequence[Completion],
        after: Sequence[Completion],
        *,
        extra_s: float,
        agent_s: float,
        bins: int = 6,
    ) -> DepthRule:
        """The rule that drafts of a calibration set give.

        Chances are those of bins that hold about the same number of rejected drafts each, with
        half a success and half a failure added (Jeffreys), so that none is certain.

        Args:
            gate: The gate.
            before: Drafts at depth 0.
            after: What was kept of each query once all of them had gone deeper.
            extra_s: c_1, measured.
            agent_s: L_agent, measured.
            bins: Most bins.

        Raises:
            ConfigError: The two differ in length, or bins is below 1.
        """
        if len(before) != len(after) or bins < 1:
            raise ConfigError(
                f"{len(before)} drafts before, {len(after)} after, bins={bins}; there must be as "
                "many of each, and at least 1 bin"
            )
        known = cls(gate)
        scores, hits = [], []
        for first, then in zip(before, after, strict=True):
            verdict = gate(first)
            if not verdict.accepted:
                scores.append(known._first_low(verdict))
                hits.append(gate(then).accepted)
        if not scores:
            return cls(gate, (), (0.5,), extra_s, agent_s)
        low = np.array(scores)
        finite = low[np.isfinite(low)]
        cuts = np.quantile(finite, np.arange(1, bins) / bins) if len(finite) else np.zeros(0)
        edges = np.unique(cuts)
        held = np.searchsorted(edges, low, side="right")
        taken = np.array(hits, dtype=float)
        chances = [
            float((taken[held == i].sum() + 0.5) / ((held == i).sum() + 1))
            for i in range(len(edges) + 1)
        ]
        return cls(gate, tuple(edges.tolist()), tuple(chances), extra_s, agent_s)

    def gain(self, separability: float) -> float:
        """Seconds that depth is expected to save on a rejected draft of that separability."""
        if not self.chances:
            return self.agent_s - self.extra_s
        at = int(np.searchsorted(np.array(self.edges), separability, side="right"))
        return self.chances[at] * self.agent_s - self.extra_s

    def __call__(self, draft: Completion) -> bool:
        """True where a draft at depth 0 should go deeper; one that failed shouldn't."""
        if draft.error is not None:
            return False
        verdict = self.gate(draft)
        return not verdict.accepted and self.gain(self._first_low(verdict)) > 0

    def score(self, draft: Completion) -> float:
        """The gate's raw score, for choosing among drafts of a query; -inf where it has none."""
        found = self.gate(draft).separability
        return -math.inf if found is None or math.isnan(found) else found

    def _first_low(self, verdict: Verdict) -> float:
        """The score of a rejected draft.

        That of the first token below a gate's floor, where a draft may end early: it is the same
        whether it did or not.
        """
        gate: object = self.gate
        floor = gate.floor if offers(gate, SupportsFloor) else None
        if floor is not None:
            for one in verdict.token_scores:
                if one < floor.separability:
                    return float(one)
        found = verdict.separability
        return -math.inf if found is None or math.isnan(found) else found
