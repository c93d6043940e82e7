"""Several gates' scores in one: a logistic regression fitted on labelled drafts; numpy only."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Final, final

import numpy as np
import numpy.typing as npt

from speceyes.checks import checked_number, checked_whole
from speceyes.errors import ConfigError, InputError
from speceyes.protocols import HasTopK, offers
from speceyes.scoring.ranking import auroc
from speceyes.scoring.scores import Floats
from speceyes.types import Completion, Verdict

_log = logging.getLogger(__name__)

_ROUNDS: Final = 50
_SMALL: Final = 1e-9
_TRIMMED: Final = 0.005


@final
@dataclass(frozen=True, slots=True)
class LogisticGate:
    """Accepts a draft that is right with probability enough, by a fitted mix of gates' scores.

    Made by `fit_logistic`. A score outside what was seen when fitting is cut to it, so that one
    huge separability can't outvote the others.

    Args:
        gates: Their verdicts' raw scores are what is mixed; their thresholds don't matter.
        weights: One a gate, on its cut and standardised score.
        bias: The log-odds of a draft with average scores.
        low: Least score taken, one a gate.
        high: Largest score taken.
        centre: Mean score.
        spread: Standard deviation, above 0.
        threshold: The least probability, 0 to 1.
        auroc: Cross-validated on the drafts it was fitted on: each scored by a fit that hadn't
            seen it.
        n: How many drafts it was fitted on.

    Raises:
        ConfigError: The lengths differ, or the threshold is out of range.
    """

    gates: tuple[Callable[[Completion], Verdict], ...]
    weights: tuple[float, ...]
    bias: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    threshold: float = 0.5
    _: KW_ONLY
    auroc: float = math.nan
    n: int = 0

    least: ClassVar[float] = 0.0
    """The threshold that accepts whatever can be scored."""

    def __post_init__(self) -> None:
        for name, numbers in (
            ("weights", self.weights),
            ("low", self.low),
            ("high", self.high),
            ("centre", self.centre),
            ("spread", self.spread),
        ):
            if len(numbers) != len(self.gates) or not self.gates:
                raise ConfigError(
                    f"{len(self.gates)} gates and {len(numbers)} numbers for {name}; "
                    "there must be one each, and at least one"
                )
        if not all(s > 0 for s in self.spread):
            raise ConfigError(f"spread={self.spread}; each must be above 0")
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0, 1))

    @property
    def top_k(self) -> int | None:
        """The largest K among the gates, which drafts must have; None where none tells."""
        gates: tuple[object, ...] = self.gates
        told = [gate.top_k for gate in gates if offers(gate, HasTopK)]
        return max((k for k in told if k is not None), default=None)

    def score(self, rows: npt.ArrayLike) -> float:
        """The probability that an answer with such rows is right.

        Args:
            rows: float[n, W] log-probabilities in nats, W >= top_k, each row descending.

        Raises:
            InputError: A gate can't score them.
        """
        array = np.asarray(rows, dtype=np.float64)
        verdict = self(Completion("?", tuple(range(len(array))), array.astype(np.float32)))
        if verdict.separability is None:
            raise InputError(verdict.reason)
        return verdict.separability

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft; rejected with the reason of the first gate without a score."""
        scores = []
        for gate in self.gates:
            verdict = gate(completion)
            if verdict.separability is None:
                return Verdict(False, None, None, self.threshold, reason=verdict.reason)
            scores.append(verdict.separability)
        cut = np.clip(np.array(scores), self.low, self.high)
        mixed = self.bias + float(
            ((cut - np.array(self.centre)) / np.array(self.spread)) @ np.array(self.weights)
        )
        chance = float(_sigmoid(np.array(mixed)))
        return Verdict(chance >= self.threshold, chance, chance, self.threshold)


def fit_logistic(
    gates: Sequence[Callable[[Completion], Verdict]],
    drafts: Sequence[Completion],
    right: Sequence[bool] | npt.NDArray[np.bool_],
    *,
    ridge: float = 1.0,
    folds: int = 5,
    threshold: float = 0.5,
    seed: int = 0,
) -> LogisticGate:
    """The mix of gates' scores that best tells right drafts from wrong ones.

    Ridge regression by iteratively reweighted least squares; the bias isn't shrunk. Drafts that a
    gate gives no score are left out, as the gate that comes of it rejects them. A guarantee needs
    `certify` on drafts that were not fitted on.

    Args:
        gates: At least one.
        drafts: Labelled drafts.
        right: Whether each is right.
        ridge: Strength of the shrinkage, above 0: what the squared weights are multiplied by,
            halved, in the negative log-likelihood.
        folds: Of the cross-validation, at least 2; both kinds must be there that often.
        threshold: The gate's.
        seed: Deals the drafts into folds.

    Raises:
        ConfigError: An argument out of range.
        InputError: The lengths differ, or too few right or wrong drafts can be scored.

    Example:
        >>> from speceyes.gates.margin import MarginGate
        >>> rng = np.random.default_rng(0)
        >>> margins = rng.uniform(0.1, 5, 200)
        >>> drafts = [Completion("x", (1,), [[-0.01, -0.01 - m]]) for m in margins]
        >>> right = rng.random(200) < 1 / (1 + np.exp(-3 * (margins - 2)))
        >>> gate = fit_logistic([MarginGate(scale="log")], drafts, right)
        >>> gate.auroc > 0.9, gate(drafts[int(margins.argmax())]).accepted
        (True, True)
    """
    ridge = checked_number("ridge", ridge, _SMALL)
    folds = checked_whole("folds", folds, 2)
    if not gates:
        raise ConfigError("there are no gates to mix: pass at least one")
    labels = np.asarray(right, dtype=bool)
    if labels.shape != (len(drafts),):
        raise InputError(f"{len(drafts)} drafts and labels {labels.shape}; there must be one each")
    raw = [[gate(draft).separability for gate in gates] for draft in drafts]
    table = np.array(raw, dtype=np.float64).reshape(len(drafts), len(gates))  # None becomes NaN
    whole = np.isfinite(table).all(axis=1)
    table, labels = table[whole], labels[whole]
    fewest = min(int(labels.sum()), int((~labels).sum()))
    if fewest < folds:
        raise InputError(
            f"of {len(drafts)} drafts {len(labels)} have all scores, {int(labels.sum())} of them "
            f"right; at least {folds} right and {folds} wrong ones are needed for {folds} folds"
        )
    random = np.random.default_rng(seed)
    dealt = np.zeros(len(labels), dtype=int)
    for kind in (labels, ~labels):  # each fold gets its share of both
        at = random.permutation(np.flatnonzero(kind))
        dealt[at] = np.arange(at.size) % folds
    unseen = np.zeros(len(labels))
    for fold in range(folds):
        held = dealt == fold
        scale, weights = _fitted(table[~held], labels[~held], ridge)
        unseen[held] = _standard(table[held], *scale) @ weights
    (low, high, centre, spread), weights = _fitted(table, labels, ridge)
    return LogisticGate(
        tuple(gates),
        tuple(weights[1:].tolist()),
        float(weights[0]),
        tuple(low.tolist()),
        tuple(high.tolist()),
        tuple(centre.tolist()),
        tuple(spread.tolist()),
        threshold,
        auroc=auroc(unseen, labels),
        n=len(labels),
    )


def _fitted(
    table: Floats, labels: npt.NDArray[np.bool_], ridge: float
) -> tuple[tuple[Floats, Floats, Floats, Floats], Floats]:
    """(low, high, centre, spread) of the scores, and float64[1 + d]: the bias and the weights."""
    low, high = np.quantile(table, [_TRIMMED, 1 - _TRIMMED], axis=0)
    cut = np.clip(table, low, high)
    centre, spread = cut.mean(axis=0), cut.std(axis=0)
    spread = np.where(spread > _SMALL * (1 + abs(centre)), spread, 1.0)  # a constant says nothing
    scale = (low, high, centre, spread)
    x = _standard(table, *scale)
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 0.0
    share = labels.mean()
    weights = np.zeros(x.shape[1])
    weights[0] = math.log(share / (1 - share))
    loss = _loss(x, labels, weights, penalty)
    for _ in range(_ROUNDS):
        chance = _sigmoid(x @ weights)
        slope = x.T @ (chance - labels) + penalty * weights
        bend = (x * (chance * (1 - chance))[:, None]).T @ x + np.diag(penalty)
        bend[0, 0] += _SMALL
        step = np.linalg.solve(bend, slope)
        size = 1.0
        # The loss is convex: a step that is too long is halved until it helps.
        while (better := _loss(x, labels, weights - size * step, penalty)) > loss and size > _SMALL:
            size /= 2
        if better > loss:
            break
        weights, gained, loss = weights - size * step, loss - better, better
        if gained <= _SMALL * (1 + abs(loss)):
            return scale, weights
    _log.debug("the logistic fit stopped at a loss of %g", loss)
    return scale, weights


def _standard(table: Floats, low: Floats, high: Floats, centre: Floats, spread: Floats) -> Floats:
    """float64[n, 1 + d]: ones, and the scores cut, centred and scaled."""
    x = (np.clip(table, low, high) - centre) / spread
    return np.hstack([np.ones((len(x), 1)), x])


def _loss(x: Floats, labels: npt.NDArray[np.bool_], weights: Floats, penalty: Floats) -> float:
    odds = x @ weights
    return float((np.logaddexp(0.0, odds) - labels * odds).sum() + (penalty * weights**2).sum() / 2)


def _sigmoid(odds: Floats) -> Floats:
    chance: Floats = np.exp(-np.logaddexp(0.0, -odds))
    return chance
