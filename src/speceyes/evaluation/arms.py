"""The arms of an evaluation by name, and what they are built from.

An arm takes queries as it has room for them and yields results as they finish. Adding one is a
call of `register`; it then runs beside the others, on the same models and the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, TypeAlias, final

from speceyes.answerer import SpeculativeAnswerer
from speceyes.errors import ConfigError
from speceyes.evaluation.demo import Stream, agent_arm, draft_arm
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.pipeline import SpecPipeline
from speceyes.scores import AGGREGATES, Aggregate
from speceyes.strategies import ReasoningTransfer, SpecReason
from speceyes.tools import Tools
from speceyes.values import VisionLanguageModel

if TYPE_CHECKING:
    from speceyes.values import Dialect

BASELINE: Final = "agent"
"""What every arm is held against: the agent alone, in batches as large as the funnel's."""
DRAFT: Final = "draft"
"""The arm whose drafts are recorded with all their log-probabilities, for sweeps."""
FUNNEL: Final = "min"
"""The arm that sweeps are about."""


@final
@dataclass(frozen=True, slots=True)
class Ground:
    """What all arms of a run share.

    Args:
        large: The agent's model, which also judges.
        small: The model that drafts.
        thresholds: The gate's threshold, 0 to 1, for each aggregate.
        top_k: K of the gate.
        record_k: Log-probabilities a token that the draft arm records; at least `top_k`.
        batch_size: Queries drafted together, and trajectories alive at once.
        tools: What the agent may call.
        dialect: How it writes calls.
        max_steps: Most turns of the agent.
        max_tokens: Most new tokens of a turn.
        draft_tokens: Most new tokens of a draft.
        parity: Judge as the published code does.
        bare: Send the drafter questions without an instruction below, where they bring their own.

    Raises:
        ConfigError: record_k is below top_k.
    """

    large: VisionLanguageModel
    small: VisionLanguageModel
    thresholds: Mapping[Aggregate, float]
    top_k: int
    record_k: int
    batch_size: int = 16
    tools: tuple[str, ...] = ("zoom",)
    dialect: str | Dialect = "deepeyes"
    max_steps: int = 6
    max_tokens: int = 512
    draft_tokens: int = 20
    parity: bool = False
    bare: bool = False

    def __post_init__(self) -> None:
        if self.record_k < self.top_k:
            raise ConfigError(
                f"record_k={self.record_k} is below top_k={self.top_k}: record at least as many "
                "log-probabilities as the gate reads"
            )

    @property
    def models(self) -> dict[str, VisionLanguageModel]:
        """The models by role; one that plays both roles counts as the large one."""
        both = {"large": self.large, "small": self.small}
        return both if self.small is not self.large else {"large": self.large}

    def answerer(self, top_k: int) -> SpeculativeAnswerer:
        """The drafter, keeping `top_k` log-probabilities a token."""
        if self.bare:
            return SpeculativeAnswerer(
                self.small,
                top_k=top_k,
                max_tokens=self.draft_tokens,
                prompt="",
                choice_prompt="",
            )
        return SpeculativeAnswerer(self.small, top_k=top_k, max_tokens=self.draft_tokens)

    def agent(self) -> AgenticFallback:
        """The agent in batches."""
        return AgenticFallback(
            self.large,
            tools=Tools(self.tools),
            dialect=self.dialect,
            max_steps=self.max_steps,
            max_tokens=self.max_tokens,
            max_batch=self.batch_size,
        )

    def judge(self, which: str) -> ToolJudge | None:
        """The judge by the "large" model, by the "small" one, or "none"."""
        if which == "large":
            return ToolJudge(
                self.large, dialect=self.dialect, tools=Tools(self.tools), parity=self.parity
            )
        if which == "small":  # not trained as the agent, so asked without the agent's system text
            return ToolJudge(self.small, dialect=None, parity=self.parity)
        return None

    def gate(self, aggregate: Aggregate) -> SeparabilityGate:
        """The gate of one aggregate at its threshold."""
        return SeparabilityGate(self.thresholds[aggregate], top_k=self.top_k, aggregate=aggregate)

    def funnel(self, aggregate: Aggregate, judge: str = "large") -> SpecPipeline:
        """The whole funnel; it speculates always, so that routes don't depend on time."""
        return SpecPipeline(
            judge=self.judge(judge),
            answerer=self.answerer(self.top_k),
            gate=self.gate(aggregate),
            fallback=self.agent(),
            batch_size=self.batch_size,
        )


Build: TypeAlias = Callable[[Ground], Stream]


@final
@dataclass(frozen=True, slots=True)
class Arm:
    """An arm that can be asked for by name.

    Args:
        name: In `--arms` and in records.
        title: In tables.
        build: Makes it; called once a phase of the run.
        variant: What the paper's Table 1 calls it; None where it has no row there.
        judge: Which model judges in it, for sweeps; "" where it has no judge and no gate.
        aggregate: Its gate's; None where it has no gate.
    """

    name: str
    title: str
    build: Build
    variant: str | None = None
    judge: str = ""
    aggregate: Aggregate | None = None


def _specreason(ground: Ground) -> SpecReason:
    return SpecReason(
        ground.large,
        ground.small,
        tools=Tools(ground.tools),
        dialect=ground.dialect,
        parity=ground.parity,
        max_steps=ground.max_steps,
        max_tokens=ground.max_tokens,
        max_batch=ground.batch_size,
    )


def _transfer(ground: Ground) -> ReasoningTransfer:
    return ReasoningTransfer(ground.large, ground.small, batch_size=ground.batch_size)


def _funnel(name: str, title: str, aggregate: Aggregate, judge: str, variant: str | None) -> Arm:
    return Arm(
        name,
        title,
        lambda ground: ground.funnel(aggregate, judge).stream,
        variant,
        judge,
        aggregate,
    )


_ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(BASELINE, "agent alone", lambda ground: agent_arm(ground.agent()), "agent"),
        Arm(
            DRAFT,
            "draft alone",
            lambda ground: draft_arm(ground.answerer(ground.record_k), ground.batch_size),
            "draft",
        ),
        *(_funnel(a, f"funnel, {a}", a, "large", a) for a in reversed(AGGREGATES)),
        _funnel("min-small-judge", "funnel, min, small judge", "min", "small", None),
        _funnel("min-no-judge", "funnel, min, no judge", "min", "none", None),
        Arm("specreason", "SpecReason", lambda ground: _specreason(ground).stream, "specreason"),
        Arm("transfer", "reasoning transfer", lambda ground: _transfer(ground).stream),
    )
}


def register(arm: Arm) -> None:
    """Makes an arm known by its name, which must be free.

    Raises:
        ConfigError: The name is taken.
    """
    if arm.name in _ARMS:
        raise ConfigError(f"arm {arm.name!r} is there already; choose another name")
    _ARMS[arm.name] = arm


def names() -> tuple[str, ...]:
    """All arms that can be asked for.

    Example:
        >>> names()[:2]
        ('agent', 'draft')
    """
    return tuple(_ARMS)


def arm(name: str) -> Arm:
    """The arm of that name.

    Raises:
        ConfigError: There is none.
    """
    try:
        return _ARMS[name]
    except KeyError:
        near = get_close_matches(name, _ARMS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"there is no arm {name!r}{hint}; there are {', '.join(_ARMS)}") from None


def chosen(asked: Sequence[str]) -> tuple[str, ...]:
    """The arms asked for, each once; the agent and the draft arm always come first, for all
    others are held against the first, and sweeps read the drafts of the second.

    Raises:
        ConfigError: There is no such arm.

    Example:
        >>> chosen(["min", "draft"])
        ('agent', 'draft', 'min')
    """
    for name in asked:
        arm(name)
    return tuple(dict.fromkeys((BASELINE, DRAFT, *asked)))
