"""Recorded drafts, gated again without a model: thresholds, K, aggregates and judges."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.answerer import asks_to_look
from speceyes.errors import InputError
from speceyes.evaluation.arms import BASELINE, DEEP, DRAFT, LOOK_DRAFT, LOW_DRAFT
from speceyes.evaluation.grading import same_answer
from speceyes.evaluation.runs import CALIBRATION, Block, Record, Run
from speceyes.evaluation.statistics import cluster_interval
from speceyes.gates.joint_thresholds import Chosen, RecordedDrafts, choose_thresholds
from speceyes.scoring.scales import to_raw, to_unit
from speceyes.scoring.scores import AGGREGATES, Aggregate, raw_scores

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Clock: TypeAlias = Literal["wall", "cpu"]
"""Seconds by the wall clock, or of the processors that this process had."""

LOSS: Final = 0.005
"""Accuracy, as a share of all queries, that the chosen threshold may lose of others like these."""
CASCADE_TARGET: Final = 0.03
"""Of a cascade's answers by draft, the share that may be wrong where the agent is right; held with
confidence 90 %."""
GRID: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
"""Thresholds of sweeps; from 0.93 on those of the paper."""
KS: Final = (4, 8, 16, 32, 48, 64, 80, 96, 128)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """n queries with everything that a gate's decision changes.

    Args:
        ids: The queries.
        kinds: Their kinds.
        logprobs: float32[n_i, K] of each draft; none where the draft failed, was cut or is blank.
        right: bool[n], the drafts' grades.
        agent_right: bool[n], the agent's.
        differs: bool[n], the draft says something else than the agent.
        through: bool[n] by judge: it wants no tools. "none" is always there.
        agent_s: float64[n], seconds of the agent, which sum to its wall clock.
        image_keys: Keys of each query's images; None where the run didn't note them.
    """

    ids: tuple[str, ...]
    kinds: tuple[str, ...]
    logprobs: tuple[npt.NDArray[np.float32], ...]
    right: Bools
    agent_right: Bools
    differs: Bools
    through: Mapping[str, Bools]
    agent_s: Floats
    image_keys: tuple[tuple[str, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def most_k(self) -> int:
        """The largest K that all drafts can be scored with."""
        return min((rows.shape[1] for rows in self.logprobs if len(rows)), default=0)

    def scores(self, aggregate: Aggregate, top_k: int) -> Floats:
        """float64[n], raw; NaN where the gate would reject the draft unscored."""
        return raw_scores(self.logprobs, top_k, aggregate)

    def accepted(
        self, aggregate: Aggregate, top_k: int, threshold: float, judge: str = "large"
    ) -> Bools:
        """bool[n]: who would be answered by draft.

        Raises:
            InputError: That judge wasn't recorded.
        """
        if judge not in self.through:
            raise InputError(
                f"judge {judge!r} was not recorded; there are {', '.join(self.through)}"
            )
        raw = self.scores(aggregate, top_k)
        passed = raw >= to_raw(threshold, log=aggregate == "log")  # NaN passes nothing
        found: Bools = passed & self.through[judge]
        return found


def recorded(run: Run, phase: str, drafter: str = DRAFT) -> Recorded:
    """The queries of a phase that both the agent and an arm that records drafts have been through.

    Args:
        run: The run.
        phase: The phase.
        drafter: The arm that drafted. What judges say was recorded beside the draft arm's.

    Raises:
        InputError: There is none.
    """
    agent = {r.result.query_id: r for r in run.of(phase, BASELINE)}
    judged = {r.result.query_id: r.judged for r in run.of(phase, DRAFT)}
    drafts = [
        r
        for r in run.of(phase, drafter)
        if r.result.query_id in agent and r.result.query_id in judged
    ]
    if not drafts:
        raise InputError(f"{run.folder} has no recorded drafts of phase {phase!r} yet")
    spent = costs(run.of(phase, BASELINE), run.blocks)
    judges = sorted({name for found in judged.values() for name in found})
    return Recorded(
        tuple(r.result.query_id for r in drafts),
        tuple(r.kind for r in drafts),
        tuple(scorable(r) for r in drafts),
        np.array([r.correct for r in drafts]),
        np.array([agent[r.result.query_id].correct for r in drafts]),
        np.array([_differs(r, agent[r.result.query_id]) for r in drafts]),
        {
            "none": np.ones(len(drafts), bool),
            **{
                name: np.array([not judged[r.result.query_id].get(name, True) for r in drafts])
                for name in judges
            },
        },
        np.array([spent[r.result.query_id] for r in drafts]),
        tuple(tuple(r.image_key.split(",")) for r in drafts)
        if all(r.image_key for r in drafts)
        else None,
    )


def scorable(record: Record) -> npt.NDArray[np.float32]:
    """float32[n, K] of a record's draft; none where it failed, was cut or is blank."""
    draft = record.result.draft
    if draft is None or draft.error or draft.finish != "stop" or not draft.text.strip():
        return np.zeros((0, 0), np.float32)
    return draft.top_logprobs


def _differs(draft: Record, agent: Record) -> bool:
    """True if the two say different things; a missing answer agrees with nothing."""
    return not same_answer(draft.result.answer, agent.result.answer, draft.choices)


def costs(
    records: Sequence[Record], blocks: Sequence[Block], clock: Clock = "wall"
) -> dict[str, float]:
    """Seconds that each query took of an arm, which sum to the arm's wall clock.

    With the clock "cpu" they are those that this process had of the processors: where models run on
    them, beside other programs, that is what a query costs.

    A block's clock is shared out by what its queries were charged while it ran (a batch's
    time is split equally over its rows), equally where nothing was noted.
    """
    walls = {block.key: seconds_of(block, clock) for block in blocks}
    groups: dict[tuple[str, int, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.phase, record.round, record.arm), []).append(record)
    spent: dict[str, float] = {}
    for key, group in groups.items():
        noted = [_noted(record) for record in group]
        total = sum(noted)
        for record, charged in zip(group, noted, strict=True):
            share = charged / total if total > 0 else 1 / len(group)
            spent[record.result.query_id] = share * walls[key]
    return spent


def seconds_of(block: Block, clock: Clock = "wall") -> float:
    """Seconds that an arm had for a round by a clock.

    Raises:
        InputError: The run is of before CPU seconds were noted.
    """
    if clock == "wall":
        return block.wall
    if block.cpu is None:
        raise InputError("this run noted no CPU seconds: go by the wall clock")
    return block.cpu


def _noted(record: Record) -> float:
    t = record.result.timings
    return sum(part or 0.0 for part in (t.judge, t.draft, t.gate, t.fallback))


def choose(
    found: Recorded,
    aggregate: Aggregate,
    top_k: int,
    loss: float = LOSS,
    judge: str = "large",
) -> float:
    """The loosest threshold that keeps the agent's accuracy but for `loss`; 1 where none does.

    Risk is controlled conformally (arXiv 2208.02814, eq. 4): with k of n queries lost, (k + 1) /
    (n + 1) may be at most `loss`, so that it is what other queries lose in expectation, not only
    these, among which the threshold was picked. Fewer queries than 1 / `loss` can't promise so
    little: none of them may be lost then, and others lose 1 / (n + 1) at most in expectation.

    Args:
        found: Recorded drafts.
        aggregate: Of the gate.
        top_k: Of the gate.
        loss: Accuracy that other queries may lose in expectation, as a share of all.
        judge: What it sends to the agent never gets to the gate.

    Raises:
        InputError: That judge's judgements were not recorded.
    """
    if judge not in found.through:
        raise InputError(f"the judge {judge!r} was not recorded: nothing to choose by")
    raw = found.scores(aggregate, top_k)
    use = found.through[judge] & ~np.isnan(raw)
    unit = np.array([to_unit(s, log=aggregate == "log") for s in raw[use].tolist()])
    lost = found.agent_right[use].astype(float) - found.right[use]
    levels, where = np.unique(unit, return_inverse=True)
    by_level = np.bincount(where, weights=lost, minlength=len(levels))
    # Strictest first; ties go together. What is won further down takes no loss back.
    lost_so_far = np.maximum.accumulate(np.cumsum(by_level[::-1]))
    n = len(found)
    good = np.flatnonzero((lost_so_far + 1) / (n + 1) <= max(loss, 1 / (n + 1)))
    if not len(good):
        return 1.0
    strict = levels[::-1]
    least = float(strict[good[-1]])
    if good[-1] + 1 == len(strict):
        return least
    # Halfway to the first that is rejected, so that no rounding decides.
    below = float(strict[good[-1] + 1])
    middle = (least + below) / 2
    return middle if below < middle < 1 else min(least, 1.0)


def chosen_thresholds(run: Run) -> dict[str, float]:
    """Each aggregate's threshold: the one given, or the one chosen on the calibration split.

    Behind the large judge; "min/small" and "min/none" are those behind the small one and none.
    Where drafts after a look were recorded there, also that of their gate, "deep", and those of
    a cascade, "cascade-1" and "cascade-2"; a drafter that is better left out has none. "min/draft"
    is that of drafts that may ask to look closer, "ladder" that of a ladder's first rung.
    """
    given, top_k = run.fixed["plan"]["threshold"], int(run.fixed["context"]["top_k"])
    chosen: dict[str, float] = dict.fromkeys(AGGREGATES, 0.0 if given is None else float(given))
    if given is None:
        found = recorded(run, CALIBRATION)
        chosen = {aggregate: choose(found, aggregate, top_k) for aggregate in AGGREGATES}
        # Another judge lets other drafts through, and the large one's threshold isn't theirs.
        chosen |= {
            f"min/{judge}": choose(found, "min", top_k, judge=judge)
            for judge in found.through
            if judge != "large"
        }
    ran = {b.arm for b in run.blocks if b.phase == CALIBRATION}
    if LOOK_DRAFT in ran:
        looking = _without_looks(run, recorded(run, CALIBRATION, LOOK_DRAFT))
        own = choose(looking, "min", top_k, judge="draft") if given is None else float(given)
        chosen["min/draft"] = own
    if LOW_DRAFT in ran:
        low = recorded(run, CALIBRATION, LOW_DRAFT)
        chosen["ladder"] = (
            choose(low, "min", top_k, judge="none") if given is None else float(given)
        )
    if DEEP in ran:
        deep = recorded(run, CALIBRATION, DEEP)
        chosen["deep"] = choose(deep, "min", top_k) if given is None else float(given)
        setting = _cascade(run, deep, top_k).setting
        chosen |= {
            f"cascade-{at}": to_unit(raw, log=False)
            for at, raw in enumerate(setting, 1)
            if raw is not None
        }
    return chosen


def _without_looks(run: Run, found: Recorded) -> Recorded:
    """Recorded drafts, of which those that ask to look closer never get to the gate: they are what
    the judge "draft" sends to the agent.
    """
    said = {
        r.result.query_id: r.result.draft
        for r in run.of(CALIBRATION, LOOK_DRAFT)
        if r.result.draft is not None
    }
    asks = [one in said and asks_to_look(said[one].text) for one in found.ids]
    return replace(found, through={**found.through, "draft": ~np.array(asks, bool)})


def _cascade(run: Run, deep: Recorded, top_k: int) -> Chosen:
    first = recorded(run, CALIBRATION)
    if first.ids != deep.ids:
        raise InputError(f"{run.folder}: the two draft arms have been through other queries")
    spent = []
    for name in (DRAFT, DEEP):
        blocks = [b for b in run.blocks if (b.phase, b.arm) == (CALIBRATION, name)]
        spent.append(sum(b.wall for b in blocks) / sum(b.n for b in blocks))
    return cascade_of((first, deep), tuple(spent), top_k)


def cascade_of(drafters: Sequence[Recorded], draft_s: tuple[float, ...], top_k: int) -> Chosen:
    """The thresholds of several drafters before the agent, chosen together, so that with
    confidence 90 % no more than `CASCADE_TARGET` of the answers by draft are wrong where the
    agent's are right.

    Args:
        drafters: The same queries, as each drafted them.
        draft_s: Seconds a draft of each.
        top_k: Of the gates.
    """
    through, keys = drafters[0].through["large"], drafters[0].image_keys
    harm = [one.agent_right & ~one.right for one in drafters]
    return choose_thresholds(
        RecordedDrafts(
            np.stack([one.scores("min", top_k)[through] for one in drafters], axis=1),
            np.stack([one[through] for one in harm], axis=1),
            draft_s,
            float(drafters[0].agent_s[through].mean()),
            None if keys is None else [keys[at] for at in np.flatnonzero(through).tolist()],
        ),
        target=CASCADE_TARGET,
        size=32,
    )


def outcome(
    found: Recorded,
    aggregate: Aggregate,
    top_k: int,
    threshold: float,
    judge: str = "large",
    *,
    judge_s: float = 0.0,
    draft_s: float = 0.0,
) -> dict[str, Any]:
    """Outcome of the funnel at these settings, from recorded drafts.

    Args:
        found: The recorded queries.
        aggregate: Of the gate.
        top_k: Of the gate.
        threshold: Of the gate, 0 to 1.
        judge: "large", "small" or "none".
        judge_s: Seconds a judged query.
        draft_s: Seconds a drafted query.

    Returns:
        `accuracy` with its interval, `accepted` (share of all queries), and `gain`, the speed
        over the agent alone by the cost model: judged + drafted + the agent's own seconds of
        those that fall back.
    """
    taken = found.accepted(aggregate, top_k, threshold, judge)
    graded = np.where(taken, found.right, found.agent_right)
    right, keys = int(graded.sum()), found.image_keys
    low, high = cluster_interval(graded, range(len(found)) if keys is None else keys)
    drafted = found.through[judge]
    spent = (
        (judge_s * len(found) if judge != "none" else 0.0)
        + draft_s * int(drafted.sum())
        + float(found.agent_s[~taken].sum())
    )
    return {
        "aggregate": aggregate,
        "top_k": top_k,
        "threshold": threshold,
        "judge": judge,
        "accuracy": right / len(found),
        "accuracy_low": low,
        "accuracy_high": high,
        "accepted": float(taken.mean()),
        "gain": float(found.agent_s.sum()) / spent if spent > 0 else None,
    }


def sweeps(
    found: Recorded,
    thresholds: Mapping[str, float],
    top_k: int,
    *,
    judge_s: float,
    draft_s: float,
) -> dict[str, list[dict[str, Any]]]:
    """Outcomes over thresholds for each aggregate, over K, and over judges.

    Args:
        found: The recorded queries.
        thresholds: Those that the run used.
        top_k: K of the run.
        judge_s: See `outcome`.
        draft_s: See `outcome`.
    """
    at = functools.partial(outcome, found, judge_s=judge_s, draft_s=draft_s)
    most = found.most_k
    ks = sorted({k for k in (*KS, top_k) if 3 <= k <= most})
    used = thresholds["min"]
    return {
        "threshold": [
            at(a, top_k, t)
            for a in AGGREGATES
            for t in sorted({*GRID, *((thresholds[a],) if a in thresholds else ())})
        ],
        "top_k": [at("min", k, used) for k in ks],
        "judge": [
            at("min", top_k, thresholds.get(f"min/{judge}", used), judge) for judge in found.through
        ],
    }
