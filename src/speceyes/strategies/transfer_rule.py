"""Rule of reasoning transfer: when agreement settles a query, and when notes are heeded.

Two models that grew out of the same data guess alike, so that agreement alone settles wrong
answers too; and where a question needs no reasoning, notes only mislead. Both are chosen here on
labelled queries. Agreement settles a query only where both models were sure; the large model's
answer with notes replaces its brief one only where it is surer with them. Where notes are of no
use nobody reasons at all, and what is given is the large model's brief answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from speceyes.errors import ConfigError, InputError
from speceyes.scoring.scores import combine, token_scores
from speceyes.types import Completion

Score: TypeAlias = Literal["separability", "likelihood"]
TOP_K = 9
"""Log-probabilities a token that separability reads, where nothing else is asked for."""
LOSS = 0.005
"""Share of the labelled queries that settling may cost, where nothing else is asked for."""
CHANCE = 0.05
"""How often, at most, useless notes may come to be heeded by the luck of the labelled queries."""
_FLIPS = 1999
"""Draws of signs by which that is told; a thousand more change a limit by less than it varies."""


def score_of(said: Completion, by: Score, top_k: int = TOP_K) -> float:
    """The score of an answer, higher for a surer one; minus infinity where it can't be told.

    Args:
        said: The answer, with log-probabilities.
        by: "separability", the least of its tokens', or "likelihood", their mean log-probability
            in nats. An answer that two models give alike has the same likelihood whether a model
            wrote it or was asked about it, so none is asked again.
        top_k: K of the separability.
    """
    try:
        if by == "likelihood":
            return combine(token_scores(said.top_logprobs, 1, "log", logprobs=True), "log")
        return combine(token_scores(said.top_logprobs, top_k, logprobs=True))
    except InputError:
        return -math.inf


@final
@dataclass(frozen=True, slots=True)
class TransferRule:
    """When first answers settle a query, and when notes are heeded.

    Args:
        by: The score that is read, see `score_of`.
        settles: Least score, the lesser of both models', at which first answers that agree settle
            the query; infinity where none do.
        rises: Least rise of the large model's score from its brief answer to the one with notes at
            which the latter is given: minus infinity heeds notes always, infinity never, and then
            nobody reasons.
        top_k: K of the separability.
        queries: Labelled queries that it was chosen on.
        brief: Of these, those whose brief answer of the large model was right.
        noted: Those whose answer with notes was right.
        right: Those that come out right under the rule.
        settled: Those that first answers settle under it.

    Raises:
        ConfigError: An argument is none.
    """

    by: Score = "separability"
    settles: float = math.inf
    rises: float = -math.inf
    top_k: int = TOP_K
    queries: int = 0
    brief: int = 0
    noted: int = 0
    right: int = 0
    settled: int = 0

    def __post_init__(self) -> None:
        if self.by not in get_args(Score):
            raise ConfigError(f"by={self.by!r}; it must be one of {get_args(Score)}")
        if self.top_k < 3:
            raise ConfigError(f"top_k={self.top_k}; separability needs at least 3")
        for name in ("settles", "rises"):
            if math.isnan(getattr(self, name)):
                raise ConfigError(f"{name}=nan; it must be a number, or infinite")

    @property
    def reasons(self) -> bool:
        """False where notes are never heeded, so that none need be written."""
        return self.rises < math.inf

    def settled_by(self, large: Completion, small: Completion) -> bool:
        """True where first answers that agree settle the query."""
        least = min(score_of(c, self.by, self.top_k) for c in (large, small))
        return least >= self.settles

    def heeds(self, brief: Completion, noted: Completion) -> bool:
        """True where the answer with notes is given instead of the brief one."""
        if self.rises == -math.inf:
            return True
        before, after = (score_of(c, self.by, self.top_k) for c in (brief, noted))
        return after > -math.inf and (before == -math.inf or after - before >= self.rises)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON: what is infinite is written as "inf" or "-inf"."""
        return {
            k: str(v) if isinstance(v, float) and math.isinf(v) else v
            for k, v in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> TransferRule:
        """The rule that `to_dict` wrote.

        Raises:
            ConfigError: A field is unknown or holds none of its values.

        Example:
            >>> TransferRule.from_dict({"rises": "inf"}).reasons
            False
        """
        try:
            numbers = {k: float(told[k]) for k in ("settles", "rises") if k in told}
            return cls(**{**told, **numbers})
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"a transfer rule can't be made of {dict(told)}: {exc}") from exc


@final
@dataclass(frozen=True, slots=True)
class Tried:
    """A labelled query with all answers to it.

    Args:
        large: The large model's brief answer, with `top_k` log-probabilities a token.
        small: The small model's.
        noted: The large model's answer with notes.
        agree: Whether the first answers agree.
        brief_right: Whether `large` is right.
        noted_right: Whether `noted` is right.
    """

    large: Completion
    small: Completion
    noted: Completion
    agree: bool
    brief_right: bool
    noted_right: bool


def choose_rule(
    tried: Sequence[Tried], *, top_k: int = TOP_K, loss: float = LOSS, least: int = 30
) -> TransferRule:
    """The rule under which most labelled queries come out right and most of those are settled.

    Notes are heeded only where that gains by more than chance over brief answers. Many rises are
    tried, and the best of many is good by luck alone; so the best gain is held against the best
    one, over all rises and scores, that is found where each answer that notes changed, for better
    or worse, changed the other way at a coin's toss (a permutation test of the maximum, Westfall
    and Young 1993). Notes that neither help nor harm come to be heeded in `CHANCE` of choices at
    most. Then agreement settles as much as it can without costing more than `loss`.

    Args:
        tried: The labelled queries; use none of them to measure what comes out.
        top_k: K of the separability.
        loss: Share of the queries that settling may cost.
        least: Fewest queries to choose on.

    Raises:
        InputError: There are fewer.
        ConfigError: `loss` is no share.
    """
    if len(tried) < least:
        raise InputError(f"{len(tried)} labelled queries; a transfer rule needs at least {least}")
    if not 0 <= loss < 1:
        raise ConfigError(f"loss={loss}; it must be a share from 0 to below 1")
    brief = np.array([t.brief_right for t in tried])
    noted = np.array([t.noted_right for t in tried])
    gain = noted.astype(int) - brief.astype(int)
    scores = {by: _scores(tried, by, top_k) for by in get_args(Score)}
    rises = {by: _rises(s[:, 0], s[:, 2]) for by, s in scores.items()}
    counts = {
        "top_k": top_k,
        "queries": len(tried),
        "brief": int(brief.sum()),
        "noted": int(noted.sum()),
    }
    if not _gains_surely(list(rises.values()), gain):
        right = int(brief.sum())
        by = TransferRule().by
        return TransferRule(by, -math.inf, math.inf, right=right, settled=len(tried), **counts)
    rules = []
    for by, rise in rises.items():
        if (heeded := _least_rise(rise, gain)) == math.inf:
            continue
        given = np.where(rise >= heeded, noted, brief)
        sure = np.where([t.agree for t in tried], scores[by][:, :2].min(axis=1), -math.inf)
        settles = _least_sure(sure, given.astype(int) - brief.astype(int), loss * len(tried))
        by_first = sure >= settles
        right = int(np.where(by_first, brief, given).sum())
        rules.append(
            TransferRule(by, settles, heeded, right=right, settled=int(by_first.sum()), **counts)
        )
    return max(rules, key=lambda rule: (rule.right, rule.settled))


def _scores(tried: Sequence[Tried], by: Score, top_k: int) -> np.ndarray:
    """float64[n, 3]: of the large model's brief answer, the small one's, and the one with notes."""
    return np.array([[score_of(c, by, top_k) for c in (t.large, t.small, t.noted)] for t in tried])


def _rises(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float64[n]: what notes add to the large model's score; see `TransferRule.heeds`."""
    out = np.full(len(before), -math.inf)
    told = after > -math.inf
    both = told & (before > -math.inf)
    out[both] = after[both] - before[both]
    out[told & ~both] = math.inf
    return out


def _ends(rise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(int[n], int[m]): rows from the greatest rise down, and how many of them are heeded at each
    least rise that can be chosen, all of them last.
    """
    order = np.argsort(-rise, kind="stable")
    down = rise[order]
    last = np.isfinite(down) & np.append(down[1:] < down[:-1], True)
    return order, np.append(np.flatnonzero(last) + 1, len(rise))


def _gains_surely(rises: Sequence[np.ndarray], gain: np.ndarray) -> bool:
    """True where the best gain by any of the rises is more than luck; see `choose_rule`."""
    changed = np.flatnonzero(gain)
    gain = gain[changed]
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), (_FLIPS, len(gain)))
    found, lucky = 0, np.zeros(_FLIPS, dtype=int)
    for rise in rises if len(changed) else ():
        order, ends = _ends(rise[changed])
        found = max(found, int(gain[order].cumsum()[ends - 1].max()))
        sums = (signs[:, order] * gain[order]).cumsum(axis=1)[:, ends - 1]
        lucky = np.maximum(lucky, sums.max(axis=1))
    return found > 0 and (1 + int((lucky >= found).sum())) / (_FLIPS + 1) <= CHANCE


def _least_rise(rise: np.ndarray, gain: np.ndarray) -> float:
    """The rise from which on notes are heeded: where they gain most, the least such; infinity
    where they gain nowhere.
    """
    order, ends = _ends(rise)
    sums = gain[order].cumsum()[ends - 1]
    if sums.max() <= 0:
        return math.inf
    best = len(sums) - 1 - int(np.argmax(sums[::-1]))
    return -math.inf if ends[best] == len(rise) else float(rise[order[ends[best] - 1]])


def _least_sure(sure: np.ndarray, cost: np.ndarray, most: float) -> float:
    """The lowest score at which settling costs no more than `most` queries; infinity for none."""
    order = np.argsort(-sure, kind="stable")
    order = order[sure[order] > -math.inf]
    spent = np.cumsum(cost[order])
    for at in range(len(order) - 1, -1, -1):
        last = at + 1 == len(order) or sure[order[at + 1]] < sure[order[at]]
        if last and spent[at] <= most:
            return float(sure[order[at]])
    return math.inf
