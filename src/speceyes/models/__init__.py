"""Models: anything that continues conversations about images.

Each is imported when it is first asked for, so that `import speceyes.models` loads neither
torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speceyes.models.hf import HFModel
    from speceyes.models.openai import OpenAIModel
    from speceyes.models.scripted import ScriptedModel

__all__ = ["HFModel", "OpenAIModel", "ScriptedModel"]

_WHERE = {
    "HFModel": "speceyes.models.hf",
    "OpenAIModel": "speceyes.models.openai",
    "ScriptedModel": "speceyes.models.scripted",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
