"""A choice in words, and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from speceyes.evaluation.prices import Prices
from speceyes.tuning.choice import Choice, Tried, total
from speceyes.tuning.forecast import Forecast
from speceyes.tuning.observed import Observed

_SHOWN = 8


def lines(choice: Choice, found: Observed, prices: Prices | None, *, labelled: bool) -> list[str]:
    """The choice, its certificate, its forecast, and the cheapest of each judge and resolution.

    Args:
        choice: The choice.
        found: What it was made from.
        prices: Of tokens; None leaves money out.
        labelled: Whether there were right answers.
    """
    best, made = choice.best, choice.best.calibration
    said = [_verdict(choice), "", f"setting       {best.candidate.name}"]
    if made.threshold is not None:
        said.append(f"threshold     {made.threshold:.6g}")
    said.append(f"certificate   {made.statement}")
    said.append(f"              {_paid(choice, made.n)}")
    said.append(
        f"shares        the judge lets {100 * best.beta:.1f} % through; "
        f"{100 * best.accepted:.1f} % are answered by draft"
        + ("" if math.isnan(best.bad) else f", {100 * best.bad:.1f} % of these bad")
    )
    if labelled:
        alone, funnel = (100 * share for share in best.right)
        said.append(f"accuracy      {alone:.1f} % alone, {funnel:.1f} % under the funnel")
    said.append(f"time          {_told(best.time, 's')}")
    if best.time.parts is not None:
        told = f"the parts by themselves foresee {times(best.time.parts)}"
        said.append(f"              {told}; a run of them together put it right")
    if best.money is not None and prices is not None:
        said.append(f"money         {_told(best.money, prices.currency, 1000.0)}")
    if best.candidate.judge == "large" and best.candidate.judge_pixels is None:
        said.append(
            f"              what the judge has read spares the agent {found.shared_s:.3g} s a query"
        )
    said.append(f"tokens        {_tokens(found)}")
    if choice.table:
        said += ["", *_table(choice)]
    return said


def summary(choice: Choice, found: Observed, prices: Prices | None) -> dict[str, Any]:
    """The same as JSON values."""
    return {
        "on": choice.on,
        "by": choice.by,
        "tried": choice.tried,
        "questions": {
            "all": len(found),
            "chose": choice.chose,
            "certified": choice.certified,
        },
        "best": _row(choice.best),
        "statement": choice.best.calibration.statement,
        "costs": dict(choice.best.costs),
        "more_labels": choice.best.calibration.labels_needed,
        "shared_s": found.shared_s,
        "prices": None if prices is None else prices.to_dict(),
        "table": [_row(one) for one in choice.table],
    }


def engine_lines(seconds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Engines' own times, a line an arm and role.

    Args:
        seconds: See `observed.engine_seconds`.

    Example:
        >>> told = {"agent": {"large": {"queued": 0.5, "prefill": 0.25, "decode": 2.0}}}
        >>> print(engine_lines(told)[1])
        agent               large   queued 0.5 s, reading 0.25 s, writing 2 s
    """
    found = [
        f"{arm:<20}{role:<8}queued {told['queued']:.3g} s, reading {told['prefill']:.3g} s, "
        f"writing {told['decode']:.3g} s"
        for arm, roles in seconds.items()
        for role, told in roles.items()
    ]
    return ["seconds a query by the engines' own clocks, which overlap in a batch", *found]


def checked_line(found: Mapping[str, Any]) -> str:
    """The run of the chosen funnel as a whole.

    Args:
        found: Its `questions`, and its `gain` with `low` and `high`.
    """
    gain = times((found["gain"], found["low"], found["high"]))
    return (
        f"as a whole    {gain} in time, the chosen funnel in turns with the agent on "
        f"{found['questions']} of the questions"
    )


def _verdict(choice: Choice) -> str:
    best = choice.best
    found = best.forecast(choice.by)
    if not best.calibration.certified:
        return "leave it off: no threshold can be certified"
    if math.isnan(found.gain):
        return "leave it off: nothing was spent, so that nothing can be gained"
    gain = f"predicted gain {times((found.gain, found.low, found.high))}"
    if not choice.on:
        return f"leave it off: {gain}{_unsettled(choice, found)}"
    return f"switch it on: {gain}{_unsettled(choice, found)}"


def _unsettled(choice: Choice, found: Forecast) -> str:
    if math.isnan(found.low):
        return ", on too few rounds for an interval"
    if found.settled:
        return ""
    if found.more is None:
        return ", which is no difference; more questions would not tell"
    share = choice.certified / max(1, choice.certified + choice.chose)
    whole = choice.correction == "bonferroni"  # every question serves for both
    more = found.more if whole else math.ceil(found.more / share)
    return f", which holds 1: about {more} more questions would settle it"


def _paid(choice: Choice, n: int) -> str:
    rows = f"{choice.certified} questions, {n} of them drawn one an image"
    if choice.correction == "bonferroni":
        return (
            f"the choice among {choice.tried} settings is paid for in its confidence; from {rows}"
        )
    return f"chosen among {choice.tried} settings on {choice.chose} other questions; from {rows}"


def _told(found: Forecast, unit: str, scale: float = 1.0) -> str:
    per = "a query" if scale == 1 else "a thousand queries"
    return (
        f"{scale * found.agent:.4g} {unit} {per} alone, {scale * found.funnel:.4g} the funnel: "
        f"{times((found.gain, found.low, found.high))}"
    )


def _tokens(found: Observed) -> str:
    used, n = total(found.agent), len(found)
    drafts = total(found.drafts[None].spent)
    kept = f" ({used.cached / n:.0f} of them kept)" if used.cached else ""
    return (
        f"agent {used.read / n:.0f} read{kept} and {used.written / n:.0f} written a query; draft "
        f"{drafts.read / n:.0f} and {drafts.written / n:.1f}"
    )


def _table(choice: Choice) -> list[str]:
    """The cheapest of each judge and resolution, on the rows that chose."""
    found: dict[tuple[str, str], Tried] = {}
    for one in choice.table:
        made = one.candidate
        climbs = "" if made.rung is None else f"{made.rung[0]}, then "
        last = "full" if made.draft_pixels is None else f"{made.draft_pixels} px"
        found.setdefault((made.judge_words, climbs + last), one)
    head = f"{'judge':<22}{'draft':<20}{'gate':<28}{'through':>9}{'drafted':>9}{'gain':>8}"
    rows = [f"cheapest of each judge and resolution, on the {choice.chose} questions that chose"]
    rows.append(head)
    for (judge, drafts), one in list(found.items())[:_SHOWN]:
        rows.append(
            f"{judge:<22}{drafts:<20}"
            f"{one.candidate.gate_words:<28}{100 * one.beta:>8.1f}%{100 * one.accepted:>8.1f}%"
            f"{one.forecast(choice.by).gain:>7.2f}x"
        )
    return rows


def _row(one: Tried) -> dict[str, Any]:
    return {
        "setting": dataclasses.asdict(one.candidate),
        "threshold": one.calibration.threshold,
        "beta": one.beta,
        "accepted": one.accepted,
        "bad": finite(one.bad),
        "right": list(one.right),
        "time": forecast_dict(one.time),
        "money": None if one.money is None else forecast_dict(one.money),
    }


def forecast_dict(one: Forecast) -> dict[str, Any]:
    """A forecast as JSON values."""
    told = {name: finite(value) for name, value in dataclasses.asdict(one).items()}
    if one.parts is not None:
        told["parts"] = [finite(value) for value in one.parts]
    return told


def times(gain: tuple[float, float | None, float | None]) -> str:
    """A gain with its interval, where it has one.

    Example:
        >>> times((1.5, 1.25, 1.8)), times((1.5, None, None)), times((1.5, math.nan, math.nan))
        ('1.50x (1.25 to 1.80)', '1.50x', '1.50x')
    """
    value, low, high = gain
    if low is None or high is None or math.isnan(low):
        return f"{value:.2f}x"
    return f"{value:.2f}x ({low:.2f} to {high:.2f})"


def finite(value: Any) -> Any:
    """The value, or None where JSON can't say it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
