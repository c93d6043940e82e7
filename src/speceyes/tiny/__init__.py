"""The bundled pair of tiny trained models, in the Hugging Face format.

They were trained on the synthetic scenes of `speceyes.tiny.scenes` by `speceyes.tiny.train`
and know nothing else. `docs/tiny.md` and the model card beside the weights have the figures.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
LARGE = WEIGHTS / "large"
"""The agent: thinks, zooms, answers, judges. Load with `HFModel.from_pretrained`."""
SMALL = WEIGHTS / "small"
"""The drafter: answers at once from the downsampled scene."""


def settings() -> dict[str, Any]:
    """What was chosen on the calibration split: `threshold`, `top_k`, `aggregate`, and more."""
    data: dict[str, Any] = json.loads((WEIGHTS / "settings.json").read_text(encoding="utf-8"))
    return data
