"""The arms of an evaluation by name.

An arm takes queries as it has room for them and yields results as they finish. Adding one is a
call of `register`; it then runs beside the others, on the same models and the same samples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, Literal, TypeAlias, final, get_args

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation import rivals
from speceyes.evaluation.alone import agent_arm, draft_arm, judge_arm
from speceyes.evaluation.context import EvalContext
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.turn import Stream
from speceyes.gate import SeparabilityGate
from speceyes.pipeline import SpecPipeline
from speceyes.pipeline.reference import as_published, reading_anew
from speceyes.scoring.scores import AGGREGATES, Aggregate
from speceyes.strategies import Reasoner, ReasoningTransfer, Selector, SpecReason, TransferRule
from speceyes.strategies.selection import By
from speceyes.tools import Tools

_log = logging.getLogger(__name__)

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
LOOK_DRAFT: Final = "draft-look"
"""The arm whose drafts may ask to look closer, which the threshold of "min-one-pass" comes from."""
LOW_DRAFT: Final = "draft-reduced"
"""The arm that drafts on a ladder's first rung, which that rung's threshold comes from."""
NO_TOOLS: Final = "agent-no-tools"
"""The agent in batches with its tools switched off."""
CALIBRATED: Final = "transfer-calibrated"
"""Reasoning transfer under a rule that labelled samples gave."""
TUNED: Final = "tuned"
"""The funnel of a settings file."""
AUTO: Final = "tuned-auto"
"""The same, switching itself off while it loses."""
JUDGE: Final = "judge-"
"""What begins the names of arms in which a judge alone speaks."""
JUDGED: Final = "judged"
"""The agent on every query, behind the large judge."""
PARTS: Final = (f"{JUDGE}large", f"{JUDGE}small", JUDGED)
"""Arms of one part, for what it costs and says by itself."""
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
        labelled: Whether it is built from labelled samples of the calibration split.
        words: Whether it works in words alone, so that it can run without tools.
        base: The arm that its speed is held against; it is run as well.
        answers: Whether it answers; a judge by itself only says who should.
    """

    name: str
    title: str
    build: Build
    variant: str | None = None
    judge: str = ""
    aggregate: Aggregate | None = None
    drafts: bool = False
    needs: tuple[str, ...] = ()
    labelled: bool = False
    words: bool = False
    base: str = BASELINE
    answers: bool = True


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
        context.large,
        context.small,
        batch_size=context.batch_size,
        place=context.place,
        **more,
    ).stream


def _sure(context: EvalContext) -> Stream:
    """Both models' gates are the funnel's."""
    gate = context.gate(FUNNEL)
    return _transfer(context, verify="separability", gates=(gate, gate))


def _credible(context: EvalContext) -> Stream:
    """An arm as `_calibrated`; the large model reasons itself where it doubts the small one."""
    if context.credible is None:
        raise ConfigError("the arm 'transfer-credible' needs a limit: give --credible")
    return _calibrated(context, credible=context.credible)


def _calibrated(
    context: EvalContext, keep: Selector | None = None, credible: float | None = None
) -> Stream:
    """An arm whose rule to settle a query and choice of notes come of the calibration split, with
    what the selector keeps, or are those of the bundled pair, with all of the reasoning.
    """
    keep = keep or Selector("all")
    if context.rule is not None and not len(context.labelled):
        return _transfer(context, rule=context.rule, keep=keep, credible=credible)
    golds = {item.query.id: item.answer for item in context.labelled}
    options: dict[str, Any] = {
        "batch_size": context.batch_size,
        "place": context.place,
        "keep": keep,
    }
    try:
        rule = ReasoningTransfer(context.large, context.small, **options).calibrate(
            (item.query for item in context.labelled),
            lambda query, said: is_correct(said, golds[query.id], query.choices),
            top_k=max(3, context.top_k),
        )
    except InputError as exc:
        # The other arms' answers are worth more than an end of the run.
        _log.warning("%s: no rule can be chosen (%s): brief answers stand", CALIBRATED, exc)
        rule = TransferRule(settles=-math.inf, rises=math.inf)
    _log.info("%s: %s", CALIBRATED, rule.to_dict())
    return _transfer(context, rule=rule, keep=keep, credible=credible)


def _keeping(context: EvalContext, by: By, percent: int) -> Selector:
    return Selector(by, percent / 100, heads=context.heads if by == "attended" else ())


def _selected(by: By, percent: int) -> tuple[Arm, Arm]:
    """Transfer of a share of the reasoning's tokens: settled by agreement, and by a rule."""
    return (
        Arm(
            f"transfer-{by}-{percent}",
            f"transfer, {percent} % {by}",
            lambda context: _transfer(context, keep=_keeping(context, by, percent)),
            words=True,
        ),
        Arm(
            f"{CALIBRATED}-{by}-{percent}",
            f"transfer, by a calibrated rule, {percent} % {by}",
            lambda context: _calibrated(context, _keeping(context, by, percent)),
            labelled=True,
            words=True,
        ),
    )


def _alone(context: EvalContext, role: str, *, reason: bool) -> Stream:
    model = context.large if role == "large" else context.small
    return Reasoner(model, reason=reason, batch_size=context.batch_size).stream


def _agent(context: EvalContext) -> Stream:
    if context.without_tools:
        return _alone(context, "large", reason=True)
    return agent_arm(context.agent())


def _tuned(
    context: EvalContext, name: str = TUNED, speculate: Literal["always", "auto"] = "always"
) -> Stream:
    """The funnel of a settings file; it speculates always, so that routes don't depend on time."""
    if context.settings is None:
        raise ConfigError(f"the arm {name!r} runs what --settings names: give a file")
    schedule = replace(context.settings.schedule, speculate=speculate)
    return SpecPipeline.from_settings(
        replace(context.settings, schedule=schedule),
        large=context.large,
        small=context.small,
    ).stream


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
        Arm(TUNED, "funnel, as tuned", _tuned),
        Arm(
            AUTO,
            'funnel, as tuned, "auto"',
            partial(_tuned, name=AUTO, speculate="auto"),
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
        Arm(
            CALIBRATED,
            "transfer, by a calibrated rule",
            _calibrated,
            labelled=True,
            words=True,
        ),
        Arm(
            "transfer-credible",
            "transfer, by a calibrated rule, read first",
            _credible,
            labelled=True,
            words=True,
        ),
        *(
            arm
            for by in get_args(By)
            if by != "all"
            for percent in (25, 50, 75)
            for arm in _selected(by, percent)
        ),
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
            LOOK_DRAFT,
            "draft that may ask to look closer, alone",
            lambda context: draft_arm(
                context.looking_answerer(context.record_k), context.batch_size
            ),
            drafts=True,
        ),
        Arm(
            LOW_DRAFT,
            "draft on few pixels, alone",
            lambda context: draft_arm(context.low_answerer(context.record_k), context.batch_size),
            drafts=True,
        ),
        Arm(
            "min-one-pass",
            "funnel, judge and draft in one pass",
            lambda context: context.one_pass().stream,
            needs=(LOOK_DRAFT,),
        ),
        Arm(
            "min-ladder",
            "ladder: few pixels, more, agent",
            lambda context: context.ladder().stream,
            needs=(LOW_DRAFT,),
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


def _at(context: EvalContext, part: str, pixels: int | None) -> Stream:
    """A part of the funnel by itself: "draft", "draft-look", "judge-large", "judge-small"."""
    if part in (DRAFT, LOOK_DRAFT):
        answerer = context.answerer if part == DRAFT else context.looking_answerer
        return draft_arm(answerer(context.record_k, pixels), context.batch_size)
    which = part.removeprefix(JUDGE)
    judge = context.judge(which, pixels)
    assert judge is not None
    # A small judge's reading serves the draft: what it costs shows with its drafts behind it.
    drafts = context.answerer(context.record_k, pixels) if which == "small" else None
    return judge_arm(judge, context.batch_size, drafts)


def _judged(context: EvalContext) -> Stream:
    """The large judge sends every query to the agent, which finds read what the judge has read."""
    return SpecPipeline(
        judge=context.judge("large", threshold=0.0),
        answerer=context.answerer(context.top_k),
        gate=SeparabilityGate(1.0, top_k=context.top_k),
        fallback=context.agent(),
        schedule=context.schedule,
    ).stream


def _part(name: str) -> Arm | None:
    """An arm of parts of the funnel by themselves; None where the name isn't one's."""
    part, at, pixels = name.partition("@")
    if part not in (*PARTS, *((DRAFT, LOOK_DRAFT) if at else ())):
        return None
    if at and not (pixels.isdecimal() and int(pixels)):
        raise ConfigError(f"{name!r}; behind the @ stands a number of pixels, such as 65536")
    if part == JUDGED and not at:
        return Arm(name, "agent behind the large judge", _judged)
    if part == JUDGED:
        return None
    title = part.replace("-", " by the ") + (f", {pixels} pixels" if at else "") + ", alone"
    most = int(pixels) if at else None
    build = partial(_at, part=part, pixels=most)
    drafts = not part.startswith(JUDGE)
    return Arm(name, title, build, drafts=drafts, answers=drafts)


def arm(name: str) -> Arm:
    """The arm of that name; "one-pass=MODEL" is one for any model, and "draft@PIXELS",
    "draft-look@PIXELS", "judge-large" and "judge-small", these with "@PIXELS" too, and "judged" are
    parts of the funnel by themselves.

    Raises:
        ConfigError: There is none.
    """
    if name.startswith(rivals.PREFIX):
        model = name.removeprefix(rivals.PREFIX)
        if not model:
            raise ConfigError(f"{name!r} names no model: one-pass=MODEL, as --large has it")
        return Arm(name, rivals.title(name), partial(_one_pass, model=model), words=True)
    if name not in _ARMS and (made := _part(name)) is not None:
        return made
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
