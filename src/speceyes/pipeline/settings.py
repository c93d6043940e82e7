"""Settings file of a funnel: all that it takes besides its weights, as JSON.

`speceyes tune` writes one; `SpecPipeline.from_settings` and `--settings` of the commands read it.
Which model it was tuned for, and at which sizes that sees images, is written down too, and held
against what is loaded: a threshold means nothing for another model, or for other pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike, fspath
from typing import Any, Final, final

from speceyes.calibration.provenance import is_whole
from speceyes.dialects import NAMES
from speceyes.dialects.profile import Profile
from speceyes.errors import ConfigError
from speceyes.files import load_whole, write_whole
from speceyes.gate import SeparabilityGate
from speceyes.models.by_name import load_model
from speceyes.pipeline import build
from speceyes.pipeline.config import (
    AgentConfig,
    DraftConfig,
    JudgeConfig,
    LoadConfig,
    ScheduleConfig,
)
from speceyes.pipeline.model_settings import (
    GateSettings,
    ModelSettings,
    arguments_of,
    is_json,
)
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.settings_reading import (
    made,
    only_fields,
    read_gate,
    read_model,
    read_section,
    value_of,
)
from speceyes.protocols import VisionLanguageModel, offers
from speceyes.texts import Texts
from speceyes.tools import BUILT_IN

FORMAT: Final = "speceyes-settings"
VERSION: Final = 1


@final
@dataclass(frozen=True, slots=True)
class FunnelSettings:
    """All that a funnel takes besides its weights.

    Args:
        large: The agent.
        small: The drafter; None for the agent alone, where speculation doesn't pay.
        gate: Of the drafts; None exactly where there is no drafter.
        judge: See `JudgeConfig`.
        draft: See `DraftConfig`; without depth.
        agent: See `AgentConfig`; its profile is an object here.
        schedule: See `ScheduleConfig`.
        tools: Names of built-in tools.
        dialect: Name of the agent's dialect, or "auto".
        texts: What models are told; None for our own words.
        forecast: What was expected of it, for people and reports.
        created: When, in ISO 8601.

    Raises:
        ConfigError: They contradict each other.
    """

    large: ModelSettings
    small: ModelSettings | None
    gate: GateSettings | None
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    draft: DraftConfig = field(default_factory=DraftConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tools: tuple[str, ...] = ("zoom",)
    dialect: str = "auto"
    texts: Texts | None = None
    forecast: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""

    def __post_init__(self) -> None:
        if (self.small is None) != (self.gate is None):
            raise ConfigError('"small" and "gate" go together: give both, or null for both')
        if self.draft.max_depth or self.draft.tools is not None:
            raise ConfigError("drafts with depth can't be written into settings")
        for name in self.tools:
            if name not in BUILT_IN:
                raise ConfigError(
                    f"tools={list(self.tools)!r}: no tool is named {name!r}; settings may name "
                    f"{', '.join(BUILT_IN)}"
                )
        if len(set(self.tools)) < len(self.tools):
            raise ConfigError(f"tools={list(self.tools)!r}; name each tool once")
        if self.dialect != "auto" and self.dialect not in NAMES:
            raise ConfigError(
                f"dialect={self.dialect!r} is not known; settings may name {', '.join(NAMES)}, "
                'or "auto"'
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the JSON, whole or not at all."""
        write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> FunnelSettings:
        """The settings in a file.

        Raises:
            ConfigError: The file can't be read, or `from_json` can't read what is in it.
        """
        return load_whole(path, cls.from_json, kind="settings")

    def to_json(self) -> str:
        """The settings as JSON, indented for people."""
        gate = None
        if self.gate is not None:
            made = self.gate.calibration
            gate = {
                "threshold": self.gate.threshold,
                "top_k": self.gate.top_k,
                "aggregate": self.gate.aggregate,
                "span": self.gate.span,
                "calibration": None if made is None else json.loads(made.to_json()),
            }
        profile = self.agent.profile
        if profile is not None and not isinstance(profile, Profile):
            profile = Profile.load(profile)
        data = {
            "format": FORMAT,
            "version": VERSION,
            "large": _model_dict(self.large),
            "small": None if self.small is None else _model_dict(self.small),
            "judge": _own(self.judge),
            "draft": {name: getattr(self.draft, name) for name in ("max_tokens", "max_pixels")}
            | ({"ladder": [_own(rung) for rung in self.draft.rungs]} if self.draft.rungs else {}),
            "gate": gate,
            "agent": {
                **{name: getattr(self.agent, name) for name in _AGENT},
                "profile": None if profile is None else dataclasses.asdict(profile),
            },
            "schedule": _own(self.schedule),
            "tools": list(self.tools),
            "dialect": self.dialect,
            "texts": None if self.texts is None else dict(self.texts.items()),
            "forecast": dict(self.forecast),
            "created": self.created,
        }
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> FunnelSettings:
        """The settings that `to_json` wrote.

        Raises:
            ConfigError: It is no such JSON, of another version, or has a wrong value in it.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"it can't be read as JSON: {exc}") from None
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ConfigError(f'no settings of a funnel: "format": "{FORMAT}" is missing')
        version = data.pop("version", None)
        if not is_whole(version) or version != VERSION:
            raise ConfigError(f"version {version!r} can't be read; this is for {VERSION}")
        names = [one.name for one in dataclasses.fields(cls)]
        only_fields("the settings", data, names)
        if missing := [name for name in ("large", "small", "gate") if name not in data]:
            raise ConfigError(f"{', '.join(missing)} is missing")
        found: dict[str, Any] = {
            "large": read_model("large", data["large"]),
            "small": None if data["small"] is None else read_model("small", data["small"]),
            "gate": None if data["gate"] is None else read_gate(data["gate"]),
        }
        for name, kind in _SECTIONS.items():
            if name in data:
                found[name] = read_section(name, data[name], kind)
        if "tools" in data:
            tools = data["tools"]
            if not isinstance(tools, list) or not all(isinstance(one, str) for one in tools):
                raise ConfigError(f"tools={tools!r}; a list of names")
            found["tools"] = tuple(tools)
        for name in ("dialect", "created"):
            if name in data:
                found[name] = value_of(name, data[name], str)
        if data.get("texts") is not None:
            found["texts"] = made("texts", Texts, data["texts"])
        if "forecast" in data:
            found["forecast"] = value_of("forecast", data["forecast"], dict)
            if not is_json(found["forecast"]):
                raise ConfigError("forecast holds a number that isn't finite")
        if found.get("created"):
            try:
                datetime.fromisoformat(found["created"])
            except ValueError as exc:
                raise ConfigError(f"created={found['created']!r} is no ISO 8601 date") from exc
        return cls(**found)

    def parts(
        self,
        large: str | PathLike[str] | VisionLanguageModel | None = None,
        small: str | PathLike[str] | VisionLanguageModel | None = None,
        *,
        load: LoadConfig = LoadConfig(),
    ) -> Parts:
        """Judge, answerer, gate and fallback.

        Args:
            large: The agent, where it isn't to be loaded from where it was before.
            small: The drafter, likewise.
            load: Device, and arguments that stand before those that were written down.

        Raises:
            ConfigError: A model can't be loaded, or isn't the one that was tuned.
            CalibrationError: The gate is calibrated for other drafts.
        """
        agent = self._loaded("large", self.large, large, load)
        drafter = None
        if self.small is not None:
            same = small is large if small is not None else self.small == self.large
            drafter = agent if same else self._loaded("small", self.small, small, load)
        gate = SeparabilityGate() if self.gate is None else self.gate.scored(calibrated=False)
        made = build.parts_of(
            agent,
            drafter,
            tools=self.tools,
            dialect=self.dialect,
            texts=self.texts,
            gate=gate,
            judge=self.judge,
            draft=self.draft,
            agent=self.agent,
            load=load,
        )
        if self.gate is None or drafter is None:
            return made
        if self.gate.calibration is not None:
            made.check_gate(self.gate.scored(calibrated=True))
        ladder = tuple(
            (answerer, dataclasses.replace(self.gate, threshold=gate.threshold, calibration=None))
            for answerer, gate in made.ladder
            if isinstance(gate, SeparabilityGate)
        )
        return dataclasses.replace(
            made,
            gate=self.gate.gate(drafter),
            ladder=tuple((answerer, gate.gate(drafter)) for answerer, gate in ladder),
        )

    def _loaded(
        self,
        role: str,
        told: ModelSettings,
        given: str | PathLike[str] | VisionLanguageModel | None,
        load: LoadConfig,
    ) -> VisionLanguageModel:
        """A model of these settings, checked.

        Raises:
            ConfigError: It can't be loaded, or isn't the one that was tuned.
        """
        if offers(given, VisionLanguageModel):
            model: VisionLanguageModel = given
        else:
            source = told.source if given is None else fspath(given)
            top_k = self.gate.top_k if role == "small" and self.gate is not None else None
            model = load_model(source, load.device, top_k, **arguments_of(source, told, load))
        if wrong := told.wrong_with(model):
            raise ConfigError(
                f"the {role} model isn't the one that was tuned: {'; '.join(wrong)}. Tune it anew, "
                "or name the model that these settings are for"
            )
        return model


_AGENT: Final = ("max_steps", "max_tokens", "max_batch")


def _own(value: Any) -> dict[str, Any]:
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}


def _model_dict(one: ModelSettings) -> dict[str, Any]:
    return {**_own(one), "sees": [list(size) for size in one.sees], "load": dict(one.load)}


_SECTIONS: Final[Mapping[str, type[Any]]] = {
    "judge": JudgeConfig,
    "draft": DraftConfig,
    "agent": AgentConfig,
    "schedule": ScheduleConfig,
}
