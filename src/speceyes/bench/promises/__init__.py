"""Experiments on every promise of docs/guarantee.md: what naive use gives, and what is kept."""

from __future__ import annotations

from speceyes.bench.promises.experiment import Experiment

__all__ = ["Experiment"]
