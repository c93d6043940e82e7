"""Runs arms side by side over a benchmark's samples and writes what each did.

The arms take turns, a round of queries at a time and each round in another order, so that drift
of the machine hits all alike. Before each turn the models forget what they have kept, or an arm
would find read what another has read. Decoding, grading and writing happen off the clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np

from speceyes.encoded import in_base64
from speceyes.errors import InputError, describe
from speceyes.evaluation import arms as known
from speceyes.evaluation.arms import BASELINE, DRAFT
from speceyes.evaluation.benchmarks.sample import Samples
from speceyes.evaluation.context import EvalContext
from speceyes.evaluation.eval_progress import Progress
from speceyes.evaluation.grading import is_correct
from speceyes.evaluation.rounds import round_size
from speceyes.evaluation.row import Item, PublishedItem
from speceyes.evaluation.runs import AGAIN, CALIBRATION, Block, Record, Writer
from speceyes.evaluation.turn import Stream, Turn, forget, order_of
from speceyes.images import content_key
from speceyes.looked import zoomed
from speceyes.models.rows import retry_per_row
from speceyes.pipeline.parts import models_of
from speceyes.types import Image, Judgement, Query, Result

_log = logging.getLogger(__name__)

_MOST_PIXELS: Final = 1 << 29
"""Pixels that a round may hold decoded, 1.5 GiB; rounds of huge images are shorter."""
_SCENE, _CROP, _MOST_CROPS = 200, 112, 6


@final
@dataclass(frozen=True, slots=True)
class Phase:
    """Some samples, and who answers them.

    Args:
        name: "calibration", "test" or "batch-N".
        samples: Items by number; each may be a `PublishedItem` too. One whose
            image can't be decoded when it is asked for raises, and counts as wrong in every arm.
        arms: Names, see `arms`.
        context: What the arms are built from.
        judges: Judges whose word on every query is recorded beside the drafts, off the clock.
        pictures: Whether small pictures are kept for the page.
        round: Queries a round; None for as many as the number of samples calls for.
        again: Whether an arm takes a second turn in each round, of which only the time counts: its
            speed over itself shows what the intervals of the others are worth.
    """

    name: str
    samples: Sequence[Item]
    arms: tuple[str, ...]
    context: EvalContext
    judges: tuple[str, ...] = ()
    pictures: bool = False
    round: int | None = None
    again: bool = False

    def __len__(self) -> int:
        return len(self.samples) * len(self.arms)


def repeated(arms: Sequence[str]) -> str:
    """Name of the arm that takes a second turn in each round: the funnel, else the first."""
    return known.FUNNEL if known.FUNNEL in arms else arms[0]


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A sample as it is asked, or why it can't be."""

    query: Query | None
    id: str
    gold: str = ""
    kind: str = ""
    benchmark: str = ""
    choices: tuple[str, ...] = ()
    text: str = ""
    error: str = ""
    image_key: str = ""


def run_phase(writer: Writer, phase: Phase, progress: Progress) -> None:
    """Runs what is missing of a phase.

    Args:
        writer: Of the run's folder, which knows what is there.
        phase: The samples and arms.
        progress: Told of each answer.

    Raises:
        InputError: The phase has no samples, or the samples are not those that the run began with.
    """
    n = len(phase.samples)
    if n == 0:
        raise InputError(
            f"phase {phase.name!r} has no samples: raise --limit, or choose another "
            "share for calibration"
        )
    size = _round(phase)
    rounds = range(-(-n // size))
    turns_of = (*phase.arms, AGAIN) if phase.again else phase.arms
    missing = {
        r: [a for a in order_of(turns_of, r) if (phase.name, r, a) not in writer.blocks]
        for r in rounds
    }
    for todo in missing.values():
        if todo == [AGAIN]:  # its other turns were taken long ago, on another machine perhaps
            todo.clear()
    progress.skip(sum(b.n for key, b in writer.blocks.items() if key[0] == phase.name))
    if not any(missing.values()):
        return
    turns = _Turns(phase, progress)
    turns.warm_up([one.query for one in map(decoder(phase), range(min(n, 4))) if one.query])
    for number in rounds:
        if not missing[number]:
            continue
        asked = [decoder(phase)(at) for at in range(number * size, min(n, (number + 1) * size))]
        _check(asked, writer, phase.name, number)
        for arm in missing[number]:
            if arm == AGAIN:
                writer.block(turns.repeat(repeated(phase.arms), asked, number), [])
                continue
            block, records, pictures = turns.take(arm, asked, number)
            writer.block(block, records, pictures)
            right = sum(r.correct for r in records) if known.arm(arm).answers else None
            progress.block(phase.name, arm, right, len(records), block.wall)


def _round(phase: Phase) -> int:
    """Queries a round: four batches, fewer where speed is measured on few queries (see
    `rounds.round_size`), or where images are huge.
    """
    batch, n = phase.context.batch_size, len(phase.samples)
    most = 4 * batch if phase.name == CALIBRATION else round_size(n, batch)
    most = most if phase.round is None else phase.round
    first = decoder(phase)(0).query
    pixels = sum(i.width * i.height for i in first.images) if first is not None else 1
    return min(most, max(batch, _MOST_PIXELS // max(pixels, 1)))


def decoder(phase: Phase) -> Callable[[int], Asked]:
    """Decodes the sample of a number."""

    def asked(at: int) -> Asked:
        try:
            item = phase.samples[at]
            query = item.query
        except Exception as exc:  # noqa: BLE001 - a sample's failure is its own
            error = f"can't be decoded: {describe(exc)}"
            if not isinstance(phase.samples, Samples):
                return Asked(None, f"{phase.name}-{at}", error=error)
            one = phase.samples.entries[at]
            known = (one.id, one.answer, one.kind, one.benchmark, one.choices, one.question)
            return Asked(None, *known, error)
        sent, benchmark = query, ""
        if isinstance(item, PublishedItem):
            benchmark = item.benchmark
            if item.parity_prompt is not None:
                sent = Query(item.parity_prompt, query.images, id=query.id)
        known = (query.id, item.answer, item.kind, benchmark, query.choices, sent.text)
        key = ",".join(content_key(image) for image in query.images)
        return Asked(sent, *known, image_key=key)

    return asked


def _check(asked: Sequence[Asked], writer: Writer, phase: str, number: int) -> None:
    ids = [one.id for one in asked]
    if len(set(ids)) < len(ids) or not all(ids):
        raise InputError(f"round {number} of {phase} has a blank or repeated query id: {ids}")
    for key in writer.blocks:
        if key[:2] == (phase, number) and key[2] != AGAIN:  # a second turn has no records
            before = {r.result.query_id for r in writer.records if (r.phase, r.round, r.arm) == key}
            if before != set(ids):
                raise InputError(
                    f"round {number} of {phase} had other queries when the run began: the "
                    "benchmark's files have changed; start a run in another folder"
                )
            return


@final
class _Turns:
    """The arms of a phase, built and ready."""

    def __init__(self, phase: Phase, progress: Progress) -> None:
        self._phase, self._progress = phase, progress
        context = phase.context
        self._streams: dict[str, Stream] = {
            name: known.arm(name).build(context) for name in phase.arms
        }
        self._judges = {name: context.judge(name) for name in phase.judges}
        self._gate = context.gate(known.FUNNEL) if known.FUNNEL in context.thresholds else None
        parts = [context.answerer(context.top_k), context.agent()]
        if context.looker is not None:
            parts.append(context.deep_answerer(context.top_k))
        self._models = (*models_of(parts), *context.rivals.values())
        self._roles = dict(context.models)

    def warm_up(self, queries: Sequence[Query]) -> None:
        """Every arm answers these before a clock runs."""
        for stream in self._streams.values():
            for _ in stream(queries):
                pass
        forget(self._models)

    def take(
        self, arm: str, asked: Sequence[Asked], number: int
    ) -> tuple[Block, list[Record], list[dict[str, Any]]]:
        """One arm on one round: what it took, its records in the order asked, and pictures."""
        results: dict[str, tuple[Result, float]] = {}
        turn = Turn((*self._models, *self._roles.values()))
        queries = [one.query for one in asked if one.query is not None]
        for result, seconds in turn.run(self._streams[arm], queries):
            results[result.query_id] = result, seconds
            self._progress.step()
        wall, cpu, others = turn.took
        spent = {
            role: {what: int(counts[what]) for what in ("read", "reused", "decoded")}
            for role, counts in zip(self._roles, turn.spent[len(self._models) :], strict=True)
            if counts
        }
        told = turn.engine[len(self._models) :]
        engine = {role: times for role, times in zip(self._roles, told, strict=True) if times}
        judged = self._judged(asked) if arm == DRAFT else {}
        records, pictures = [], []
        for one in asked:
            why = one.error or "the arm gave no result"
            result, seconds = results.get(one.id, (Result(one.id, None, "error", error=why), 0.0))
            correct = is_correct(result.answer, one.gold, one.choices, question=one.text)
            if self._phase.pictures and arm == BASELINE and one.query is not None:
                pictures.append(_pictures(one.id, one.query.images, result))
            if arm == DRAFT and self._gate is not None and result.draft is not None:
                result = replace(result, verdict=self._gate(result.draft))
            records.append(
                Record(
                    self._phase.name,
                    number,
                    arm,
                    one.benchmark,
                    one.kind,
                    one.text,
                    one.choices,
                    one.gold,
                    correct,
                    seconds,
                    result if known.arm(arm).drafts else _slim(result),
                    judged.get(one.id, {}),
                    one.image_key,
                )
            )
        block = Block(self._phase.name, number, arm, wall, len(asked), spent, cpu, others, engine)
        return block, records, pictures

    def repeat(self, arm: str, asked: Sequence[Asked], number: int) -> Block:
        """An arm's second turn on one round, of which only the time counts."""
        turn = Turn((*self._models, *self._roles.values()))
        for _ in turn.run(self._streams[arm], [o.query for o in asked if o.query is not None]):
            pass
        wall, cpu, others = turn.took
        return Block(self._phase.name, number, AGAIN, wall, 0, {}, cpu, others)

    def _judged(self, asked: Sequence[Asked]) -> Mapping[str, dict[str, bool]]:
        queries = [one.query for one in asked if one.query is not None]
        found: dict[str, dict[str, bool]] = {query.id: {} for query in queries}
        if self._phase.context.without_tools:
            return {query.id: dict.fromkeys(self._judges, False) for query in queries}
        size = self._phase.context.batch_size
        for name, judge in self._judges.items():
            if judge is None:
                continue
            forget(self._models)
            for at in range(0, len(queries), size):
                batch = queries[at : at + size]
                said = retry_per_row(judge, batch, lambda why: Judgement(True, reason=why))
                for query, judgement in zip(batch, said, strict=True):
                    found[query.id][name] = judgement.needs_tools
        return found


def _slim(result: Result) -> Result:
    """Without log-probabilities, which the draft arm records once and in full, and without the
    rest of the judge's first-token probabilities, whose sum for "yes" is `p_tools`.
    """
    judged = result.judgement
    if judged is not None and judged.completion is not None:
        judged = replace(judged, completion=replace(judged.completion, first_token={}))
    draft = result.draft
    if draft is not None:
        draft = replace(draft, top_logprobs=np.zeros((0, 0), np.float32))
    return replace(result, judgement=judged, draft=draft)


def _pictures(query_id: str, images: Sequence[Image], result: Result) -> dict[str, Any]:
    """The images and the agent's crops, small, with the crops' boxes as fractions."""
    crops = zoomed(images, result.trajectory)[:_MOST_CROPS]
    return {
        "query_id": query_id,
        "images": [_jpeg(image, _SCENE) for image in images[:2]],
        "sizes": [[image.width, image.height] for image in images[:2]],
        "crops": [
            {
                "jpeg": _jpeg(crop, _CROP),
                "of": root,
                "box": None if box is None else [round(x, 4) for x in box],
            }
            for crop, root, box in crops
        ],
    }


def _jpeg(image: Image, side: int) -> str:
    small = image.convert("RGB")
    small.thumbnail((side, side))
    return in_base64(small, "JPEG", quality=70, optimize=True)
