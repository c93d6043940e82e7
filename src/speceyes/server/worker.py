"""The threads that own the models; the same that `SpecPipeline.ask` is answered by."""

from __future__ import annotations

from speceyes.live.worker import Worker

__all__ = ["Worker"]
