"""Models by name: a checkpoint on the Hub or in a folder, or the engine behind an address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speceyes.protocols import VisionLanguageModel


def load_model(
    name: str | Path, device: str | None, top_k: int | None = None, /, **more: Any
) -> VisionLanguageModel:
    """A model that is loaded here, or the engine behind an address.

    Args:
        name: A Hugging Face name, a directory, or an address, after whose "#" the name stands
            under which the engine serves the model.
        device: Where it is loaded; None takes a GPU if there is one.
        top_k: Log-probabilities that an engine must be able to return; None doesn't ask.
        **more: For `OpenAIModel` or `HFModel.from_pretrained`.

    Raises:
        ConfigError: It can't be loaded or reached.
    """
    if is_address(name):
        from speceyes.models.openai import OpenAIModel

        url, _, served = str(name).partition("#")
        return OpenAIModel(url, served or None, top_k=top_k, **more)
    if Path(name).is_dir():  # a download shows its progress; read when the library is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from speceyes.models.hf import HFModel

    return HFModel.from_pretrained(name, device=device, **more)


def is_address(name: str | Path) -> bool:
    """True for an engine's http(s) address."""
    return str(name).lower().startswith(("http://", "https://"))
