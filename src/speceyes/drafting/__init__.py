"""What makes a draft better before the gate sees it: looks of the small model's own, and when they
are worth their cost. `SpeculativeAnswerer` uses both.
"""

from __future__ import annotations

from speceyes.drafting.looks import Looks
from speceyes.drafting.notes import depth_of
from speceyes.drafting.rule import DepthRule

__all__ = ["DepthRule", "Looks", "depth_of"]
