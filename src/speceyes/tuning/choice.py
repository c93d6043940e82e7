"""Choice of a setting under a promise: the cheapest whose risk is certified, or none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, final

import numpy as np

from speceyes.calibration import Calibration, Scoring, calibrate_many
from speceyes.calibration.many import Correction, Setting
from speceyes.errors import ConfigError
from speceyes.evaluation.prices import Prices, Role, Usage
from speceyes.scoring.scales import to_raw
from speceyes.tuning.candidates import Candidate
from speceyes.tuning.forecast import AsAWhole, Forecast, forecast, put_right
from speceyes.tuning.observed import Bools, Floats, Observed, Spent

By: TypeAlias = Literal["time", "money"]
_EQUAL = 0.01
"""Relative difference of costs below which the plainer setting is taken."""


@final
@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate on the rows that its certificate is from.

    Args:
        candidate: The setting.
        calibration: Its threshold, or that there is none.
        beta: Share of queries that the judge lets through.
        accepted: Share of queries whose draft is accepted.
        bad: Share of bad ones among those; NaN where none is.
        right: Share of right answers of the agent alone, and of the funnel.
        costs: Seconds of each phase, as `speceyes.bench.plan.forecast.Costs` has them.
        time: Forecast in seconds.
        money: Forecast in money; None without prices.
    """

    candidate: Candidate
    calibration: Calibration
    beta: float
    accepted: float
    bad: float
    right: tuple[float, float]
    costs: Mapping[str, float | None]
    time: Forecast
    money: Forecast | None

    def forecast(self, by: By) -> Forecast:
        """The forecast that the choice goes by."""
        found = self.time if by == "time" else self.money
        assert found is not None
        return found


@final
@dataclass(frozen=True, slots=True)
class Choice:
    """The setting that was chosen.

    Args:
        best: The cheapest one with a certificate, or, where none has one, the nearest.
        by: What it is the cheapest in.
        table: All candidates with a certificate on the rows that chose, the cheapest first; a
            forecast there is of those rows, so that the best one's is flattered.
        tried: Number of candidates.
        chose: Rows that the choice was made on.
        certified: Rows that the certificate is from.
        correction: How the choice is paid for.
    """

    best: Tried
    by: By
    table: tuple[Tried, ...]
    tried: int
    chose: int
    certified: int
    correction: Correction

    @property
    def on(self) -> bool:
        """The funnel is worth switching on: certified, and expected to gain."""
        return self.best.calibration.certified and self.best.forecast(self.by).gain > 1

    def put_right(self, found: Observed, whole: AsAWhole) -> Choice:
        """The choice with its forecast in time corrected by a run of the funnel as a whole.

        Args:
            found: What the choice was made from.
            whole: The run, on rounds that were recorded as well.
        """
        best = self.best
        seconds = spent_seconds(
            found, best.candidate, *_routes(found, best.candidate, best.calibration)
        )
        agent, funnel = (
            [float(side[found.rounds == r].sum()) for r in whole.rounds]
            for side in (found.agent.seconds, seconds)
        )
        made = put_right(best.time, whole, (agent, funnel), self.certified)
        return replace(self, best=replace(best, time=made))


def choose(
    found: Observed,
    candidates: Sequence[Candidate],
    scoring: Callable[[Candidate], Scoring],
    judge: Callable[[Candidate], str],
    bad: Callable[[Candidate], Bools],
    *,
    by: By = "time",
    prices: Prices | None = None,
    correction: Correction = "split",
    delta: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> Choice:
    """The cheapest candidate under the promise, its threshold chosen with it.

    The number of candidates is paid for: "split" chooses on one half of the images, and certifies
    and forecasts on the other; "bonferroni" has all of the rows for both, and a confidence for each
    candidate that holds for all at once (its forecast is that of the best of many, and flattered).

    Args:
        found: The recorded queries.
        candidates: What is tried, the plainest first.
        scoring: What a candidate's scores are made with.
        judge: Identity of a candidate's judge.
        bad: bool[n], its drafts that the labels call bad.
        by: What is to be least.
        prices: Needed for "money".
        correction: "split" or "bonferroni".
        delta: One minus the confidence, of the whole choice.
        seed: Splits, and draws lots.
        **options: Of `calibrate`: risk, target, labels.

    Raises:
        ConfigError: "money" without prices, or see `calibrate_many`.
        InputError: See `calibrate_many`.
    """
    if by == "money" and prices is None:
        raise ConfigError('by="money" needs prices: name a file with --prices')
    by_name = {one.name: one for one in candidates}
    settings = {
        name: Setting(
            found.scores(one),
            scoring(one),
            found.through(one),
            bad(one),
            {"judge": judge(one)},
        )
        for name, one in by_name.items()
    }
    table: dict[str, Tried] = {}

    def cost(name: str, made: Calibration, on: Bools) -> float:
        one = tried(found, by_name[name], made, bad(by_name[name]), on, prices, quick=True)
        table.setdefault(name, one)  # of the rows that choose, which come first
        return round(math.log(max(one.forecast(by).funnel, 1e-12)) / _EQUAL)

    everything = np.zeros(len(found), dtype=bool)
    many = calibrate_many(
        settings,
        everything,
        correction=correction,
        delta=delta,
        image_key=list(found.image_keys),
        seed=seed,
        cost=cost,
        **options,
    )
    chose = dict(table)
    name = many.best or min(
        many.calibrations, key=lambda one: many.calibrations[one].labels_needed or 10**9
    )
    one = by_name[name]
    best = tried(found, one, many.calibrations[name], bad(one), many.on, prices)
    rows = int(many.on.sum())
    ranked = sorted(chose.values(), key=lambda row: row.forecast(by).funnel)
    return Choice(
        best,
        by,
        tuple(ranked),
        len(candidates),
        rows if correction == "bonferroni" else len(found) - rows,
        rows,
        correction,
    )


def tried(
    found: Observed,
    one: Candidate,
    made: Calibration,
    bad: Bools,
    on: Bools,
    prices: Prices | None = None,
    *,
    quick: bool = False,
) -> Tried:
    """A candidate at a calibration's threshold, on some rows.

    Args:
        found: The recorded queries.
        one: The candidate.
        made: Its threshold.
        bad: bool[n], its bad drafts.
        on: bool[n], the rows.
        prices: For the forecast in money.
        quick: Without intervals, which take a moment.
    """
    through, taken = _routes(found, one, made)
    seconds = spent_seconds(found, one, through, taken)
    money = None
    if prices is not None:
        alone = priced(found.agent, "large", prices)
        first, last = _asked(found, one, through)
        paid = (1 - taken) * alone + last * priced(found.drafted(one).spent, "small", prices)
        if one.rung is not None:
            paid = paid + first * priced(found.low(one).spent, "small", prices)
        if one.judge in ("large", "small"):
            role: Role = one.judge
            paid = paid + priced(found.judges[one.judge, one.judge_pixels].spent, role, prices)
        money = forecast(alone[on], paid[on], found.rounds[on], quick=quick)
    kept = taken & on
    right = np.where(taken, found.answering(one, lambda drafts: drafts.right), found.right)
    return Tried(
        one,
        made,
        float(through[on].mean()),
        float(taken[on].mean()),
        float(bad[kept].mean()) if kept.any() else math.nan,
        (float(found.right[on].mean()), float(right[on].mean())),
        _phase_costs(found, one, through, taken, on),
        forecast(found.agent.seconds[on], seconds[on], found.rounds[on], quick=quick),
        money,
    )


def _routes(found: Observed, one: Candidate, made: Calibration) -> tuple[Bools, Bools]:
    """bool[n] each: queries that the judge lets through, and those whose draft is accepted."""
    through = found.through(one)
    taken = np.zeros(len(found), dtype=bool)
    if made.threshold is not None:
        raw = to_raw(made.threshold, log=one.aggregate == "log", sharpness=made.scoring.sharpness)
        taken = through & (found.scores(one) >= raw)  # NaN reaches nothing
    return through, taken


def _phase_costs(
    found: Observed, one: Candidate, through: Bools, taken: Bools, on: Bools
) -> dict[str, float | None]:
    """Shares, and seconds a query of each phase; None where no query met it."""
    seconds = found.agent.seconds

    def mean(rows: Bools) -> float | None:
        return float(seconds[rows].mean()) if rows.any() else None

    beta = float(through[on].mean())
    judged = None
    if one.judge in ("large", "small"):
        judged = found.judges[one.judge, one.judge_pixels]
    first, last = _asked(found, one, through)
    drafting = found.drafted(one).spent.seconds.mean() * float(last[on].mean())
    if one.rung is not None:
        drafting += found.low(one).spent.seconds.mean() * float(first[on].mean())
    asked = float(first[on].mean())
    whole = float(seconds[on].mean())
    return {
        "beta": beta,
        "alpha": float(taken[on].mean()) / beta if beta else 0.0,
        # A draft that judges is made of every query, as a judgement is.
        "c_judge": float(drafting)
        if one.judge == "draft"
        else 0.0
        if judged is None
        else float(judged.spent.seconds.mean()),
        "c_draft": 0.0 if one.judge == "draft" or not asked else float(drafting) / asked,
        "l_agent": whole,
        "l_tools": mean(on & ~through),
        "l_rejected": mean(on & through & ~taken),
        "spread": float(seconds[on].std() / whole) if whole > 0 else 0.0,
    }


def spent_seconds(found: Observed, one: Candidate, through: Bools, taken: Bools) -> Floats:
    """float64[n]: expected seconds of each query under a candidate.

    Judge and drafts cost a query what they cost on average, since batches share their time; the
    agent what it took on this very query.
    """
    first, last = _asked(found, one, through)
    seconds = found.drafted(one).spent.seconds.mean() * last
    if one.rung is not None:
        seconds = seconds + found.low(one).spent.seconds.mean() * first
    spared = 0.0
    if one.judge in ("large", "small"):
        seconds = seconds + found.judges[one.judge, one.judge_pixels].spent.seconds.mean()
    if one.judge == "large" and one.judge_pixels is None:
        spared = found.shared_s
    left = np.maximum(found.agent.seconds - spared, 0.0)
    whole: Floats = seconds + left * ~taken
    return whole


def _asked(found: Observed, one: Candidate, through: Bools) -> tuple[Bools, Bools]:
    """bool[n] each: queries that have a draft, and those that have one of the last rung."""
    first = np.ones(len(found), dtype=bool) if one.judge == "draft" else through
    return first, first & found.climbs(one)


def priced(spent: Spent, role: Role, prices: Prices) -> Floats:
    """float64[n]: money that each query's tokens cost."""
    return np.array([prices.of(role, used) for used in spent.usage])


def total(spent: Spent) -> Usage:
    """Tokens of all queries."""
    return sum(spent.usage, Usage())
