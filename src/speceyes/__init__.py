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
    "Calibration": "calibration",
    "CalibrationError": "errors",
    "Completion": "types",
    "ConfigError": "errors",
    "Conversation": "types",
    "DepthRule": "drafting",
    "Dialect": "protocols",
    "GateMonitor": "calibration",
    "HFModel": "models.hf",
    "OpenAIModel": "models.openai",
    "ImageError": "errors",
    "ImageLimits": "images",
    "ImageRef": "types",
    "InputError": "errors",
    "Judgement": "types",
    "LogObserver": "pipeline.events",
    "Message": "types",
    "ModelError": "errors",
    "Observation": "types",
    "ParseError": "errors",
    "Query": "types",
    "Result": "types",
    "Sampling": "types",
    "Scoring": "calibration",
    "ScriptedModel": "models.scripted",
    "SeparabilityGate": "gate",
    "SpecEyesError": "errors",
    "SpecPipeline": "pipeline",
    "SpeculativeAnswerer": "answerer",
    "Step": "types",
    "Timings": "types",
    "Tool": "protocols",
    "ToolCall": "types",
    "ToolError": "errors",
    "ToolJudge": "judge",
    "Tools": "tools",
    "Trajectory": "types",
    "Turn": "types",
    "Verdict": "types",
    "VisionLanguageModel": "protocols",
    "Zoom": "tools.zoom",
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
    "Calibration",
    "CalibrationError",
    "Completion",
    "ConfigError",
    "Conversation",
    "DepthRule",
    "Dialect",
    "DraftConfig",
    "GateMonitor",
    "HFModel",
    "ImageError",
    "ImageLimits",
    "ImageRef",
    "InputConfig",
    "InputError",
    "JudgeConfig",
    "Judgement",
    "LoadConfig",
    "LogObserver",
    "Message",
    "ModelError",
    "Observation",
    "OpenAIModel",
    "ParseError",
    "Query",
    "Result",
    "Sampling",
    "ScheduleConfig",
    "Scoring",
    "ScriptedModel",
    "SeparabilityGate",
    "SpecEyesError",
    "SpecPipeline",
    "SpeculativeAnswerer",
    "Step",
    "Timings",
    "Tool",
    "ToolCall",
    "ToolError",
    "ToolJudge",
    "Tools",
    "Trajectory",
    "Turn",
    "Verdict",
    "VisionLanguageModel",
    "Zoom",
    "__version__",
    "calibrate",
    "load_image",
    "tool",
]

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.calibration import Calibration, GateMonitor, Scoring, calibrate
    from speceyes.drafting import DepthRule
    from speceyes.errors import (
        CalibrationError,
        ConfigError,
        ImageError,
        InputError,
        ModelError,
        ParseError,
        SpecEyesError,
        ToolError,
    )
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.images import ImageLimits, load_image
    from speceyes.judge import ToolJudge
    from speceyes.models.hf import HFModel
    from speceyes.models.openai import OpenAIModel
    from speceyes.models.scripted import ScriptedModel
    from speceyes.pipeline import (
        AgentConfig,
        DraftConfig,
        InputConfig,
        JudgeConfig,
        LoadConfig,
        ScheduleConfig,
        SpecPipeline,
    )
    from speceyes.pipeline.events import LogObserver
    from speceyes.protocols import Dialect, Tool, VisionLanguageModel
    from speceyes.tools import Tools, tool
    from speceyes.tools.zoom import Zoom
    from speceyes.types import (
        Completion,
        Conversation,
        ImageRef,
        Judgement,
        Message,
        Observation,
        Query,
        Result,
        Sampling,
        Step,
        Timings,
        ToolCall,
        Trajectory,
        Turn,
        Verdict,
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
