"""The parts of a pipeline, made from two models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speceyes.errors import ConfigError
from speceyes.pipeline.config import AgentConfig, DraftConfig, JudgeConfig, LoadConfig, Rung
from speceyes.pipeline.parts import Parts
from speceyes.protocols import Dialect, Judge, Tool, VisionLanguageModel, offers
from speceyes.types import Query

_log = logging.getLogger(__name__)
_BUNDLED = Path(__file__).resolve().parents[1] / "tiny" / "weights"

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.gate import SeparabilityGate
    from speceyes.texts import Texts
    from speceyes.tools import Tools


def agent_of(given: object, large: object) -> Callable[[Query], Any]:
    """The function that is given as the agent.

    Raises:
        ConfigError: It is none, or a large model is named too.
    """
    if not callable(given) or isinstance(given, type) or offers(given, VisionLanguageModel):
        raise ConfigError(
            f"agent={given!r:.60} is neither an AgentConfig nor a function of a Query: pass a "
            "model as large=, and an agent of your own as agent="
        )
    if large is not None:
        raise ConfigError(
            "large= and a function as agent= are two agents: pass one of them, and judge with "
            'judge="small" or None'
        )
    return given


def parts_of(
    large: str | PathLike[str] | VisionLanguageModel | Callable[[Query], Any] | None,
    small: str | PathLike[str] | VisionLanguageModel | None,
    *,
    tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str],
    dialect: str | Dialect,
    texts: Texts | str | PathLike[str] | None,
    gate: SeparabilityGate | float,
    judge: JudgeConfig,
    draft: DraftConfig,
    agent: AgentConfig,
    load: LoadConfig,
) -> Parts:
    """Judge, answerer, gate and fallback; arguments as of `SpecPipeline.from_pretrained`.

    Raises:
        ConfigError: Parts that can't work together, or a model that can't be loaded.
    """
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.dialects import dialect as dialect_named
    from speceyes.drafting.rule import DepthRule
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.judge import ToolJudge
    from speceyes.tools import Tools

    if not isinstance(gate, SeparabilityGate):
        gate = SeparabilityGate(gate)
    if judge.model == "large" and small is not None:
        if large is None:
            raise ConfigError(
                'there is no large model to judge: pass judge="small", "draft" or None'
            )
        if callable(large) and not offers(large, VisionLanguageModel):
            raise ConfigError(
                'the agent is a function, which judges nothing: pass judge="small", "draft" or None'
            )
    known = tools if isinstance(tools, Tools) else Tools(tools)
    strong = None
    if large is not None and (offers(large, VisionLanguageModel) or not callable(large)):
        strong = _model(large, load)
    same = (strong is not None and large is small) or (isinstance(large, str) and large == small)
    quick = strong if same else None if small is None else _model(small, load)
    if _bundled(large) or _bundled(small):
        _log.warning(
            "the bundled models know only their own synthetic scenes (speceyes.tiny.scenes): of "
            "any other picture their answers mean nothing. Name other models for pictures of "
            "your own"
        )
    spoken = dialect
    if strong is not None:
        names = (tool.name for tool in known)
        spoken = dialect_named(dialect, strong, tools=names, profile=agent.profile, texts=texts)
    judged: Judge | None = None
    if quick is not None and judge.model == "large" and strong is not None:
        judged = ToolJudge(
            strong,
            threshold=judge.threshold,
            dialect=spoken,
            tools=known,
            texts=texts,
            max_pixels=judge.max_pixels,
        )
    answerer = fallback = None
    ladder: tuple[tuple[SpeculativeAnswerer, SeparabilityGate], ...] = ()
    if quick is not None:
        answerer = SpeculativeAnswerer(
            quick,
            top_k=gate.top_k,
            max_tokens=draft.max_tokens,
            tools=known if draft.tools is None else draft.tools,
            max_depth=draft.max_depth,
            rule=DepthRule(gate) if draft.max_depth else None,
            dialect=dialect,
            texts=texts,
            max_pixels=draft.max_pixels,
            may_look=judge.model == "draft",
        )
        ladder = tuple(_rung(answerer, gate, rung) for rung in draft.rungs)
        if judge.model == "small":
            judged = answerer.judge(threshold=judge.threshold, max_pixels=judge.max_pixels)
    if strong is not None:
        fallback = AgenticFallback(
            strong,
            tools=known,
            dialect=spoken,
            max_steps=agent.max_steps,
            max_tokens=agent.max_tokens,
            max_batch=agent.max_batch,
        )
    elif callable(large):
        fallback = AgenticFallback.from_callable(large)
    return Parts(judged, answerer, None if quick is None else gate, fallback, ladder=ladder)


def _rung(
    answerer: SpeculativeAnswerer, gate: SeparabilityGate, rung: Rung
) -> tuple[SpeculativeAnswerer, SeparabilityGate]:
    """Answerer and gate of a rung.

    Raises:
        ConfigError: The gate is calibrated, and the rung has no threshold of its own.
    """
    if rung.threshold is None and gate.calibration is not None:
        raise ConfigError(
            f"the gate is calibrated for other drafts than those on {rung.max_pixels} pixels: "
            "give the rung a threshold of its own, Rung(max_pixels, threshold)"
        )
    threshold = gate.threshold if rung.threshold is None else rung.threshold
    return answerer.on(rung.max_pixels), replace(gate, threshold=threshold, calibration=None)


def _bundled(model: object) -> bool:
    """True for the folder of a model that comes with the library."""
    return isinstance(model, str | PathLike) and Path(model).parent == _BUNDLED


def _model(
    model: str | PathLike[str] | VisionLanguageModel, load: LoadConfig
) -> VisionLanguageModel:
    """A model object as it is; a name or path loaded by Hugging Face."""
    if offers(model, VisionLanguageModel):
        return model
    given: object = model
    if not isinstance(given, str | PathLike):
        missing = [n for n in ("name", "generate", "seen_size") if not hasattr(given, n)]
        raise ConfigError(
            f"a {type(given).__name__} is no model (it has no {', '.join(missing)}): pass a Hub "
            "id, a folder, or a model object such as speceyes.models.HFModel or OpenAIModel"
        )
    from speceyes.models.hf import HFModel

    return HFModel.from_pretrained(
        model,
        device=load.device,
        dtype=load.dtype,
        min_pixels=load.min_pixels,
        max_pixels=load.max_pixels,
        **load.model_kwargs,
    )
