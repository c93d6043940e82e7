"""The paper's ablations, drawn: threshold and K from recorded drafts, batch and judge as run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from speceyes.evaluation import arms as known
from speceyes.evaluation import plots
from speceyes.evaluation.arms import BASELINE, FUNNEL

JUDGES: Final = (FUNNEL, "min-small-judge", "min-no-judge")
"""Arms that differ in who judges alone."""
BATCHES: Final = (1, 2, 4, 8, 16, 32)
"""Batch sizes that the ablation of the batch runs."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """A picture of one axis.

    Args:
        name: Of its file, without the ending.
        title: Above it.
        svg: The picture, for a page that has `plots.CSS`.
    """

    name: str
    title: str
    svg: str


def ablations(found: Mapping[str, Any]) -> list[Ablation]:
    """The pictures that a run's figures allow; see `speceyes.evaluation.analysis.figures`."""
    swept, gains = found["sweeps"], found["time"]["sweeps"]
    drawn = []
    for axis, across in (("threshold", "threshold"), ("top_k", "K")):
        pairs = list(zip(swept[axis], gains[axis], strict=True))
        names = dict.fromkeys(r["aggregate"] for r, _ in pairs)
        for what, up in (("accuracy", "accuracy"), ("gain", "speed by the cost model")):
            curves = {
                a: [
                    (float(r[axis]), float({**r, **g}[what] or 0.0))
                    for r, g in pairs
                    if r["aggregate"] == a
                ]
                for a in names
            }
            if pairs:
                svg = plots.lines(curves, across, up, share=what == "accuracy", dots=True)
                title = f"{up[0].upper()}{up[1:]} over {across}"
                drawn.append(Ablation(f"{across.lower()}-{what}", title, svg))
    if batches := found["time"]["batches"]:
        curves = {
            name: [(float(b["batch_size"]), b[key]) for b in batches]
            for name, key in (
                (known.arm(BASELINE).title, "agent_per_s"),
                (known.arm(FUNNEL).title, "funnel_per_s"),
            )
        }
        svg = plots.lines(curves, "batch size", "queries a second", dots=True)
        drawn.append(Ablation("batch", "Over batch size", svg))
    timed = found["time"]["arms"]
    judged = {
        known.arm(a).title: (ends(timed[a]["gain"]), (arm["accuracy"], arm["low"], arm["high"]))
        for a, arm in found["arms"].items()
        if a in JUDGES
    }
    if len(judged) > 1:
        svg = plots.scatter(judged, "speed over the agent alone", "accuracy")
        drawn.append(Ablation("judge", "Over judges", svg))
    return drawn


def ends(gain: Sequence[float | None] | None) -> tuple[float, float, float]:
    """A gain for a picture; without an interval its ends are the value."""
    value, low, high = gain or (0.0, 0.0, 0.0)
    value = value or 0.0
    return value, value if low is None else low, value if high is None else high


def write(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes each picture as an SVG file of its own; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for one in ablations(found):
        files.append(folder / f"{one.name}.svg")
        files[-1].write_text(plots.standalone(one.svg), encoding="utf-8")
    return files
