"""Other ways to spare the large model, each called like `SpecPipeline`."""

from speceyes.strategies.cascade import Cascade, Drafter, drafter_of
from speceyes.strategies.reasoning_transfer import ReasoningTransfer, Transferred
from speceyes.strategies.specreason import SpecReason, Steps

__all__ = [
    "Cascade",
    "Drafter",
    "ReasoningTransfer",
    "SpecReason",
    "Steps",
    "Transferred",
    "drafter_of",
]
