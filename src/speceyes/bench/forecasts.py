"""Forecasts of a pilot run beside what is then measured, on the bundled pair.

    python -m speceyes.bench.forecasts
    python -m speceyes.bench.forecasts --only "large judge" --fresh

A pilot answers queries by the agent alone and by the funnel, and `efficiency` says of both what a
query costs: E[L], and L_agent. Then the same queries are run again, in another order and so in
other batches; with `--fresh` others are, which by chance alone cost more or less. Pilot and
measurement take turns block by block, in balanced order, and all is in seconds of the processor,
so that who else uses the machine matters little; how much it does still is seen in the agent, whose
pilot and measurement are the same thing twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, final

from speceyes.errors import ConfigError
from speceyes.evaluation.turn import order_of
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.pipeline.costs import efficiency
from speceyes.pipeline.efficiency import ENOUGH, Efficiency
from speceyes.types import Query, Result

if TYPE_CHECKING:
    from speceyes.models.hf import HFModel
    from speceyes.protocols import Judge

WITHIN: Final = 0.10
"""How far off a forecast may be."""
LEAST: Final = 8
"""Queries of a turn at least, and a batch; the shorter, the less a busy moment hits one arm."""


@final
@dataclass(frozen=True, slots=True)
class Case:
    """One way to run the funnel.

    Args:
        judge: Which model judges.
        batch: Queries judged and drafted together, and trajectories alive at once.
        threshold: The gate's; None for the bundled one.
        order: See `ScheduleConfig`.
    """

    judge: Literal["large", "small", "none"]
    batch: int
    threshold: float | None = None
    order: Literal["judge_first", "draft_first"] = "judge_first"

    def __str__(self) -> str:
        judge = "no judge" if self.judge == "none" else f"{self.judge} judge"
        parts = [judge, f"{self.batch} at once" if self.batch > 1 else "one by one"]
        if self.threshold is not None:
            parts.append({0.0: "all accepted", 1.0: "none accepted"}[self.threshold])
        if self.order == "draft_first":
            parts.append("drafts first")
        return ", ".join(parts)


CASES: Final = (
    *(Case(judge, batch) for judge in ("large", "small", "none") for batch in (1, 8, 32)),
    Case("large", 16, 1.0),
    Case("none", 16, 1.0),
    Case("large", 16, 0.0),
    Case("large", 16, None, "draft_first"),
)


@final
@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of the processor a query, foreseen and then measured.

    Args:
        case: How the funnel ran.
        told: What the pilot says.
        agent: The agent alone, measured.
        funnel: The funnel, measured.
        spared: What a fallback cost over what the agent alone cost on the same queries; None where
            nothing fell back.
    """

    case: Case
    told: Efficiency
    agent: float
    funnel: float
    spared: float | None

    @property
    def off(self) -> float:
        """Relative error of E[L]."""
        assert self.told.speculated is not None
        return self.told.speculated / self.funnel - 1


@final
class Bundled:
    """The bundled pair: a funnel for each case, timed by the processor."""

    def __init__(self) -> None:
        from speceyes import tiny
        from speceyes.models.hf import HFModel

        self.large: HFModel = HFModel.from_pretrained(tiny.LARGE)
        self.small: HFModel = HFModel.from_pretrained(tiny.SMALL)
        self.judging: HFModel = HFModel.from_pretrained(tiny.SMALL_JUDGE)

    def pipeline(self, case: Case, *, alone: bool = False) -> SpecPipeline:
        """The funnel of a case, or the agent alone at the same concurrency."""
        from speceyes import tiny
        from speceyes.answerer import SpeculativeAnswerer
        from speceyes.fallback import AgenticFallback
        from speceyes.gate import SeparabilityGate
        from speceyes.judge import ToolJudge

        schedule = ScheduleConfig(case.batch, case.order, overlap=False)
        agent = AgenticFallback(self.large, tools=["zoom"], max_batch=case.batch)
        if alone:
            made = SpecPipeline(fallback=agent, schedule=schedule)
        else:
            gate, drafter = tiny.gate(), self.small
            if case.judge == "small":
                told = tiny.judge_settings()
                drafter = self.judging
                gate = SeparabilityGate(
                    told["thresholds"]["small"], top_k=told["top_k"], aggregate=told["aggregate"]
                )
            if case.threshold is not None:
                gate = dataclasses.replace(gate, threshold=case.threshold)
            answerer = SpeculativeAnswerer(drafter, top_k=gate.top_k)
            judge: Judge | None = None
            if case.judge == "large":
                judge = ToolJudge(self.large, tools=["zoom"])
            elif case.judge == "small":
                judge = answerer.judge()
            made = SpecPipeline(
                judge=judge, answerer=answerer, gate=gate, fallback=agent, schedule=schedule
            )
        made.parts = dataclasses.replace(made.parts, clock=time.process_time)
        return made

    def run(self, pipe: SpecPipeline, queries: Sequence[Query]) -> tuple[list[Result], float]:
        """(results in order, seconds of the processor); the models begin with nothing kept."""
        for model in (self.large, self.small, self.judging):
            model.forget()
        began = time.process_time()
        results: Any = pipe(queries)
        spent = time.process_time() - began
        failed = [one.error for one in results if one.error is not None]
        if failed:
            raise ConfigError(f"{len(failed)} of {len(queries)} queries failed: {failed[0]}")
        return results, spent


def foresee(
    pair: Bundled, case: Case, pilot: Sequence[Query], queries: Sequence[Query]
) -> Forecast:
    """A pilot's forecast, and what queries then cost.

    Args:
        pair: The models.
        case: How the funnel runs.
        pilot: Queries of the pilot, each with an id of its own.
        queries: As many, which are measured.

    Raises:
        ConfigError: The pilot is too short to tell what the agent costs alone, or a query failed.
    """
    _check(pilot, queries)
    found: dict[str, list[Result]] = {"alone": [], "funnel": [], "tried": [], "foreseen": []}
    spent = dict.fromkeys(found, 0.0)
    pipes = {"alone": pair.pipeline(case, alone=True), "funnel": pair.pipeline(case)}
    pipes |= {"tried": pipes["alone"], "foreseen": pipes["funnel"]}
    block = max(LEAST, case.batch)
    for number, start in enumerate(range(0, len(pilot), block)):
        for name in order_of(tuple(found), number):
            those = pilot if name in ("tried", "foreseen") else queries
            results, seconds = pair.run(pipes[name], those[start : start + block])
            found[name] += results
            spent[name] += seconds
    n = len(queries)
    told = efficiency(found["tried"] + found["foreseen"], spent["tried"] + spent["foreseen"])
    fell = [
        (one.timings.fallback, by_itself.timings.fallback)
        for one, by_itself in zip(found["funnel"], found["alone"], strict=True)
        if one.timings.fallback is not None and by_itself.timings.fallback is not None
    ]
    spared = sum(one for one, _ in fell) / sum(two for _, two in fell) if fell else None
    return Forecast(case, told, spent["alone"] / n, spent["funnel"] / n, spared)


def _check(pilot: Sequence[Query], queries: Sequence[Query]) -> None:
    if len(pilot) < ENOUGH or len(queries) != len(pilot):
        raise ConfigError(
            f"{len(pilot)} queries tried and {len(queries)} measured: as many of either, "
            f"at least {ENOUGH}"
        )


def table(found: Sequence[Forecast]) -> Iterator[str]:
    """Lines of a table in Markdown, one a case, and a last one that counts."""
    head = (
        "case",
        "funnel: foreseen, measured",
        "off",
        "agent: foreseen, measured",
        "gain: foreseen, measured",
        "a fallback",
        "outside",
    )
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for one in found:
        yield row(one)
    near = sum(abs(one.off) <= WITHIN for one in found)
    yield f"\n{near} of {len(found)} forecasts of E[L] within {WITHIN:.0%}."


def row(one: Forecast) -> str:
    """A case's line of `table`: milliseconds of the processor a query, and ratios."""

    def ms(seconds: float | None) -> str:
        return "unknown" if seconds is None else f"{1000 * seconds:.1f}"

    told = one.told
    gain = "unknown" if told.gain is None else f"{told.gain:.2f}x"
    if told.interval is not None:
        gain += " ({:.2f} to {:.2f})".format(*told.interval)
    cells = (
        str(one.case),
        f"{ms(told.speculated)}, {ms(one.funnel)}",
        f"{one.off:+.1%}",
        f"{ms(told.l_agent)}, {ms(one.agent)}",
        f"{gain}, {one.agent / one.funnel:.2f}x",
        "none" if one.spared is None else f"{one.spared:.2f} of alone",
        ms(told.outside),
    )
    return f"| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    """Prints the table as it comes; 1 where a forecast is further off."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.bench.forecasts",
        description="Holds what a pilot foresees against what is then measured, on the bundled "
        "pair, in milliseconds of the processor a query.",
    )
    parser.add_argument(
        "--queries", type=int, default=128, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="measure other queries than the pilot's"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    chosen = parser.parse_args(argv)
    from speceyes.tiny.scenes import questions

    n = chosen.queries
    drawn = [one.query for one in questions("heldout", 2 * n if chosen.fresh else n)]
    pilot, queries = drawn[:n], drawn[-n:]
    random.Random(0).shuffle(queries)
    cases = [case for case in CASES if chosen.only in str(case)]
    _check(pilot, queries)
    pair, found = Bundled(), list[Forecast]()
    for case in {case.judge: case for case in cases}.values():  # the first of all is slow
        pair.run(pair.pipeline(case), pilot[:4])
    head, rule, *_ = table([])
    sys.stdout.write(f"{head}\n{rule}\n")
    for case in cases:
        found.append(foresee(pair, case, pilot, queries))
        sys.stdout.write(row(found[-1]) + "\n")
        sys.stdout.flush()
    sys.stdout.write(list(table(found))[-1] + "\n")
    return int(any(abs(one.off) > WITHIN for one in found))


if __name__ == "__main__":
    sys.exit(main())
