"""The thresholds of a whole cascade, chosen together: least cost under a risk target.

The search is exact on a grid, and the guarantee comes from labels that the search hasn't seen, by
Pareto testing (Laufer-Goldshtein et al., "Efficiently Controlling Multiple Risks with Pareto
Testing", arXiv 2210.07913): the first half of the labels gives a sequence of settings, each
cheaper and riskier than the one before; the second half tests them in that order, and stops at
the first that fails.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.calibration.binomial import p_value
from speceyes.calibration.images import Keys, clusters_of, one_each
from speceyes.checks import checked_number, checked_share, checked_whole
from speceyes.errors import ConfigError, InputError

Setting: TypeAlias = tuple[float | None, ...]
"""A raw threshold for each drafter; None leaves that drafter out, and its cost."""

MOST_SETTINGS: Final = 200_000


@final
@dataclass(frozen=True, slots=True)
class RecordedDrafts:
    """Scores, labels and costs of all drafters of a cascade on the same queries.

    Args:
        scores: float64[n, m], the raw scores (`Verdict.separability`) of n queries by m drafters;
            NaN where a draft has none. The gates' thresholds don't matter for them.
        bad: bool[n, m], whether each draft is bad.
        costs: What a draft by each costs, in any unit, such as seconds.
        agent: What the agent costs a query, in the same unit.
        image_key: Each query's image or a key of it; None takes each for one of an image of its
            own. See `calibrate`.

    Raises:
        InputError: Shapes that don't match, costs that are negative, or infinite scores.
    """

    scores: npt.NDArray[np.float64]
    bad: npt.NDArray[np.bool_]
    costs: tuple[float, ...]
    agent: float
    image_key: Keys | None = None

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)  # None becomes NaN
        bad = np.asarray(self.bad)
        costs = tuple(float(c) for c in self.costs)
        if scores.ndim != 2 or not scores.size or bad.shape != scores.shape:
            raise InputError(
                f"scores {scores.shape} and bad {bad.shape}; both must be [queries, drafters]"
            )
        if len(costs) != scores.shape[1]:
            raise InputError(f"{len(costs)} costs for {scores.shape[1]} drafters; one each")
        if np.isinf(scores).any() or not np.isin(bad, (0, 1)).all():
            raise InputError("scores must be numbers or NaN, and bad must hold True and False only")
        if not all(0 <= c < math.inf for c in (*costs, self.agent)):
            raise InputError(f"costs={costs}, agent={self.agent}; they must be finite, from 0 up")
        for name, value in (("scores", scores), ("bad", bad.astype(bool)), ("costs", costs)):
            object.__setattr__(self, name, value)

    def part(self, rows: npt.NDArray[np.int_]) -> RecordedDrafts:
        """The same of some of the queries."""
        keys = None if self.image_key is None else [self.image_key[at] for at in rows.tolist()]
        return RecordedDrafts(self.scores[rows], self.bad[rows], self.costs, self.agent, keys)


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a setting on recorded drafts.

    Args:
        setting: The thresholds.
        cost: Mean cost a query.
        accepted: How many queries a draft answers.
        bad: How many of these drafts are bad.
    """

    setting: Setting
    cost: float
    accepted: int
    bad: int

    @property
    def risk(self) -> float:
        """The share of bad drafts among the accepted; 0 where none is."""
        return self.bad / self.accepted if self.accepted else 0.0


@final
@dataclass(frozen=True, slots=True)
class Chosen:
    """The thresholds of a cascade and what was promised of them.

    Args:
        setting: For `Cascade`, one raw threshold a drafter; None where it is left out. All None,
            which leaves everything to the agent, where nothing could be certified.
        certified: Whether the promise holds: with confidence 1 - delta less than `target` of the
            answers by draft are bad.
        target: The risk.
        delta: One minus the confidence.
        cost: Mean cost a query on the held-out labels.
        accepted: Of these, how many a draft answered.
        bad: How many of those were bad.
        n: Held-out labels.
        tested: How many settings were tested on them.
    """

    setting: Setting
    certified: bool
    target: float
    delta: float
    cost: float
    accepted: int
    bad: int
    n: int
    tested: int


def outcome(drafts: RecordedDrafts, setting: Setting) -> Outcome:
    """Runs a setting on recorded drafts: the first drafter that reaches its threshold answers.

    Raises:
        InputError: The setting has another number of thresholds than there are drafters.

    Example:
        >>> scores, bad = np.array([[2.0, 9.0], [5.0, 9.0]]), np.array([[True, False], [False] * 2])
        >>> outcome(RecordedDrafts(scores, bad, (1.0, 3.0), 10.0), (4.0, 8.0)).cost
        2.5
    """
    n, m = drafts.scores.shape
    if len(setting) != m:
        raise InputError(f"{len(setting)} thresholds for {m} drafters; there must be one each")
    left = np.ones(n, dtype=bool)
    cost, bad = 0.0, 0
    for i, threshold in enumerate(setting):
        if threshold is None:
            continue
        cost += drafts.costs[i] * int(left.sum())
        taken = left & (drafts.scores[:, i] >= threshold)
        bad += int(drafts.bad[taken, i].sum())
        left &= ~taken
    waiting = int(left.sum())
    return Outcome(setting, (cost + drafts.agent * waiting) / n, n - waiting, bad)


def grid(drafts: RecordedDrafts, size: int) -> tuple[tuple[float | None, ...], ...]:
    """For each drafter None and at most `size` of its scores, evenly by rank, the lowest among
    them.
    """
    found = []
    for column in drafts.scores.T:
        there = np.unique(column[~np.isnan(column)])
        at = np.unique(np.linspace(0, max(there.size - 1, 0), size).round().astype(int))
        found.append((None, *(there[at].tolist() if there.size else ())))
    return tuple(found)


def outcomes(
    drafts: RecordedDrafts, grids: tuple[tuple[float | None, ...], ...]
) -> Iterator[Outcome]:
    """Outcomes of every setting of a grid.

    Raises:
        ConfigError: The grid has more than 200,000 settings.
    """
    count = math.prod(len(column) for column in grids)
    if count > MOST_SETTINGS:
        raise ConfigError(
            f"{count} settings are more than {MOST_SETTINGS}: take a coarser grid, or fewer "
            "drafters"
        )
    return (outcome(drafts, setting) for setting in product(*grids))


def cheapest(drafts: RecordedDrafts, target: float, *, size: int = 16) -> Outcome:
    """The cheapest setting whose risk on these very drafts is at most the target.

    Exact on the grid, and no promise: it is the best of many on the data it was chosen on.

    Raises:
        ConfigError: The target is out of range, or the grid is too large.
    """
    target = checked_share("target", target)
    checked_whole("size", size, 1)
    fine = (o for o in outcomes(drafts, grid(drafts, size)) if o.risk <= target)
    return min(fine, key=lambda o: (o.cost, o.risk))  # all None is always among them


def choose_thresholds(
    drafts: RecordedDrafts,
    *,
    target: float = 0.05,
    delta: float = 0.1,
    size: int = 16,
    held_out: float = 0.5,
    seed: int = 0,
) -> Chosen:
    """The thresholds of all drafters with the least cost that can be certified.

    No image is in both parts of the queries. On the first every setting of the grid is run. Of
    those the front is kept on which less evidence is always paid for with less cost. On the
    held-out part, where one row of each image counts, these settings are tested in that order, each
    by the exact binomial test of its risk, up to the first failure. The order is fixed before the
    held-out labels are seen, so that the last one to pass has a risk under the target with
    confidence 1 - delta.

    Args:
        drafts: Drafts of all drafters on the same queries, drawn as those to come will be.
        target: The share of bad ones among the answers by draft, strictly between 0 and 1.
        delta: One minus the confidence, strictly between 0 and 1.
        size: Thresholds a drafter in the grid.
        held_out: Share of the queries that certify, strictly between 0 and 1.
        seed: Splits the queries.

    Raises:
        ConfigError: An argument out of range, or a grid that is too large.
        InputError: There are fewer than two queries.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.gamma(4, 2, (800, 2))
        >>> bad = rng.random((800, 2)) < 0.5 * np.exp(-0.4 * scores)
        >>> found = choose_thresholds(RecordedDrafts(scores, bad, (1.0, 3.0), 20.0), size=8)
        >>> found.certified, found.bad / found.accepted < 0.05, found.cost < 20
        (True, True, True)
    """
    target, delta = checked_share("target", target), checked_share("delta", delta)
    share = checked_number("held_out", held_out, 0, 1)
    checked_whole("size", size, 1)
    n = len(drafts.scores)
    keys = drafts.image_key
    images = np.arange(n) if keys is None else clusters_of(keys, n)
    count = int(images.max()) + 1
    order = np.random.default_rng(seed).permutation(count)
    kept = round(count * share)
    if not 0 < kept < count:
        raise InputError(f"held_out={held_out} of {count} queries or images leaves one part empty")
    certifies = np.isin(images, order[:kept])
    seen = drafts.part(np.flatnonzero(~certifies))
    # Of each image one row certifies: rows of an image are no independent evidence.
    rows = np.flatnonzero(certifies)
    held = drafts.part(rows[one_each(images[rows], seed)])
    kept = len(held.scores)
    tested = 0
    best = outcome(held, (None,) * len(drafts.costs))
    certified = False
    for candidate in _front(seen, target, size):
        tested += 1
        found = outcome(held, candidate.setting)
        if p_value(found.bad, found.accepted, target) > delta:
            break
        best, certified = found, True
    return Chosen(
        best.setting,
        certified,
        target,
        delta,
        best.cost,
        best.accepted,
        best.bad,
        kept,
        tested,
    )


def _front(drafts: RecordedDrafts, target: float, size: int) -> list[Outcome]:
    """Settings from the most evidence for a small risk to the least, each cheaper than those
    before; none that is dearer than the agent alone.
    """
    found = outcomes(drafts, grid(drafts, size))
    ranked = sorted(
        ((p_value(o.bad, o.accepted, target), o.cost, o) for o in found if o.accepted),
        key=lambda row: row[:2],
    )
    front: list[Outcome] = []
    least = drafts.agent
    for evidence, cost, candidate in ranked:
        if evidence >= 1.0:
            break
        if cost < least:
            front.append(candidate)
            least = cost
    return front
