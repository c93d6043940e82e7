"""Memory that was freed, handed back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def give_back_memory() -> None:
    """Has glibc return what is free; it keeps it otherwise. Nothing elsewhere."""
    if sys.platform == "linux":
        trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
