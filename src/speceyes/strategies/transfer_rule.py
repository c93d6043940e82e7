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
SURE = 1.64
"""Standard errors by which heeding notes must gain before they are heeded: one-sided 5 %."""


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

    Notes are heeded only where that gains by more than chance over brief answers: by `SURE`
    standard errors over the queries whose answer changes for better or worse. Then agreement
    settles as much as it can without costing more than `loss`.

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
    rules = [_chosen(tried, by, top_k, loss) for by in get_args(Score)]
    return max(rules, key=lambda rule: (rule.right, rule.settled))


def _chosen(tried: Sequence[Tried], by: Score, top_k: int, loss: float) -> TransferRule:
    n = len(tried)
    brief = np.array([t.brief_right for t in tried])
    noted = np.array([t.noted_right for t in tried])
    scores = np.array(
        [[score_of(c, by, top_k) for c in (t.large, t.small, t.noted)] for t in tried]
    )
    rise = _rises(scores[:, 0], scores[:, 2])
    gain = noted.astype(int) - brief.astype(int)
    rises = _least_rise(rise, gain)
    given = np.where(rise >= rises, noted, brief)
    counts = {"top_k": top_k, "queries": n, "brief": int(brief.sum()), "noted": int(noted.sum())}
    if rises == math.inf:
        return TransferRule(by, -math.inf, rises, right=int(brief.sum()), settled=n, **counts)
    sure = np.where([t.agree for t in tried], scores[:, :2].min(axis=1), -math.inf)
    settles = _least_sure(sure, given.astype(int) - brief.astype(int), loss * n)
    by_first = sure >= settles
    right = int(np.where(by_first, brief, given).sum())
    return TransferRule(by, settles, rises, right=right, settled=int(by_first.sum()), **counts)


def _rises(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """float64[n]: what notes add to the large model's score; see `TransferRule.heeds`."""
    out = np.full(len(before), -math.inf)
    told = after > -math.inf
    both = told & (before > -math.inf)
    out[both] = after[both] - before[both]
    out[told & ~both] = math.inf
    return out


def _least_rise(rise: np.ndarray, gain: np.ndarray) -> float:
    """The rise from which on notes are heeded: where they gain most, if they gain surely."""
    best, found = 0, math.inf
    for least in (-math.inf, *np.unique(rise[np.isfinite(rise)]).tolist()):
        heeded = gain[rise >= least]
        total, changed = int(heeded.sum()), int(np.abs(heeded).sum())
        if total > best and total >= SURE * math.sqrt(changed):
            best, found = total, float(least)
    return found


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
