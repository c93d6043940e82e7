"""Drafts with depth: looks of the small model's own before the gate, and when they are worth it.

`SpeculativeAnswerer` uses both. Experimental: on the bundled models depth saves no time
(docs/depth.md).
"""

from __future__ import annotations

from speceyes.drafting.looks import Looks
from speceyes.drafting.rule import DepthRule, depth_of

__all__ = ["DepthRule", "Looks", "depth_of"]
