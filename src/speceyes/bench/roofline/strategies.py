"""Where SpecReason and drafts with depth pay: on scripted engines of real sizes, in virtual time.

    python -m speceyes.bench.roofline.strategies

The bundled models say a dozen tokens a turn, and a token of the large one hardly costs more than
one of the small one. Here both engines have the sizes of real models, turns are as long as is asked
for, and how many proposals and deep drafts are accepted is set, so that the table says from where
on each strategy gains over the agent alone. Judge, gate, tools and scheduler are the real ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from speceyes import prompts
from speceyes.answerer import SpeculativeAnswerer
from speceyes.bench.planned import RoutePlan, number_of, rows_of
from speceyes.bench.roofline.workload import House, PlannedSpeech, Played, RooflineWorkload, play
from speceyes.drafting import DepthRule
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.judge import ToolJudge
from speceyes.pipeline.config import ScheduleConfig
from speceyes.pipeline.parts import Parts
from speceyes.strategies.specreason import SpecReason
from speceyes.types import Completion, Conversation, Image, Sampling

TURNS: Final = (32, 128, 512)
SHARES: Final = (0.5, 0.7, 0.9)
LOOK_TOKENS: Final = 24
"""Tokens of the small model's turn that looks: a call without thoughts."""


@final
class ScoredSpeech:
    """Words of a plan, with scores of proposed turns, and drafts made after a look.

    Args:
        speech: Says all else.
        accepted: Share of turns that are scored 9 rather than 2.
        deep: Share of drafts with a crop behind them that are clear.
    """

    def __init__(self, speech: PlannedSpeech, accepted: float = 0.0, deep: float = 0.0) -> None:
        self._speech, self._accepted, self._deep = speech, accepted, deep

    @property
    def name(self) -> str:
        """Names it."""
        return self._speech.name

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self._speech.seen_size(image)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order."""
        said = self._speech.generate(conversations, sampling)
        return [self._one(c, one, sampling) for c, one in zip(conversations, said, strict=True)]

    def _one(self, asked: Conversation, said: Completion, sampling: Sampling) -> Completion:
        turns = sum(message.role == "assistant" for message in asked.messages)
        chance = random.Random((number_of(asked) or 0) * 1009 + turns).random()
        if sampling.first_token and asked.messages[-1].text == prompts.STEP_SCORE:
            return dataclasses.replace(
                said, first_token={"9" if chance < self._accepted else "2": 1.0}
            )
        if sampling.top_k and len(asked.images) > 1:
            rows = rows_of(len(said.token_ids), sampling.top_k, chance < self._deep)
            return dataclasses.replace(said, top_logprobs=rows)
        return said


@dataclass(frozen=True, slots=True)
class StrategyGain:
    """A strategy beside the agent alone on the same queries.

    Args:
        name: The strategy's.
        batch: Trajectories alive at once.
        turn_tokens: Tokens of a turn of the agent.
        accepted: Share of proposals, or of deep drafts, that are accepted.
        agent_s: Virtual seconds of the agent alone for all queries.
        base_s: Of the plain funnel, for drafts with depth; None elsewhere.
        seconds: Of the strategy.
    """

    name: str
    batch: int
    turn_tokens: int
    accepted: float
    agent_s: float
    seconds: float
    base_s: float | None = None


def spec_reason(workload: RooflineWorkload, accepted: float) -> tuple[Played, float]:
    """SpecReason on the workload, and the share of turns that was accepted."""
    speech = PlannedSpeech(workload.routes, workload.spread)
    house = House(workload, ScoredSpeech(speech, accepted), speech)
    run = SpecReason(
        house.large,
        house.small,
        tools=["zoom"],
        dialect="deepeyes",
        max_steps=max(6, workload.routes.depth + 1),
        max_batch=workload.batch,
    )
    schedule = ScheduleConfig(batch_size=min(16, workload.batch), overlap=True)
    parts = Parts(fallback=run.fallback, schedule=schedule, clock=house.clock)
    played = house.play(parts, at_once=_at_once(workload))
    return played, run.steps.accepted / max(1, run.steps.proposed)


def deep_drafts(workload: RooflineWorkload, deep: float) -> Played:
    """The funnel without a judge whose drafter looks once where the gate would reject its draft."""
    short = dataclasses.replace(workload.routes, depth=1, turn_tokens=LOOK_TOKENS)
    drafter = ScoredSpeech(PlannedSpeech(short, 0.0), deep=deep)
    house = House(workload, PlannedSpeech(workload.routes, workload.spread), drafter)
    gate = SeparabilityGate(0.98, top_k=64)
    answerer = SpeculativeAnswerer(
        house.small,
        top_k=64,
        tools=["zoom"],
        dialect="deepeyes",
        max_depth=1,
        rule=DepthRule(gate),
    )
    agent = AgenticFallback(
        house.large,
        tools=["zoom"],
        dialect="deepeyes",
        max_batch=workload.batch,
        max_steps=max(6, workload.routes.depth + 1),
    )
    judge = None
    if workload.judge == "large":
        judge = ToolJudge(house.large, tools=["zoom"], dialect="deepeyes")
    schedule = ScheduleConfig(min(16, workload.batch), overlap=True, speculate="always")
    parts = Parts(judge, answerer, gate, agent, schedule=schedule, clock=house.clock)
    return house.play(parts, at_once=_at_once(workload))


def _at_once(workload: RooflineWorkload) -> int | None:
    return 1 if workload.batch == 1 else None


def gains(
    n: int, batches: Sequence[int], turns: Sequence[int], shares: Sequence[float]
) -> list[StrategyGain]:
    """Every strategy at every number of trajectories, length of turns and share of acceptances.

    Raises:
        ConfigError: There is nothing to measure.
    """
    if n < 1 or not (batches and turns and shares):
        raise ConfigError(f"{n} queries, {batches}, {turns}, {shares}: at least one of each")
    found = []
    for batch in batches:
        for tokens in turns:
            routes = RoutePlan(n, beta=1.0, alpha=0.4, depth=2, turn_tokens=tokens)
            workload = RooflineWorkload("strategies", routes, batch=batch, judge="none")
            alone = play(workload, "never", at_once=_at_once(workload)).seconds
            funnel = play(workload, "always", at_once=_at_once(workload)).seconds
            for share in shares:
                spent, hits = spec_reason(workload, share)
                at = (batch, tokens)
                found.append(StrategyGain("SpecReason", *at, hits, alone, spent.seconds))
                deep = deep_drafts(workload, share).seconds
                found.append(StrategyGain("drafts with depth", *at, share, alone, deep, funnel))
    return found


def table(found: Sequence[StrategyGain]) -> str:
    """Markdown table, a line for each."""
    lines = [
        "| strategy | at once | tokens a turn | accepted | over the agent | over the funnel |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one in sorted(found, key=lambda o: (o.name, o.batch, o.turn_tokens, o.accepted)):
        funnel = "" if one.base_s is None else f"{one.base_s / one.seconds:.2f}x"
        lines.append(
            f"| {one.name} | {one.batch} | {one.turn_tokens} | {100 * one.accepted:.0f} % "
            f"| {one.agent_s / one.seconds:.2f}x | {funnel} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.bench.roofline.strategies")
    parser.add_argument("--queries", type=int, default=96)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--turns", type=int, nargs="+", default=list(TURNS))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    args = parser.parse_args(argv)
    sys.stdout.write(f"{table(gains(args.queries, args.batches, args.turns, args.shares))}\n")


if __name__ == "__main__":
    main()
