"""The bundled tiny trained models in the Hugging Face format: a pair with tools, a drafter that
zooms, and a pair that reasons in words.

They were trained by `speceyes.tiny.training` on the synthetic scenes of `speceyes.tiny.scenes` and
know nothing else. `docs/tiny.md` and the model card beside the weights have the figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speceyes.gate import SeparabilityGate

WEIGHTS = Path(__file__).parent / "weights"
LARGE = WEIGHTS / "large"
"""The agent: thinks, zooms, answers, judges. Load with `HFModel.from_pretrained`."""
SMALL = WEIGHTS / "small"
"""The drafter: answers at once from the downsampled scene."""
SMALL_JUDGE = WEIGHTS / "small_judge"
"""A drafter that has also learned to say whether tools are needed, as a judge and in its draft, at
two sizes: for `judge="small"`, `judge="draft"` and ladders."""
SMALL_ZOOM = WEIGHTS / "small_zoom"
"""A drafter that has also learned to zoom: for `SpeculativeAnswerer(..., max_depth=1)`."""

REASONER_LARGE = WEIGHTS / "reasoner_large"
"""Answers puzzles (`speceyes.tiny.puzzles`) at once, behind reasoning, and with notes."""
REASONER_SMALL = WEIGHTS / "reasoner_small"
"""Does so as well, for a third of the cost of a token."""


def settings() -> dict[str, Any]:
    """Settings chosen on the calibration split: `threshold`, `top_k`, `aggregate`, and more."""
    data: dict[str, Any] = json.loads((WEIGHTS / "settings.json").read_text(encoding="utf-8"))
    return data


def gate() -> SeparabilityGate:
    """The gate of the bundled drafter, as it was chosen on the calibration split."""
    from speceyes.gate import SeparabilityGate

    chosen = settings()
    return SeparabilityGate(
        chosen["threshold"], top_k=chosen["top_k"], aggregate=chosen["aggregate"]
    )


def depth_settings() -> dict[str, Any]:
    """Figures of `SMALL_ZOOM`: `top_k`, `cpu_seconds`, and with the judge ("judged") and without
    ("unjudged") each drafter's `threshold` and `rule`; by `speceyes.tiny.training.depth`.
    """
    data: dict[str, Any] = json.loads((WEIGHTS / "depth.json").read_text(encoding="utf-8"))
    return data


def judge_settings() -> dict[str, Any]:
    """Settings of `SMALL_JUDGE`, chosen on the calibration split: `top_k`, `aggregate`,
    `thresholds` behind its own judgements ("small"), behind nobody ("none"), of drafts that may ask
    to look closer ("draft") and of first drafts on `rung_pixels` ("rung"), and held-out figures;
    by `speceyes.tiny.training.judging`.
    """
    data: dict[str, Any] = json.loads((WEIGHTS / "judge.json").read_text(encoding="utf-8"))
    return data


def reasoner_settings() -> dict[str, Any]:
    """Settings of the pair that reasons, chosen on calibration puzzles: the small one's attention
    `heads`, `top_k`, the `place` of notes, the `rule` (`TransferRule.from_dict`), and the limit
    below which the large one doubts reasoning (`credible`); by
    `speceyes.tiny.training.reasoning_report`.
    """
    data: dict[str, Any] = json.loads((WEIGHTS / "reasoner.json").read_text(encoding="utf-8"))
    return data
