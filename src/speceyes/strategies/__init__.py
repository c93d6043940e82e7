"""Other ways to spare the large model, each called like `SpecPipeline`."""

from speceyes.strategies.reasoning_transfer import ReasoningTransfer, Transferred
from speceyes.strategies.specreason import SpecReason, Steps

__all__ = ["ReasoningTransfer", "SpecReason", "Steps", "Transferred"]
