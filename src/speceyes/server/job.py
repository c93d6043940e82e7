"""A request on its way through the worker; the same that `SpecPipeline.ask` sends."""

from __future__ import annotations

from speceyes.live.job import UNWANTED, Job

__all__ = ["UNWANTED", "Job"]
