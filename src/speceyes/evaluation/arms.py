"""The arms of an evaluation by name, and what they are built from.

An arm takes queries as it has room for them and yields results as they finish. Adding one is a
call of `register`; it then runs beside the others, on the same models and the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final, get_args

from speceyes.answerer import SpeculativeAnswerer
from speceyes.drafting.rule import DepthRule
from speceyes.errors import ConfigError
from speceyes.evaluation import rivals
from speceyes.evaluation.alone import agent_arm, draft_arm
from speceyes.evaluation.turn import Stream
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.pipeline.reference import as_published, reading_anew
from speceyes.protocols import VisionLanguageModel
from speceyes.scoring.scores import AGGREGATES, Aggregate
from speceyes.strategies import (
    Cascade,
    Drafter,
    Reasoner,
    ReasoningTransfer,
    Selector,
    SpecReason,
)
from speceyes.strategies.selection import By, Head
from speceyes.tools import Tools

if TYPE_CHECKING:
    from speceyes.protocols import Dialect

BASELINE: Final = "agent"
"""The arm that all are held against: the agent alone, in batches as large as the funnel's."""
DRAFT: Final = "draft"
"""The arm whose drafts are recorded with all their log-probabilities, for sweeps."""
DEEP: Final = "draft-deep"
"""The arm whose drafts, made after a look, the thresholds of "deep" and "cascade" come from."""
FUNNEL: Final = "min"
"""The arm that sweeps are about."""
AGENT_ONE: Final = "agent-one"
"""The agent, one query at a time."""
FUNNEL_ONE: Final = "min-one"
"""The funnel of `FUNNEL`, one query at a time."""
AGENT_PAPER: Final = "agent-paper"
"""The agent as the paper's code runs it: one query at a time, everything read anew."""
FUNNEL_PAPER: Final = "min-paper"
"""The funnel of `FUNNEL` in the paper's schedule: drafts in batches, then the agent as above."""
NO_TOOLS: Final = "agent-no-tools"
"""The agent in batches with its tools switched off."""


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
        looker: A small model that has learned to call the tools, for drafts with depth and as
            the one that proposes in SpecReason; None where there is none.
        rivals: Models that answer in one pass, by the name that stands behind `one-pass=`.
        one_pass_tokens: Most new tokens of their answers, reasoning included.
        own: An agent of the user's own, called with a query, that answers in place of the large
            model; where the large model is the small one then, that one judges, asked plainly.

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
    looker: VisionLanguageModel | None = None
    rivals: Mapping[str, VisionLanguageModel] = field(default_factory=dict)
    one_pass_tokens: int = 1024
    own: Callable[..., Any] | None = None

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

    def answerer(self, top_k: int) -> SpeculativeAnswerer:
        """The drafter, keeping `top_k` log-probabilities a token."""
        return self._drafting(self.small, top_k)

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

    def judge(self, which: str) -> ToolJudge | None:
        """The judge by the "large" model, by the "small" one, or "none"."""
        if which == "large" and not (self.own is not None and self.large is self.small):
            return ToolJudge(
                self.large,
                dialect=self.dialect,
                texts=self.texts,
                tools=Tools(self.tools),
                parity=self.parity,
            )
        if which != "none":  # not trained as the agent, so asked without the agent's system text
            return ToolJudge(self.small, dialect=None, texts=self.texts, parity=self.parity)
        return None

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
            schedule=ScheduleConfig(batch_size=self.batch_size),
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
            return SpecPipeline(
                fallback=self.agent(), schedule=ScheduleConfig(batch_size=self.batch_size)
            )
        return Cascade(
            steps,
            judge=self.judge("large"),
            fallback=self.agent(),
            schedule=ScheduleConfig(batch_size=self.batch_size),
        )

    def funnel(self, aggregate: Aggregate, judge: str = "large") -> SpecPipeline:
        """The whole funnel; it speculates always, so that routes don't depend on time."""
        return SpecPipeline(
            judge=self.judge(judge),
            answerer=self.answerer(self.top_k),
            gate=self.gate(aggregate, threshold_name(aggregate, judge, self.thresholds)),
            fallback=self.agent(),
            schedule=ScheduleConfig(batch_size=self.batch_size),
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


Build: TypeAlias = Callable[[EvalContext], Stream]


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
        aggregate: Its gate's; None where it has no gate, or one of its own.
        drafts: Whether its drafts are recorded with all their log-probabilities.
        needs: Arms that record drafts, which its thresholds are chosen from.
        words: Whether it works in words alone, so that it can run without tools.
        base: The arm that its speed is held against; it is run as well.
    """

    name: str
    title: str
    build: Build
    variant: str | None = None
    judge: str = ""
    aggregate: Aggregate | None = None
    drafts: bool = False
    needs: tuple[str, ...] = ()
    words: bool = False
    base: str = BASELINE


def _specreason(context: EvalContext) -> SpecReason:
    return SpecReason(
        context.large,
        context.looker or context.small,
        tools=Tools(context.tools),
        dialect=context.agent().dialect or context.dialect,
        parity=context.parity,
        max_steps=context.max_steps,
        max_tokens=context.max_tokens,
        max_batch=context.batch_size,
    )


def _transfer(context: EvalContext, **more: Any) -> Stream:
    return ReasoningTransfer(
        context.large, context.small, batch_size=context.batch_size, **more
    ).stream


def _sure(context: EvalContext) -> Stream:
    """Both models' gates are the funnel's."""
    gate = context.gate(FUNNEL)
    return _transfer(context, verify="separability", gates=(gate, gate))


def _selected(by: By, percent: int) -> Arm:
    """Transfer of a share of the reasoning's tokens."""
    return Arm(
        f"transfer-{by}-{percent}",
        f"transfer, {percent} % {by}",
        lambda context: _transfer(
            context,
            keep=Selector(by, percent / 100, heads=context.heads if by == "attended" else ()),
        ),
        words=True,
    )


def _alone(context: EvalContext, role: str, *, reason: bool) -> Stream:
    model = context.large if role == "large" else context.small
    return Reasoner(model, reason=reason, batch_size=context.batch_size).stream


def _agent(context: EvalContext) -> Stream:
    if context.without_tools:
        return _alone(context, "large", reason=True)
    return agent_arm(context.agent())


def _funnel(name: str, title: str, aggregate: Aggregate, judge: str, variant: str | None) -> Arm:
    return Arm(
        name,
        title,
        lambda context: context.funnel(aggregate, judge).stream,
        variant,
        judge,
        aggregate,
    )


_ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(BASELINE, "agent alone", _agent, "agent"),
        Arm(
            DRAFT,
            "draft alone",
            lambda context: draft_arm(context.answerer(context.record_k), context.batch_size),
            "draft",
            drafts=True,
        ),
        *(_funnel(a, f"funnel, {a}", a, "large", a) for a in reversed(AGGREGATES)),
        _funnel("min-small-judge", "funnel, min, small judge", "min", "small", None),
        _funnel("min-no-judge", "funnel, min, no judge", "min", "none", None),
        Arm(
            AGENT_ONE,
            "agent, one by one",
            lambda context: agent_arm(replace(context, batch_size=1).agent()),
        ),
        Arm(
            FUNNEL_ONE,
            "funnel, min, one by one",
            lambda context: replace(context, batch_size=1).funnel("min").stream,
            judge="large",
            aggregate="min",
        ),
        Arm(
            AGENT_PAPER,
            "agent, one by one, as published",
            lambda context: agent_arm(reading_anew(context.agent())),
            "agent",
            base=AGENT_PAPER,
        ),
        Arm(
            FUNNEL_PAPER,
            "funnel, the paper's schedule",
            lambda context: as_published(context.funnel("min")).stream,
            "min",
            "large",
            "min",
            base=AGENT_PAPER,
        ),
        Arm(
            NO_TOOLS,
            "agent without its tools",
            lambda context: agent_arm(replace(context, tools=(), max_steps=1).agent()),
        ),
        Arm("specreason", "SpecReason", lambda context: _specreason(context).stream, "specreason"),
        *(
            Arm(
                f"{role}-{'reasoning' if reason else 'short'}",
                f"{role}, {'reasoning' if reason else 'at once'}",
                partial(_alone, role=role, reason=reason),
                words=True,
            )
            for role in ("large", "small")
            for reason in (False, True)
        ),
        Arm("transfer", "reasoning transfer", _transfer, words=True),
        Arm(
            "transfer-two-stage",
            "transfer, two stages",
            partial(_transfer, two_stage=True),
            words=True,
        ),
        Arm(
            "transfer-likely",
            "transfer, verified by likelihood",
            partial(_transfer, verify="likelihood"),
            words=True,
        ),
        Arm("transfer-sure", "transfer, verified by separability", _sure, words=True),
        *(_selected(by, percent) for by in get_args(By) if by != "all" for percent in (25, 50, 75)),
        Arm(
            DEEP,
            "draft after a look, alone",
            lambda context: draft_arm(context.deep_answerer(context.record_k), context.batch_size),
            drafts=True,
        ),
        Arm(
            "deep",
            "funnel, drafts with depth",
            lambda context: context.deep_funnel().stream,
            needs=(DEEP,),
        ),
        Arm(
            "cascade",
            "cascade: draft, look, agent",
            lambda context: context.cascade().stream,
            needs=(DEEP,),
        ),
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


def _one_pass(context: EvalContext, model: str) -> Stream:
    if model not in context.rivals:
        raise ConfigError(f"no model was loaded for {rivals.PREFIX}{model}: give it in `rivals`")
    return rivals.OnePass(
        context.rivals[model],
        texts=context.texts,
        bare=context.bare,
        max_tokens=context.one_pass_tokens,
        batch_size=context.batch_size,
    ).stream


def arm(name: str) -> Arm:
    """The arm of that name; "one-pass=MODEL" is one for any model.

    Raises:
        ConfigError: There is none.
    """
    if name.startswith(rivals.PREFIX):
        model = name.removeprefix(rivals.PREFIX)
        if not model:
            raise ConfigError(f"{name!r} names no model: one-pass=MODEL, as --large has it")
        return Arm(name, rivals.title(name), partial(_one_pass, model=model), words=True)
    try:
        return _ARMS[name]
    except KeyError:
        near = get_close_matches(name, _ARMS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"there is no arm {name!r}{hint}; there are {', '.join(_ARMS)}, and one-pass=MODEL"
        ) from None


def chosen(asked: Sequence[str]) -> tuple[str, ...]:
    """The arms asked for, each once; the agent and the draft arm always come first, for nearly
    all others are held against the first, and sweeps read the drafts of the second.

    Raises:
        ConfigError: There is no such arm.

    Example:
        >>> chosen(["min", "draft"])
        ('agent', 'draft', 'min')
        >>> chosen(["min-paper"])[2:]
        ('agent-paper', 'min-paper')
    """
    bases = [base for name in asked if (base := arm(name).base) != name]
    return tuple(dict.fromkeys((BASELINE, DRAFT, *bases, *asked)))
