"""Client of OpenAI-compatible engines: vLLM, SGLang, llama.cpp's server, hosted APIs."""

from __future__ import annotations

from speceyes.models.openai.image_sizing import QwenResize, own_size
from speceyes.models.openai.model import OpenAIModel

__all__ = ["OpenAIModel", "QwenResize", "own_size"]
