"""The paper's Table 1, to stand beside a run of the same models (arXiv 2603.23483v1; one A100).

Accuracy in percent and speed over the backbone alone, as printed there.
"""

from __future__ import annotations

from typing import Final

COLUMNS: Final = (
    "vstar/direct_attributes",
    "vstar/relative_position",
    "hr-bench-4k",
    "hr-bench-8k",
    "pope/adversarial",
    "pope/popular",
    "pope/random",
)
"""The table's columns, as a run names them."""

SMALL: Final = "qwen3-vl-2b"
"""Beginning of the name of the paper's small model."""

_ROWS: Final = """
-        draft      77.39 5.44 82.89 5.31 71.38 3.20 68.00 2.90 82.56 4.20 83.80 3.78 86.47 4.07
deepeyes agent      90.43 1.00 82.89 1.00 75.85 1.00 71.43 1.00 78.43 1.00 81.90 1.00 88.83 1.00
deepeyes specreason 80.19 0.61 73.91 0.38 80.43 0.44 72.54 0.42 49.10 0.38 51.55 0.38 60.20 0.37
deepeyes log        83.48 2.06 88.16 2.05 73.71 1.35 69.67 1.28 83.97 1.89 86.70 1.95 90.50 2.05
deepeyes mean       78.26 2.89 84.21 3.35 71.62 1.88 67.38 1.77 85.13 2.06 87.00 2.10 90.13 2.14
deepeyes bottom20   83.48 2.13 84.21 2.12 75.22 1.20 71.18 1.04 85.13 2.08 87.00 2.08 90.13 2.11
deepeyes min        90.43 1.53 89.47 1.90 75.85 1.13 71.80 1.08 85.13 2.13 87.00 2.15 90.13 2.19
thyme    agent      86.96 1.00 82.89 1.00 77.72 1.00 72.43 1.00 81.32 1.00 84.53 1.00 90.17 1.00
thyme    specreason 89.57 0.48 75.00 0.53 80.01 0.52 81.02 0.51 84.62 0.46 85.97 0.43 90.27 0.46
thyme    log        80.87 1.82 82.89 1.45 74.97 1.13 70.84 1.06 85.76 1.68 87.80 1.67 91.47 1.59
thyme    mean       77.39 2.34 80.26 1.83 72.62 1.27 68.00 1.21 85.89 1.78 88.30 1.80 91.27 1.65
thyme    bottom20   78.26 2.18 80.26 1.84 77.35 1.05 72.31 0.99 85.89 1.81 88.30 1.81 91.27 1.73
thyme    min        87.83 1.32 82.89 1.42 78.47 1.01 73.31 0.95 85.87 1.77 88.30 1.78 91.27 1.70
"""

Cells = dict[str, tuple[float, float]]


def _parsed() -> dict[tuple[str, str], Cells]:
    table = {}
    for line in _ROWS.strip().splitlines():
        backbone, variant, *numbers = line.split()
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        cells = {c: (float(a), float(s)) for c, (a, s) in zip(COLUMNS, pairs, strict=True)}
        table[backbone, variant] = cells
    return table


def backbone(large: str, small: str) -> str | None:
    """The one of the paper's backbones that a pair of models is; None where it is neither.

    Example:
        >>> backbone("ChenShawn/DeepEyes-7B", "Qwen/Qwen3-VL-2B-Instruct")
        'deepeyes'
        >>> backbone("large", "small") is None
        True
    """
    agent, drafter = (name.rstrip("/").rsplit("/", 1)[-1].lower() for name in (large, small))
    if drafter not in (SMALL, f"{SMALL}-instruct"):
        return None
    known = {"deepeyes-7b": "deepeyes", "thyme-rl": "thyme", "thyme": "thyme"}
    return known.get(agent)


def row(name: str | None, variant: str | None) -> Cells:
    """(accuracy in percent, speed) by column; empty where the paper has no such row.

    Example:
        >>> row("deepeyes", "min")["pope/random"]
        (90.13, 2.19)
    """
    if name is None or variant is None:
        return {}
    return _parsed().get(("-" if variant == "draft" else name, variant), {})
