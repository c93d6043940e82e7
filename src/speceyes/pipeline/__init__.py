"""The funnel: what a query goes through, and how many of them share the work.

`route` alone knows the order of the phases, and `Scheduler` alone carries requests through them;
see docs/pipeline.md.
"""

from speceyes.pipeline.config import (
    AgentConfig,
    DraftConfig,
    InputConfig,
    JudgeConfig,
    LoadConfig,
    Rung,
    ScheduleConfig,
)
from speceyes.pipeline.spec_pipeline import SpecPipeline

__all__ = [
    "AgentConfig",
    "DraftConfig",
    "InputConfig",
    "JudgeConfig",
    "LoadConfig",
    "Rung",
    "ScheduleConfig",
    "SpecPipeline",
]
