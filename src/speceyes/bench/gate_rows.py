"""Gates on recorded drafts of the bundled small model: what `gate_table` prints, as arrays.

Drafts are recorded once, on calibration scenes and on held-out ones. A gate's own parameters (K,
alpha) are the ones that rank the calibration drafts best, the mix is fitted on these, and what is
returned is of the held-out drafts. Costs are CPU seconds of the process, which other work on the
machine disturbs less than the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.answerer import SpeculativeAnswerer
from speceyes.evaluation.grading import is_correct
from speceyes.gate import SeparabilityGate
from speceyes.gates.consistency import ConsistentAnswerer, Reordered, Smaller
from speceyes.gates.deepconf import GroupConfidenceGate
from speceyes.gates.entropy import EntropyGate
from speceyes.gates.judged import JudgedAnswerer, JudgeGate
from speceyes.gates.logistic import fit_logistic
from speceyes.gates.margin import MarginGate
from speceyes.gates.probability_only import ProbabilityOnlyGate
from speceyes.judge import ToolJudge
from speceyes.protocols import VisionLanguageModel
from speceyes.scoring.ranking import auroc
from speceyes.tiny.scenes import Item, Split, questions
from speceyes.tools import Tools
from speceyes.types import Completion, Query, Verdict

Gate: TypeAlias = Callable[[Completion], Verdict]
Answerer: TypeAlias = Callable[[Sequence[Query]], Sequence[Completion]]
Floats: TypeAlias = npt.NDArray[np.float64]

RECORDED_K: Final = 32
_KS: Final = (3, 5, 9, 16, 32)
_ALPHAS: Final = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)


@final
@dataclass(frozen=True, slots=True)
class Recording:
    """Drafts of one answerer on the items of one split.

    Args:
        drafts: One an item.
        right: bool[n].
        kinds: Kind of each question.
        seconds: CPU seconds a draft.
    """

    drafts: tuple[Completion, ...]
    right: npt.NDArray[np.bool_]
    kinds: tuple[str, ...]
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A gate on the held-out drafts.

    Args:
        name: What it is called in the table.
        scores: float64[n], -inf where it gives none.
        right: bool[n].
        kinds: Kind of each question.
        draft_s: CPU seconds a draft that it can read takes.
        gate_s: CPU seconds a verdict takes.
    """

    name: str
    scores: Floats
    right: npt.NDArray[np.bool_]
    kinds: tuple[str, ...]
    draft_s: float
    gate_s: float


def record(
    answerers: Sequence[Answerer], split: Split, n: int, *, batch: int, with_choices: bool = False
) -> list[Recording]:
    """Drafts of each answerer on n items of a split, each scene being rendered once."""
    drafts: list[list[Completion]] = [[] for _ in answerers]
    right: list[list[bool]] = [[] for _ in answerers]
    seconds = [0.0] * len(answerers)
    kinds: list[str] = []
    for start in range(0, n, batch):
        size = min(batch, n - start)
        items: list[Item] = list(questions(split, size, start=start, with_choices=with_choices))
        queries = [item.query for item in items]
        kinds += [item.kind for item in items]
        for i, answerer in enumerate(answerers):
            began = time.process_time()
            said = answerer(queries)
            seconds[i] += time.process_time() - began
            drafts[i] += said
            right[i] += [
                is_correct(one.text, item.answer, item.query.choices, question=item.query.text)
                for one, item in zip(said, items, strict=True)
            ]
    return [
        Recording(tuple(drafts[i]), np.array(right[i]), tuple(kinds), seconds[i] / n)
        for i in range(len(answerers))
    ]


def scored(gate: Gate, drafts: Sequence[Completion]) -> Floats:
    """float64[n]: a gate's raw scores of drafts, -inf where it gives none."""
    raw = [gate(draft).separability for draft in drafts]
    return np.array([-np.inf if score is None else score for score in raw])


def best(gates: Sequence[Gate], seen: Recording) -> Gate:
    """The gate that ranks the calibration drafts best; the first of equals."""
    return max(gates, key=lambda gate: auroc(scored(gate, seen.drafts), seen.right))


def families() -> dict[str, list[Gate]]:
    """Each gate's candidates, of which the calibration drafts choose."""
    return {
        "min separability (default)": [SeparabilityGate(top_k=k) for k in _KS],
        "log-probability": [SeparabilityGate(top_k=1, aggregate="log")],
        "margin, p1 - p2": [MarginGate()],
        "margin, l1 - l2": [MarginGate(scale="log")],
        "entropy, renormalised": [EntropyGate(top_k=k) for k in _KS],
        "entropy, with the tail": [EntropyGate(top_k=k, tail="mass") for k in _KS],
        "DeepConf, lowest group": [GroupConfidenceGate(top_k=k) for k in _KS],
        "PRO, adaptive K": [
            ProbabilityOnlyGate(top_k=RECORDED_K, alpha=alpha) for alpha in _ALPHAS
        ],
    }


def row(name: str, gate: Gate, held: Recording) -> Row:
    """A gate on held-out drafts, with the time that its verdicts take."""
    began = time.process_time()
    scores = scored(gate, held.drafts)
    seconds = (time.process_time() - began) / len(held.drafts)
    return Row(name, scores, held.right, held.kinds, held.seconds, seconds)


def measure(
    small: Callable[[], VisionLanguageModel],
    large: VisionLanguageModel,
    *,
    n: int,
    calibration: int,
    batch: int,
    scale: float,
) -> tuple[list[Row], list[Row], dict[str, str]]:
    """Records and scores.

    Args:
        small: Makes the drafter. Each way of drafting has one of its own, so that none finds
            images that another has read already.
        large: The judge.
        n: Held-out queries.
        calibration: Calibration queries.
        batch: Queries a batch.
        scale: Of the second look's images.

    Returns:
        The rows on open questions, those on questions with options, and what was chosen and
        noted on the way. The first row of each is the default gate's.
    """

    def drafter() -> SpeculativeAnswerer:
        return SpeculativeAnswerer(small(), top_k=RECORDED_K)

    asking: list[Answerer] = [
        drafter(),
        JudgedAnswerer(drafter(), ToolJudge(large, tools=Tools(["zoom"]))),
        ConsistentAnswerer(drafter(), Smaller(scale)),
    ]
    plain, with_judge, _ = record(asking, "calibration", calibration, batch=batch)
    held, held_judge, held_twice = record(asking, "heldout", n, batch=batch)
    chosen = {name: best(gates, plain) for name, gates in families().items()}
    rows = [row(name, gate, held) for name, gate in chosen.items()]
    default = chosen["min separability (default)"]
    rows.append(row("judge's probability", JudgeGate(), held_judge))
    rows.append(row("two sizes agree + default", default, held_twice))
    alone = fit_logistic(list(chosen.values()), plain.drafts, plain.right)
    mixed = fit_logistic([*chosen.values(), JudgeGate()], with_judge.drafts, with_judge.right)
    rows.append(row("logistic mix of the above", alone, held))
    rows.append(row("logistic mix with the judge", mixed, held_judge))
    asking = [drafter(), ConsistentAnswerer(drafter(), Reordered())]
    one, two = record(asking, "heldout", n, batch=batch, with_choices=True)
    options = [
        row("min separability (default)", default, one),
        row("two orders agree + default", default, two),
    ]
    tokens = np.mean([len(draft.token_ids) for draft in held.drafts])
    disagree = sum("disagree" in (draft.error or "") for draft in held_twice.drafts)
    other = sum("disagree" in (draft.error or "") for draft in two.drafts)
    notes = {
        "chosen on the calibration drafts": "; ".join(
            f"{name}: {gate!r}" for name, gate in chosen.items()
        ),
        "tokens a draft": f"{tokens:.2f}",
        "drafts that are right": f"{held.right.mean():.3f}, with options {one.right.mean():.3f}",
        "cross-validated AUROC of the mixes": f"{alone.auroc:.4f}, with the judge "
        f"{mixed.auroc:.4f}",
        "disagreements": f"two sizes {disagree} of {n}, two orders {other} of {n}",
    }
    return rows, options, notes
