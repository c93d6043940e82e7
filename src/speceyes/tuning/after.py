"""A tuned funnel on other questions: what was foreseen beside what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speceyes.evaluation.analysis import figures
from speceyes.evaluation.arms import BASELINE, TUNED
from speceyes.evaluation.grading import same_answer
from speceyes.evaluation.rounds import ratio
from speceyes.evaluation.runs import TEST, Record, Run
from speceyes.evaluation.statistics import cluster_interval
from speceyes.evaluation.sweep import seconds_of
from speceyes.tuning.page import times

if TYPE_CHECKING:
    from speceyes.calibration import Calibration
    from speceyes.pipeline.settings import FunnelSettings


def after(run: Run, settings: FunnelSettings) -> list[str]:
    """Lines of gain and risk: foreseen or promised, and measured.

    Args:
        run: An evaluation with the arm "tuned".
        settings: What it ran under.
    """
    found = figures(run)
    told = settings.forecast.get("time") or {}
    gain = found["time"]["arms"][TUNED]["gain"]
    by_cpu = settings.forecast.get("clock") == "cpu"
    if by_cpu:
        walls = {b.key[1:]: seconds_of(b, "cpu") for b in run.blocks if b.phase == TEST}
        rounds = sorted({r for r, arm in walls if arm == TUNED})
        gain = ratio(*([walls[r, arm] for r in rounds] for arm in (BASELINE, TUNED)))
    lines = [f"{'':<16}{'foreseen or promised':<28}measured here"]
    foreseen = "-"
    if told.get("gain") is not None:
        foreseen = times((told["gain"], told.get("low"), told.get("high")))
    lines.append(
        f"{'gain in CPU s' if by_cpu else 'gain in time':<16}{foreseen:<28}{_or_none(gain)}"
    )
    if told.get("parts") is not None:
        lines.append(f"{'  by its parts':<16}{times(tuple(told['parts'])):<28}")
    money, paid = settings.forecast.get("money") or {}, found["money"]
    if money.get("gain") is not None and paid is not None and TUNED in paid["arms"]:
        foreseen = times((money["gain"], money.get("low"), money.get("high")))
        lines.append(f"{'gain in money':<16}{foreseen:<28}{_or_none(paid['arms'][TUNED]['gain'])}")
    rows = run.of(TEST, TUNED)
    share = sum(row.result.route == "draft" for row in rows) / len(rows)
    before = settings.forecast.get("accepted")
    told_share = f"{100 * before:.1f} %" if isinstance(before, float) else "-"
    lines.append(f"{'by draft':<16}{told_share:<28}{100 * share:.1f} %")
    made = None if settings.gate is None else settings.gate.calibration
    if made is not None:
        lines.append(f"{'risk':<16}{f'at most {100 * made.target:g} %':<28}{_risk(run, made)}")
    return lines


def _risk(run: Run, made: Calibration) -> str:
    """Measured share of bad drafts, in the sense of the promise."""
    agent = {row.result.query_id: row for row in run.of(TEST, BASELINE)}
    rows = run.of(TEST, TUNED)
    taken = [row for row in rows if row.result.route == "draft"]
    base = taken if made.risk == "selective" else list(rows)
    if not base:
        return "no draft was accepted"
    bad = [
        row.result.route == "draft" and _bad(row, agent[row.result.query_id], made.labels)
        for row in base
    ]
    low, high = cluster_interval(bad, [row.image_key or row.result.query_id for row in base])
    of = "accepted drafts" if made.risk == "selective" else "queries"
    share = f"{100 * sum(bad) / len(bad):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    return f"{share} of {len(bad)} {of}"


def _bad(row: Record, agent: Record, labels: str) -> bool:
    if labels == "differs_from_agent":
        return not same_answer(row.result.answer, agent.result.answer, row.choices)
    return not row.correct and (labels == "wrong" or agent.correct)


def _or_none(gain: tuple[float, float | None, float | None] | None) -> str:
    return "-" if gain is None else times(gain)
