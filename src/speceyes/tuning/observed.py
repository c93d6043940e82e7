"""Record of what judges, drafts and the agent said and cost, once a query."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.answerer import asks_to_look
from speceyes.errors import InputError
from speceyes.evaluation.arms import BASELINE, DRAFT, JUDGE, JUDGED, LOOK_DRAFT
from speceyes.evaluation.grading import same_answer
from speceyes.evaluation.prices import Usage
from speceyes.evaluation.runs import Record, Run
from speceyes.evaluation.sweep import Clock, costs, scorable
from speceyes.gate import SeparabilityGate
from speceyes.gates.span import AnswerSpanGate, Decode
from speceyes.judge import DRAFT_JUDGES
from speceyes.scoring.scales import to_raw
from speceyes.scoring.scores import Aggregate, raw_scores
from speceyes.tuning.candidates import Candidate, DraftKind, JudgeModel, Span
from speceyes.types import Completion

Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

RECORDED: Final = "tune"
"""The phase in which every arm answers every question."""
TOGETHER: Final = "together"
"""The phase in which arms that share work run, on a part of the questions."""
CHECKED: Final = "check"
"""What begins the names of phases in which a chosen funnel runs as a whole."""


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """Cost of one part, a value a query.

    Args:
        seconds: float64[n]; their sum is the wall clock of the arm.
        usage: Tokens of each query, n of them.
    """

    seconds: Floats
    usage: tuple[Usage, ...]


@final
@dataclass(frozen=True, slots=True)
class Judged:
    """Word of a judge on each query.

    Args:
        p_tools: float64[n]; NaN where it can't be read.
        needs: bool[n], its own decision.
        spent: Its cost.
    """

    p_tools: Floats
    needs: Bools
    spent: Spent

    def through(self, threshold: float) -> Bools:
        """bool[n]: the queries that it lets through at a threshold."""
        unread = np.isnan(self.p_tools)
        found: Bools = np.where(unread, ~self.needs, np.nan_to_num(self.p_tools) < threshold)
        return found


@final
@dataclass(frozen=True, slots=True)
class Drafted:
    """Drafts at one resolution.

    Args:
        drafts: n of them; None where one failed.
        logprobs: float32[n_i, K] of each; none where the gate would reject it unscored.
        right: bool[n].
        differs: bool[n], it says something else than the agent.
        spent: Their cost.
    """

    drafts: tuple[Completion | None, ...]
    logprobs: tuple[npt.NDArray[np.float32], ...]
    right: Bools
    differs: Bools
    spent: Spent


@final
@dataclass(frozen=True, slots=True)
class Observed:
    """n queries, as all parts of a funnel met them.

    Args:
        ids: The queries.
        image_keys: Keys of each query's images.
        rounds: int[n], the round in which each was asked.
        right: bool[n], the agent's grades.
        agent: Its cost, alone.
        judges: By (model, pixels).
        drafts: By pixels.
        looks: The same of drafts that may ask to look closer, which is what the judge "draft" says.
        shared_s: Seconds a query that the agent is spared by what the large judge has read.
        decode: Of the drafter's tokens; None where its tokenizer isn't in this process.
    """

    ids: tuple[str, ...]
    image_keys: tuple[tuple[str, ...], ...]
    rounds: npt.NDArray[np.int64]
    right: Bools
    agent: Spent
    judges: Mapping[tuple[JudgeModel, int | None], Judged]
    drafts: Mapping[int | None, Drafted]
    shared_s: float = 0.0
    decode: Decode | None = None
    looks: Mapping[int | None, Drafted] = field(default_factory=dict)
    _scored: dict[tuple[DraftKind, Span, Aggregate, int], Floats] = field(
        default_factory=dict, repr=False, compare=False
    )
    _cut: dict[DraftKind, tuple[npt.NDArray[np.float32], ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def most_k(self) -> int:
        """The largest K that all drafts can be scored with."""
        every = (*self.drafts.values(), *self.looks.values())
        wide = [r.shape[1] for one in every for r in one.logprobs if len(r)]
        return min(wide, default=0)

    def through(self, one: Candidate) -> Bools:
        """bool[n]: the queries that a candidate's judge lets through."""
        if one.judge == "none":
            return np.ones(len(self), dtype=bool)
        if one.judge == DRAFT_JUDGES:
            said = self.drafted(one).drafts
            return np.array([d is None or not asks_to_look(d.text) for d in said], dtype=bool)
        return self.judges[one.judge, one.judge_pixels].through(one.judge_threshold)

    def drafted(self, one: Candidate) -> Drafted:
        """The drafts that a candidate takes, of a ladder those of its last rung."""
        return (self.looks if one.judge == DRAFT_JUDGES else self.drafts)[one.draft_pixels]

    def low(self, one: Candidate) -> Drafted:
        """The first drafts of a candidate with a ladder."""
        return self.drafted(_low(one))

    def climbs(self, one: Candidate) -> Bools:
        """bool[n]: queries whose first draft a candidate's gate rejects; all without a ladder."""
        if one.rung is None:
            return np.ones(len(self), dtype=bool)
        least = to_raw(one.rung[1], log=one.aggregate == "log")
        found: Bools = ~(self._plain_scores(_low(one)) >= least)  # NaN reaches nothing
        return found

    def scores(self, one: Candidate) -> Floats:
        """float64[n], raw; NaN where a candidate's gate would reject the draft unscored. What is
        accepted on a first rung has the highest score of all, since it is at any threshold.
        """
        found = self._plain_scores(one)
        if one.rung is None:
            return found
        top = np.nanmax(found) if np.isfinite(found).any() else 0.0
        whole: Floats = np.where(self.climbs(one), found, top)
        return whole

    def answering(self, one: Candidate, of: Callable[[Drafted], Bools]) -> Bools:
        """bool[n], a property of the draft that each query would be answered by.

        Args:
            one: The candidate.
            of: Its value for drafts of one kind.
        """
        found = of(self.drafted(one))
        if one.rung is None:
            return found
        whole: Bools = np.where(self.climbs(one), found, of(self.low(one)))
        return whole

    def _plain_scores(self, one: Candidate) -> Floats:
        key = one.draft, one.span, one.aggregate, one.top_k
        if key not in self._scored:
            rows = self.drafted(one).logprobs
            if one.span == "answer":
                rows = self._answers(one)
            self._scored[key] = raw_scores(rows, one.top_k, one.aggregate)
        return self._scored[key]

    def _answers(self, which: Candidate) -> tuple[npt.NDArray[np.float32], ...]:
        """Log-probabilities of the answers' tokens alone."""
        if which.draft not in self._cut:
            if self.decode is None:
                raise InputError("the drafter's tokens can't be decoded here: score whole drafts")
            gate = AnswerSpanGate(SeparabilityGate(), self.decode)
            one, none = self.drafted(which), np.zeros((0, 0), np.float32)
            kept = []
            for draft, rows in zip(one.drafts, one.logprobs, strict=True):
                try:
                    cut = gate.cut(draft).top_logprobs if draft is not None and len(rows) else none
                except Exception:  # noqa: BLE001 - the gate rejects a draft that can't be matched
                    cut = none
                kept.append(cut)
            self._cut[which.draft] = tuple(kept)
        return self._cut[which.draft]


def _low(one: Candidate) -> Candidate:
    """A candidate whose only drafts are the first rung's."""
    assert one.rung is not None
    return dataclasses.replace(one, draft_pixels=one.rung[0], rung=None)


def observed(
    run: Run,
    judges: Sequence[tuple[JudgeModel, int | None]],
    draft_pixels: Sequence[int | None],
    *,
    looks: Sequence[int | None] = (),
    decode: Decode | None = None,
    clock: Clock = "wall",
) -> Observed:
    """Everything that a run of `speceyes tune` has recorded.

    Args:
        run: Its folder, read back.
        judges: Judges that were asked, "none" left out, with their pixels.
        draft_pixels: Resolutions that were drafted at.
        looks: Resolutions at which drafts were asked for that may ask to look closer.
        decode: Of the drafter's tokens.
        clock: What seconds are told by.

    Raises:
        InputError: A part has not been recorded, or on other queries.
    """
    agent = run.of(RECORDED, BASELINE)
    order = [record.result.query_id for record in agent]
    if not order:
        raise InputError(f"{run.folder} holds no answers of the agent yet")
    spent = _spent(run, BASELINE, order, clock)
    drafts = {at: _drafted(run, arm_of(DRAFT, at), agent, clock) for at in draft_pixels}
    said = {}
    for which, pixels in judges:
        rows = _rows(run, arm_of(which, pixels), order)
        words = [record.result.judgement for record in rows]
        said[which, pixels] = Judged(
            np.array([np.nan if w is None or w.p_tools is None else w.p_tools for w in words]),
            np.array([w is None or w.needs_tools for w in words], dtype=bool),
            _spent(run, arm_of(which, pixels), order, clock),
        )
        if which == "small" and (behind := drafts.get(pixels)) is not None:
            said[which, pixels] = _without_drafts(said[which, pixels], behind.spent)
    return Observed(
        tuple(order),
        tuple(tuple((r.image_key or r.result.query_id).split(",")) for r in agent),
        np.array([record.round for record in agent]),
        np.array([record.correct for record in agent], dtype=bool),
        spent,
        said,
        drafts,
        _shared(run, order, spent.seconds, said, clock),
        decode,
        {at: _drafted(run, arm_of(LOOK_DRAFT, at), agent, clock) for at in looks},
    )


def _drafted(run: Run, arm: str, agent: Sequence[Record], clock: Clock) -> Drafted:
    """Drafts of an arm, held against the agent's answers."""
    order = [record.result.query_id for record in agent]
    rows = _rows(run, arm, order)
    return Drafted(
        tuple(record.result.draft for record in rows),
        tuple(map(scorable, rows)),
        np.array([record.correct for record in rows], dtype=bool),
        np.array(
            [
                not same_answer(row.result.answer, mine.result.answer, row.choices)
                for row, mine in zip(rows, agent, strict=True)
            ],
            dtype=bool,
        ),
        _spent(run, arm, order, clock),
    )


def engine_seconds(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """By arm and role, seconds a query that an engine says it spent: "queued", in "prefill" and in
    "decode"; empty where none says so. Requests of a batch overlap, so that these are no shares of
    the wall clock.
    """
    asked: dict[str, int] = {}
    sums: dict[str, dict[str, dict[str, float]]] = {}
    for block in run.blocks:
        if block.phase != RECORDED or not block.engine:
            continue
        asked[block.arm] = asked.get(block.arm, 0) + block.n
        for role, told in block.engine.items():
            mine = sums.setdefault(block.arm, {}).setdefault(role, {})
            for what in ("queued", "prefill", "decode"):
                mine[what] = mine.get(what, 0.0) + told[what]
    return {
        arm: {
            role: {what: total / asked[arm] for what, total in mine.items()}
            for role, mine in roles.items()
            if any(mine.values())
        }
        for arm, roles in sums.items()
        if asked[arm]
    }


def arm_of(part: str, pixels: int | None) -> str:
    """Name of the arm of a part: "large", "small", "draft" or "draft-look".

    Example:
        >>> arm_of("small", 65536), arm_of("draft", None)
        ('judge-small@65536', 'draft')
    """
    name = part if part in (DRAFT, LOOK_DRAFT) else f"{JUDGE}{part}"
    return name if pixels is None else f"{name}@{pixels}"


def _rows(run: Run, arm: str, order: Sequence[str]) -> list[Record]:
    found = {record.result.query_id: record for record in run.of(RECORDED, arm)}
    if set(found) != set(order):
        raise InputError(
            f"{run.folder}: arm {arm!r} has answered {len(found)} of {len(order)} queries; give "
            "the same command again to go on"
        )
    return [found[one] for one in order]


def _spent(run: Run, arm: str, order: Sequence[str], clock: Clock) -> Spent:
    rows = _rows(run, arm, order)
    seconds = costs(rows, run.blocks, clock)
    used = []
    for row in rows:
        result = row.result
        used.append(Usage.of(result.trajectory or result.judgement or result.draft))
    return Spent(np.array([seconds[one] for one in order]), tuple(used))


def _without_drafts(judged: Judged, drafts: Spent) -> Judged:
    """A small judge without the drafts behind it, so that what is left is what judging adds."""
    behind = float((drafts.seconds.mean() * ~judged.needs).mean())
    added = max(0.0, float(judged.spent.seconds.mean()) - behind)
    seconds = np.full(len(judged.needs), added)
    return dataclasses.replace(judged, spent=dataclasses.replace(judged.spent, seconds=seconds))


def _shared(
    run: Run,
    order: Sequence[str],
    agent_s: Floats,
    judges: Mapping[tuple[JudgeModel, int | None], Judged],
    clock: Clock,
) -> float:
    """Seconds a query by which judge and agent in a row cost less than each by itself."""
    rows = run.of(TOGETHER, JUDGED)
    if not rows or ("large", None) not in judges:
        return 0.0
    together = costs(rows, run.blocks, clock)
    at = [place for place, one in enumerate(order) if one in together]
    apart = agent_s[at] + judges["large", None].spent.seconds[at]
    saved = float(apart.mean()) - float(np.mean([together[order[place]] for place in at]))
    return min(max(0.0, saved), float(agent_s.mean()))
