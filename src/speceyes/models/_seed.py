"""Seeds of rows, so that a row's draws don't depend on how a batch is cut."""

from __future__ import annotations

import numpy as np


def row_seed(seed: int | None, index: int) -> int | None:
    """A row's own seed: (1, 0) and (0, 1) are different streams."""
    if seed is None:
        return None
    mixed = np.random.SeedSequence([seed % (1 << 64), index])
    return int(mixed.generate_state(1, np.uint64)[0] >> np.uint64(1))
