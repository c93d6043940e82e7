"""Other ways to spare the large model, each called like `SpecPipeline`."""

from speceyes.strategies.specreason import SpecReason, Steps

__all__ = ["SpecReason", "Steps"]
