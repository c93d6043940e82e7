"""Models and settings that the arms of an evaluation share, and the parts made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from speceyes.answerer import SpeculativeAnswerer
from speceyes.drafting.rule import DepthRule
from speceyes.errors import ConfigError
from speceyes.evaluation import rivals
from speceyes.evaluation.row import Item
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.protocols import VisionLanguageModel
from speceyes.scoring.scores import Aggregate
from speceyes.strategies import Cascade, Drafter, TransferRule
from speceyes.strategies.questions import Place
from speceyes.strategies.selection import Head
from speceyes.tools import Tools

if TYPE_CHECKING:
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.protocols import Dialect


@final
@dataclass(frozen=True, slots=True)
class EvalContext:
    """Models and settings that all arms of a run share.

    Args:
        large: The agent's model, which also judges.
        small: The model that drafts.
        thresholds: The gate's threshold, 0 to 1, for each aggregate behind the large judge, as
            "min/small" and "min/none" behind another or none, which lets other drafts through,
            and for "deep", "cascade-1" and "cascade-2", the gates of drafts made after a look.
        top_k: K of the gate.
        record_k: Log-probabilities a token that the draft arm records; at least `top_k`.
        batch_size: Queries drafted together, and trajectories alive at once.
        tools: What the agent may call.
        dialect: How it writes calls.
        profile: A file that says how it is driven; None for the dialect's own.
        texts: A file that says what all are told; None for our own.
        max_steps: Most turns of the agent; None for the profile's.
        max_tokens: Most new tokens of a turn; None for the profile's.
        draft_tokens: Most new tokens of a draft.
        parity: Judge as the published code does.
        bare: Send the drafter questions without an instruction below, where they bring their own.
        without_tools: Questions are for words alone: the arm "agent" is the large model's own
            written reasoning instead of an agent with tools, and nobody judges.
        heads: The small model's attention heads by which reasoning is selected; none means all.
        place: Where the large model is given that reasoning, see `ReasoningTransfer`.
        looker: A small model that has learned to call the tools, for drafts with depth and as
            the one that proposes in SpecReason; None where there is none.
        rivals: Models that answer in one pass, by the name that stands behind `one-pass=`.
        one_pass_tokens: Most new tokens of their answers, reasoning included.
        rung: Most pixels of a ladder's first drafts; None where there is no ladder.
        own: An agent of the user's own, called with a query, that answers in place of the large
            model; where the large model is the small one then, that one judges, asked plainly.
        settings: What the arm "tuned" runs under.
        labelled: Samples of the calibration split, for arms that choose on answers of their own.
        rule: The rule of "transfer-calibrated" where there are no such samples.
        credible: Where "transfer-credible" doubts reasoning, see `ReasoningTransfer`.

    Raises:
        ConfigError: record_k is below top_k.
    """

    large: VisionLanguageModel
    small: VisionLanguageModel
    thresholds: Mapping[str, float]
    top_k: int
    record_k: int
    batch_size: int = 16
    tools: tuple[str, ...] = ("zoom",)
    dialect: str | Dialect = "auto"
    profile: str | None = None
    texts: str | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    draft_tokens: int = 20
    parity: bool = False
    bare: bool = False
    without_tools: bool = False
    heads: tuple[Head, ...] = ()
    place: Place = "prompt"
    looker: VisionLanguageModel | None = None
    rivals: Mapping[str, VisionLanguageModel] = field(default_factory=dict)
    one_pass_tokens: int = 1024
    own: Callable[..., Any] | None = None
    settings: FunnelSettings | None = None
    rung: int | None = None
    labelled: Sequence[Item] = ()
    rule: TransferRule | None = None
    credible: float | None = None

    def __post_init__(self) -> None:
        if self.record_k < self.top_k:
            raise ConfigError(
                f"record_k={self.record_k} is below top_k={self.top_k}: record at least as many "
                "log-probabilities as the gate reads"
            )

    @property
    def models(self) -> dict[str, VisionLanguageModel]:
        """The models by role; one that plays both roles counts as the large one."""
        found = {
            "large": self.large,
            "small": self.small,
            "looker": self.looker,
            **{f"{rivals.PREFIX}{name}": model for name, model in self.rivals.items()},
        }
        return {
            role: model
            for at, (role, model) in enumerate(found.items())
            if model is not None and not any(model is m for m in list(found.values())[:at])
        }

    def answerer(self, top_k: int, max_pixels: int | None = None) -> SpeculativeAnswerer:
        """The drafter, keeping `top_k` log-probabilities a token, on so many pixels at most."""
        return self._drafting(self.small, top_k, max_pixels=max_pixels)

    def looking_answerer(self, top_k: int, max_pixels: int | None = None) -> SpeculativeAnswerer:
        """The drafter that may ask for a closer look, on so many pixels at most."""
        return self._drafting(self.small, top_k, may_look=True, max_pixels=max_pixels)

    def low_answerer(self, top_k: int) -> SpeculativeAnswerer:
        """The drafter on the ladder's first rung.

        Raises:
            ConfigError: There is no ladder.
        """
        if self.rung is None:
            raise ConfigError(
                "a ladder needs the size of its first drafts: give it with --rung-pixels"
            )
        return self._drafting(self.small, top_k, max_pixels=self.rung)

    @property
    def schedule(self) -> ScheduleConfig:
        """All is speculated on, over engines too, so that routes don't depend on time."""
        return ScheduleConfig(batch_size=self.batch_size, speculate="always")

    def one_pass(self) -> SpecPipeline:
        """The funnel whose drafter answers or asks for a closer look."""
        return SpecPipeline(
            answerer=self.looking_answerer(self.top_k),
            gate=self.gate("min", threshold_name("min", "draft", self.thresholds)),
            fallback=self.agent(),
            schedule=self.schedule,
        )

    def ladder(self) -> SpecPipeline:
        """Drafts on few pixels, then as ever, then the agent; nobody judges."""
        return SpecPipeline(
            answerer=self.answerer(self.top_k),
            gate=self.gate("min", threshold_name("min", "none", self.thresholds)),
            fallback=self.agent(),
            schedule=self.schedule,
            ladder=[(self.low_answerer(self.top_k), self.gate("min", "ladder"))],
        )

    def deep_answerer(self, top_k: int, rule: DepthRule | None = None) -> SpeculativeAnswerer:
        """The drafter that looks once where the rule lets it, or always.

        Raises:
            ConfigError: There is no model that looks.
        """
        if self.looker is None:
            raise ConfigError(
                "drafts with depth need a small model that calls tools: name one with --looker"
            )
        looks = {"tools": Tools(self.tools), "max_depth": 1, "dialect": self.dialect}
        return self._drafting(self.looker, top_k, rule=rule, **looks)

    def _drafting(self, model: VisionLanguageModel, top_k: int, **more: Any) -> SpeculativeAnswerer:
        more["texts"] = self.texts
        if self.bare:
            more |= {"prompt": "", "choice_prompt": ""}
        return SpeculativeAnswerer(model, top_k=top_k, max_tokens=self.draft_tokens, **more)

    def agent(self) -> AgenticFallback:
        """The agent in batches, or the user's own."""
        if self.own is not None:
            return AgenticFallback.from_callable(self.own)
        return AgenticFallback(
            self.large,
            tools=Tools(self.tools),
            dialect=self.dialect,
            profile=self.profile,
            texts=self.texts,
            max_steps=self.max_steps,
            max_tokens=self.max_tokens,
            max_batch=self.batch_size,
        )

    def judge(self, which: str, max_pixels: int | None = None, **more: Any) -> ToolJudge | None:
        """The judge by the "large" model, by the "small" one, or "none"; `more` for `ToolJudge`."""
        if which == "large" and not (self.own is not None and self.large is self.small):
            return ToolJudge(
                self.large,
                dialect=self.dialect,
                texts=self.texts,
                tools=Tools(self.tools),
                parity=self.parity,
                max_pixels=max_pixels,
                **more,
            )
        if which == "none":
            return None
        return self.answerer(self.top_k, max_pixels).judge(parity=self.parity, **more)

    def gate(self, aggregate: Aggregate, threshold: str | None = None) -> SeparabilityGate:
        """The gate of one aggregate at its threshold, or at another one's."""
        return SeparabilityGate(
            self.thresholds[threshold or aggregate], top_k=self.top_k, aggregate=aggregate
        )

    def deep_funnel(self) -> SpecPipeline:
        """The funnel whose drafter looks once where its gate would reject what it says at once."""
        gate = self.gate("min", "deep")
        return SpecPipeline(
            judge=self.judge("large"),
            answerer=self.deep_answerer(self.top_k, DepthRule(gate)),
            gate=gate,
            fallback=self.agent(),
            schedule=self.schedule,
        )

    def cascade(self) -> Cascade | SpecPipeline:
        """The small model, then one that looks, then the agent; a drafter whose threshold could
        not be certified is left out.
        """
        steps = [
            Drafter(answerer, self.gate("min", name))
            for name, answerer in (
                ("cascade-1", self.answerer(self.top_k)),
                ("cascade-2", self.deep_answerer(self.top_k)),
            )
            if name in self.thresholds
        ]
        if not steps:
            return SpecPipeline(fallback=self.agent(), schedule=self.schedule)
        return Cascade(
            steps,
            judge=self.judge("large"),
            fallback=self.agent(),
            schedule=self.schedule,
        )

    def funnel(self, aggregate: Aggregate, judge: str = "large") -> SpecPipeline:
        """The whole funnel."""
        return SpecPipeline(
            judge=self.judge(judge),
            answerer=self.answerer(self.top_k),
            gate=self.gate(aggregate, threshold_name(aggregate, judge, self.thresholds)),
            fallback=self.agent(),
            schedule=self.schedule,
        )


def threshold_name(aggregate: str, judge: str, thresholds: Mapping[str, float]) -> str:
    """Name of the threshold of an arm's gate.

    Example:
        >>> threshold_name("min", "small", {"min": 0.9, "min/small": 0.95})
        'min/small'
        >>> threshold_name("min", "large", {"min": 0.9})
        'min'
    """
    own = f"{aggregate}/{judge}"
    return own if own in thresholds else aggregate
