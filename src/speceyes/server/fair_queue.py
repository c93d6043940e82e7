"""The queue that clients share; it lives where `SpecPipeline.ask` can use it too."""

from __future__ import annotations

from speceyes.live.fair_queue import FairQueue

__all__ = ["FairQueue"]
