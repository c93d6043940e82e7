"""One-pass rivals: other models that answer at once, and if the funnel is worth it beside them.

Models such as ZwZ, Metis or AdaTooler are trained to need no tools, or fewer. Where one of them is
as accurate as the funnel and faster, it is the better choice, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, final

from speceyes import prompts
from speceyes.dialects.plain import ask_plainly
from speceyes.errors import InputError, describe
from speceyes.evaluation.rounds import ratio
from speceyes.evaluation.runs import Record
from speceyes.evaluation.statistics import mcnemar_clusters
from speceyes.models.rows import generate_rows
from speceyes.protocols import VisionLanguageModel
from speceyes.strategies.verification import answered
from speceyes.texts import Texts
from speceyes.types import Completion, Query, Result, Sampling, Step, Trajectory

PREFIX: Final = "one-pass="
"""What the name of such an arm begins with; its model follows."""
SURE: Final = 0.05
"""P-value below which two arms' accuracies count as different."""


def title(name: str) -> str:
    """Name of the arm in tables.

    Example:
        >>> title("one-pass=inclusionAI/ZwZ-8B"), title("one-pass=http://host:8000/v1#zwz")
        ('one pass, ZwZ-8B', 'one pass, zwz')
    """
    model = name.removeprefix(PREFIX).rstrip("/")
    return f"one pass, {model.rpartition('#')[2] if '#' in model else model.rpartition('/')[2]}"


@final
class OnePass:
    """A model by itself: asked as the drafter is, and let finish.

    Args:
        model: Answers.
        texts: See `Texts.draft`, `draft_choice` and `draft_system`, or a file of them; None for
            our own.
        bare: Send questions without an instruction below, where they bring their own.
        max_tokens: Most new tokens of an answer, reasoning included.
        batch_size: Queries that are answered together.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        texts: str | None = None,
        bare: bool = False,
        max_tokens: int = 1024,
        batch_size: int = 16,
    ) -> None:
        own = Texts() if texts is None else Texts.load(texts)
        if bare:
            own = Texts(draft="", draft_choice="").over(own)
        self._texts = own.over(Texts(draft=prompts.DRAFT, draft_choice=prompts.CHOICE))
        self._model, self._batch_size = model, batch_size
        self._sampling = Sampling(max_tokens=max_tokens)

    def stream(self, queries: Iterable[Query]) -> Iterator[Result]:
        """Results in order, a batch at a time."""
        source = iter(queries)
        while batch := list(islice(source, self._batch_size)):
            yield from map(_result, batch, self._said(batch))

    def _said(self, batch: Sequence[Query]) -> list[Completion]:
        texts, found, asked = self._texts, [Completion.failed("not asked")] * len(batch), []
        for at, query in enumerate(batch):
            text = texts.draft_choice if query.choices else texts.draft
            try:
                asked.append((at, ask_plainly(query, texts.draft_system, text, self._model)))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                found[at] = Completion.failed(f"could not be asked: {describe(exc)}")
        said = generate_rows(self._model, [c for _, c in asked], self._sampling)
        for (at, _), completion in zip(asked, said, strict=True):
            found[at] = completion
        return found


def _result(query: Query, said: Completion) -> Result:
    good = answered(said)
    error = None if good else said.error or f"no complete answer: it ended by {said.finish}"
    step = Step(said.text, (), (), len(said.token_ids), said.prompt_tokens, said.error)
    answer = said.text.strip() if good else None
    way = Trajectory((step,), answer, "answered" if good else "error", error)
    return Result(query.id, answer, "agent" if good else "error", trajectory=way, error=error)


def compared(by_arm: Mapping[str, Sequence[Record]], funnel: str | None) -> dict[str, Any]:
    """The funnel against each one-pass arm on the same questions.

    Args:
        by_arm: Records by arm.
        funnel: The funnel's arm; None where there is none.

    Returns:
        For each one-pass arm the questions that `only_funnel` and `only_rival` answered rightly,
        and `p` of the exact McNemar test, by images.
    """
    if funnel is None:
        return {}
    right = {r.result.query_id: r.correct for r in by_arm[funnel]}
    found = {}
    for name, rows in by_arm.items():
        if not name.startswith(PREFIX):
            continue
        only_funnel = sum(right[r.result.query_id] and not r.correct for r in rows)
        only_rival = sum(r.correct and not right[r.result.query_id] for r in rows)
        p = mcnemar_clusters(
            [right[r.result.query_id] for r in rows],
            [r.correct for r in rows],
            [r.image_key or r.result.query_id for r in rows],
        )
        found[name] = {
            "funnel": funnel,
            "only_funnel": only_funnel,
            "only_rival": only_rival,
            "p": p,
        }
    return found


def gains(
    by_arm: Mapping[str, Sequence[Record]],
    spent: Mapping[str, Mapping[str, float]],
    funnel: str | None,
) -> dict[str, Any]:
    """Speed of the funnel over each one-pass arm, by rounds, with its interval."""
    found: dict[str, Any] = {}
    for name in (a for a in by_arm if a.startswith(PREFIX) and funnel is not None):
        rounds: dict[int, list[str]] = {}
        for row in by_arm[name]:
            rounds.setdefault(row.round, []).append(row.result.query_id)
        sums = [
            [sum(spent[arm][i] for i in ids) for ids in rounds.values()]
            for arm in (name, str(funnel))
        ]
        try:
            found[name] = ratio(*sums)
        except InputError:  # nothing took any time
            found[name] = None
    return found


def sentences(found: Mapping[str, Any]) -> list[str]:
    """A sentence on each one-pass arm: is the funnel worth it beside simply another model?

    Args:
        found: What `analysis.figures` gives.
    """
    lines = []
    for name, pair in found.get("rivals", {}).items():
        funnel, rival = found["arms"][pair["funnel"]], found["arms"][name]
        gain = found["time"]["rivals"][name]
        facts = (
            f"Beside {title(name).removeprefix('one pass, ')}, which answers in one pass: "
            f"{funnel['accuracy']:.1%} right against its {rival['accuracy']:.1%} (only the funnel "
            f"on {pair['only_funnel']}, only the other on {pair['only_rival']}, p = "
            f"{pair['p']:.2g})"
        )
        speed = "" if gain is None else f", at {gain[0]:.2f} times its speed"
        lines.append(f"{facts}{speed}. **{_advice(pair, gain)}**")
    return lines


def _advice(pair: Mapping[str, Any], gain: Sequence[float | None] | None) -> str:
    sure = pair["p"] < SURE
    low, high = (None, None) if gain is None else gain[1:]
    faster = low is not None and low > 1
    slower = high is not None and high < 1
    if sure and pair["only_funnel"] > pair["only_rival"]:
        cost = "and faster" if faster else "and slower" if slower else "at no shown cost of time"
        return f"The funnel is more accurate {cost}: it is worth it beside this model."
    if sure:
        if faster:
            return "This model is more accurate, the funnel faster: choose by what counts more."
        return "This model is more accurate and the funnel not faster: take the model."
    if faster:
        return "No difference in accuracy is shown and the funnel is faster: it is worth it."
    if slower:
        return "No difference in accuracy is shown and this model is faster: take the model."
    return "No difference is shown, in accuracy or speed: the model alone is simpler."
