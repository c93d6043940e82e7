"""Options of a pipeline written flat, as tests that vary one of them like them."""

from __future__ import annotations

from typing import Any

from speceyes.gate import SeparabilityGate
from speceyes.pipeline import AgentConfig, InputConfig, ScheduleConfig

_OVERLAP = {"auto": None, "batched": False, "overlapped": True}
_AGENT = {"max_steps", "max_tokens", "max_batch"}
_GATE = {"threshold", "top_k", "aggregate"}
_SCHEDULE = {"batch_size", "order", "overlap", "end_drafts_early", "speculate"}
_INPUTS = {"limits", "allow_urls"}


def grouped(**flat: Any) -> dict[str, Any]:
    """Arguments of `SpecPipeline` and its `from_pretrained`: flat ones put into their objects."""
    if isinstance(flat.get("schedule"), str):
        flat["overlap"] = _OVERLAP[flat.pop("schedule")]
    made: dict[str, Any] = {}
    groups: list[tuple[str, Any, set[str]]] = [
        ("schedule", ScheduleConfig, _SCHEDULE),
        ("agent", AgentConfig, _AGENT),
        ("gate", SeparabilityGate, _GATE),
        ("inputs", InputConfig, _INPUTS),
    ]
    for name, config, keys in groups:
        mine = {key: flat.pop(key) for key in list(flat) if key in keys}
        if mine:
            made[name] = config(**mine)
    return {**flat, **made}
