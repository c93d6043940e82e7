"""Money that the arms of a run cost, by the tokens that they noted and prices beside the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from speceyes.evaluation import arms as known
from speceyes.evaluation.arms import AUTO, BASELINE, TUNED
from speceyes.evaluation.intervals import ratio_interval
from speceyes.evaluation.prices import Prices
from speceyes.evaluation.runs import Record, Run
from speceyes.files import write_whole

PRICES: Final = "prices.json"
_THOUSAND: Final = 1000


def save_prices(folder: Path, prices: Prices) -> None:
    """Writes prices into a run's folder, where its reports find them."""
    write_whole(folder / PRICES, json.dumps(prices.to_dict(), indent=1) + "\n")


def prices_of(folder: Path) -> Prices | None:
    """Prices of a run's folder; None where there are none.

    Raises:
        ConfigError: They can't be read.
    """
    path = folder / PRICES
    return Prices.load(path) if path.exists() else None


def spending(run: Run, by_arm: Mapping[str, Sequence[Record]]) -> dict[str, Any] | None:
    """Money a thousand queries of each arm, and how many times less it is than the agent's.

    Arms of other models than the pair, such as one that looks, are left out.

    Args:
        run: The run.
        by_arm: Its records by arm, on the same queries in each.

    Returns:
        `currency`, and under `arms` by arm `per_thousand` and `gain` with its interval, None where
        nothing was spent; None where the folder has no prices.
    """
    prices = prices_of(run.folder)
    if prices is None:
        return None
    spent: dict[str, dict[str, float]] = {}
    for name, rows in by_arm.items():
        arm = known.arm(name)
        if arm.words or arm.needs or (name not in _PAIR and not arm.aggregate):
            continue
        judge = _judge(run) if name in (TUNED, AUTO) else arm.judge
        spent[name] = {r.result.query_id: prices.of_result(r.result, judge) for r in rows}
    base = spent[BASELINE]
    images = {r.result.query_id: r.image_key for r in by_arm[BASELINE]}
    found = {}
    for name, paid in spent.items():
        pairs = [(base[one], paid[one]) for one in base if one in paid]
        of = [images[one] or one for one in base if one in paid]
        some = sum(cost for _, cost in pairs) > 0
        found[name] = {
            "per_thousand": _THOUSAND * sum(cost for _, cost in pairs) / len(pairs),
            "gain": ratio_interval([a for a, _ in pairs], [b for _, b in pairs], of)
            if some
            else None,
        }
    return {"currency": prices.currency, "arms": found}


_PAIR: Final = (
    BASELINE,
    known.DRAFT,
    known.AGENT_ONE,
    known.FUNNEL_ONE,
    known.NO_TOOLS,
    TUNED,
    AUTO,
)


def _judge(run: Run) -> str:
    return str((run.fixed.get("tuned") or {}).get("judge", {}).get("model"))


def money_lines(found: Mapping[str, Any] | None) -> list[str]:
    """The same in words; nothing without prices."""
    if found is None:
        return []
    lines = ["", f"{'':<26}{found['currency'] + ' a thousand queries':<28}less by"]
    for name, arm in found["arms"].items():
        gain = arm["gain"]
        told = "-" if gain is None else f"{gain[0]:.2f}x ({gain[1]:.2f}-{gain[2]:.2f})"
        lines.append(f"{known.arm(name).title:<26}{arm['per_thousand']:<28.4g}{told}")
    return lines
