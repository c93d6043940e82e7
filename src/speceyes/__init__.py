"""speceyes: questions about images, answered by a small model where that is safe.

A large tool-using agent answers well and slowly. Here a judge asks whether a query needs tools,
a small model drafts an answer to those that don't, and a gate accepts a draft only where every
token of it was clear; the rest goes to the agent (SpecEyes, arXiv 2603.23483).

The names below are imported when they are first used, so `import speceyes` loads neither torch
nor transformers.

Example:
    >>> import speceyes
    >>> gate = speceyes.SeparabilityGate(0.98)
    >>> gate.threshold
    0.98
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "AgenticFallback": "fallback",
    "GateMonitor": "calibration",
    "HFModel": "models.hf",
    "OpenAIModel": "models.openai",
    "Query": "types",
    "Result": "types",
    "SeparabilityGate": "gate",
    "SpecEyesError": "errors",
    "SpecPipeline": "pipeline",
    "SpeculativeAnswerer": "answerer",
    "ToolJudge": "judge",
    "Tools": "tools",
    "AgentConfig": "pipeline",
    "DraftConfig": "pipeline",
    "InputConfig": "pipeline",
    "JudgeConfig": "pipeline",
    "LoadConfig": "pipeline",
    "ScheduleConfig": "pipeline",
    "calibrate": "calibration",
    "load_image": "images",
    "tool": "tools",
}
"""Public name to the module that it lives in."""

__all__ = [
    "AgentConfig",
    "AgenticFallback",
    "DraftConfig",
    "GateMonitor",
    "HFModel",
    "InputConfig",
    "JudgeConfig",
    "LoadConfig",
    "OpenAIModel",
    "Query",
    "Result",
    "ScheduleConfig",
    "SeparabilityGate",
    "SpecEyesError",
    "SpecPipeline",
    "SpeculativeAnswerer",
    "ToolJudge",
    "Tools",
    "__version__",
    "calibrate",
    "load_image",
    "tool",
]

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.calibration import GateMonitor, calibrate
    from speceyes.errors import (
        SpecEyesError,
    )
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.images import load_image
    from speceyes.judge import ToolJudge
    from speceyes.models.hf import HFModel
    from speceyes.models.openai import OpenAIModel
    from speceyes.pipeline import (
        AgentConfig,
        DraftConfig,
        InputConfig,
        JudgeConfig,
        LoadConfig,
        ScheduleConfig,
        SpecPipeline,
    )
    from speceyes.tools import Tools, tool
    from speceyes.types import (
        Query,
        Result,
    )


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next use costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
