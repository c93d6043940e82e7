"""Local weights: any Hugging Face `AutoModelForImageTextToText` and its processor."""

from speceyes.models.hf.model import HFModel

__all__ = ["HFModel"]
