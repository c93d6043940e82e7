"""The demo: the agent alone and the funnel on the same held-out queries, side by side.

The arms take turns, a round of queries at a time and each round in another order, so that a
machine that slows down slows all of them. Models are loaded and warm before the clock starts;
drawing scenes, grading and writing happen while it stands.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, final

from speceyes.environment import machine, versions
from speceyes.errors import InputError
from speceyes.evaluation.alone import agent_arm, draft_arm
from speceyes.evaluation.failures import counted, plain
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.progress import Bars
from speceyes.evaluation.report import Page
from speceyes.evaluation.rounds import round_size
from speceyes.evaluation.row import Item, Row
from speceyes.evaluation.summary import AGAIN, NAMES, ONE, summarise
from speceyes.evaluation.turn import Stream, Turn, order_of
from speceyes.pipeline.parts import models_of
from speceyes.types import Result

if TYPE_CHECKING:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.pipeline import SpecPipeline

_log = logging.getLogger(__name__)

RESULTS, SUMMARY, REPORT = "results.jsonl", "summary.json", "report.html"


@final
class Demo:
    """Runs the arms and writes what came of them.

    Writes into `out`: results.jsonl (a graded `Row` a line for each query and arm, complete
    up to the moment of an interruption), summary.json (see `summarise`) and report.html.

    Args:
        pipeline: The funnel; its fallback should run batched.
        agent: The agent with `max_batch=1`, for one query at a time.
        agent_batched: The same agent in batches.
        answerer: The funnel's drafter, for the draft arm.
        gate: The funnel's gate, which also scores the draft arm's drafts, off the clock.
        batch_size: Queries a batch of the draft arm.
        out: Folder for the files; made where it isn't there.
        one_by_one: The funnel with batches of one, to hold against the agent one by one.
        again: Whether the funnel takes a second turn in each round, of which only the time counts:
            the speed of an arm over itself shows what the intervals of the others are worth.
        notes: Further entries for summary.json, such as the models' names.
        progress: Where to show progress bars; None shows none.
    """

    def __init__(
        self,
        *,
        pipeline: SpecPipeline,
        agent: AgenticFallback,
        agent_batched: AgenticFallback,
        answerer: SpeculativeAnswerer,
        gate: SeparabilityGate,
        batch_size: int,
        out: Path,
        one_by_one: SpecPipeline | None = None,
        again: bool = False,
        notes: Mapping[str, Any] | None = None,
        progress: TextIO | None = None,
    ) -> None:
        self.out = Path(out)
        self._gate = gate
        self._notes = {**(notes or {}), "batch_size": batch_size}
        self._progress = progress
        self._again = (AGAIN,) if again else ()
        self._batch = self._round = batch_size
        parts = (agent, agent_batched, answerer, pipeline.judge, pipeline.fallback)
        self._models = models_of(parts)
        self.arms: dict[str, Stream] = {
            "agent": agent_arm(agent),
            "agent_batched": agent_arm(agent_batched),
            "draft": draft_arm(answerer, batch_size),
            **({} if one_by_one is None else {ONE: one_by_one.stream}),
            "funnel": pipeline.stream,
        }
        """Arms by name; another one may be put in the place of each before the run."""

    def __call__(
        self, items: Iterable[Item], *, total: int | None = None, warm_up: Iterable[Item] = ()
    ) -> dict[str, Any]:
        """Runs the arms on the items and returns the summary.

        Args:
            items: The queries with their answers, each id its own; read a round at a time.
            total: How many there are, for the progress bars.
            warm_up: Other queries that every arm answers before its clock starts.

        Raises:
            InputError: There is no item, or an id is blank or used twice.
            KeyboardInterrupt: Passed on; what was finished is written first, summary and page
                of the complete rounds included.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        for name in (RESULTS, SUMMARY, REPORT):  # nothing of an earlier run may pass for this one
            (self.out / name).unlink(missing_ok=True)
        page, rows, interrupted = Page(), list[Row](), False
        self._round = self._batch * 4 if total is None else round_size(total, self._batch)
        rounds: list[dict[str, float]] = []
        warm = [item.query for item in warm_up]
        for stream in self.arms.values():
            for _ in stream(warm):
                pass
        started, source, used = time.time(), iter(items), set[str]()
        with (
            (self.out / RESULTS).open("w", encoding="utf-8") as file,
            Bars(tuple(self.arms), self._progress, total) as bars,
        ):
            try:
                while batch := list(islice(source, self._round)):
                    _check_ids(batch, used)
                    spent, done = self._run_round(batch, len(rounds), file, bars)
                    rows += [_light(row) for row in done]
                    rounds.append(spent)
                    page.add(batch, done)
            except KeyboardInterrupt:
                interrupted = True
                if not rows:
                    raise
        if not rows:
            raise InputError("there are no items; pass at least one query with its answer")
        summary = {
            **summarise(rows, {a: sum(one[a] for one in rounds) for a in self.arms}, rounds),
            "interrupted": interrupted,
            "gate": {
                "threshold": self._gate.threshold,
                "top_k": self._gate.top_k,
                "aggregate": self._gate.aggregate,
            },
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "machine": {**machine(), "versions": versions()},
            "failures": plain(
                one
                for arm in self.arms
                for one in counted(NAMES[arm], (row.result for row in rows if row.arm == arm))
            ),
            **self._notes,
        }
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        (self.out / SUMMARY).write_text(text + "\n", encoding="utf-8")
        (self.out / REPORT).write_text(
            page.html(summary, self._gate.raw_threshold), encoding="utf-8"
        )
        if interrupted:
            raise KeyboardInterrupt
        return summary

    def _run_round(
        self, batch: Sequence[Item], before: int, file: TextIO, bars: Bars
    ) -> tuple[dict[str, float], list[Row]]:
        """Every arm on one round's items, in the round's order."""
        spent: dict[str, float] = {}
        done: list[Row] = []
        for arm in order_of((*self.arms, *self._again), before):
            if arm == AGAIN:
                turn = Turn(self._models)
                for _ in turn.run(self.arms["funnel"], [item.query for item in batch]):
                    pass
                spent[arm], *_ = turn.took
                continue
            spent[arm], rows = self._run_arm(arm, batch, file, bars)
            done += rows
        return spent, done

    def _run_arm(
        self, arm: str, batch: Sequence[Item], file: TextIO, bars: Bars
    ) -> tuple[float, list[Row]]:
        """Seconds the arm ran, and its graded rows, which are on disk however it ended."""
        results: list[tuple[Result, float]] = []
        turn = Turn(self._models)
        try:
            for result, seconds in turn.run(self.arms[arm], [item.query for item in batch]):
                results.append((result, seconds))
                bars.step(arm)
        finally:
            wall, *_ = turn.took
            by_id = {item.query.id: item for item in batch}
            rows = [self._grade(arm, by_id[r.query_id], r, s) for r, s in results]
            file.writelines(row.to_json() + "\n" for row in rows)
            file.flush()
        return wall, rows

    def _grade(self, arm: str, item: Item, result: Result, seconds: float) -> Row:
        query = item.query
        if arm == "draft" and result.draft is not None:
            result = replace(result, verdict=self._gate(result.draft))
        result = replace(result, timings=replace(result.timings, latency=seconds))
        correct = is_correct(result.answer, item.answer, query.choices, question=query.text)
        return Row(arm, item.kind, query.text, item.answer, correct, seconds, result)


def _check_ids(batch: Sequence[Item], used: set[str]) -> None:
    for item in batch:
        if not item.query.id or item.query.id in used:
            raise InputError(
                f"query id {item.query.id!r} is blank or used twice; give each its own"
            )
        used.add(item.query.id)


def _light(row: Row) -> Row:
    """The row without its trajectory, whose images only the page and the file need."""
    return replace(row, result=replace(row.result, trajectory=None))
