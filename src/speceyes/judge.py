"""Phase I: does a query need tools?  (Sec. 3.2 of SpecEyes, arXiv 2603.23483.)

The paper lets the large model decide with one binary token. Here the decision is read from the
probabilities of that token, so that the threshold is a dial and one forward pass is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, final

from speceyes import prompts
from speceyes.dialects.plain import ask_plainly
from speceyes.errors import ConfigError, describe
from speceyes.images.reduced import reduced
from speceyes.models.rows import generate_rows
from speceyes.protocols import Dialect, Tool, VisionLanguageModel
from speceyes.texts import Texts
from speceyes.types import Completion, Conversation, Judgement, Query, Sampling

if TYPE_CHECKING:
    from speceyes.tools import Tools

PARITY_TOKENS = 10
"""New tokens that the research code lets its judge write."""

# Around the word: white space, the byte-level (U+0120, U+010A) and SentencePiece (U+2581) marks
# of raw tokens, and punctuation that some vocabularies join to it, as in '"Yes' or 'No.'.
_TEXTS = Texts(judge=prompts.JUDGE)

_AROUND = " \t\r\n\u00a0\u0120\u010a\u2581.,:;!?\"'`*()[]"


def tool_probability(first_token: Mapping[str, float], *, min_mass: float = 1e-3) -> float | None:
    """P(yes) / (P(yes) + P(no)) over every variant of the two words.

    A variant is a token that is exactly "yes" or "no" once case, white space, tokenizer marks
    and punctuation around it are taken off: " Yes", "NO.", "Ġno". A word that merely begins so
    ("not", "none", "yesterday") counts for neither.

    Args:
        first_token: Text to probability of what could come first.
        min_mass: Least P(yes) + P(no). Below it both words are in the model's far tail and
            their ratio says nothing.

    Returns:
        The probability in [0, 1] that tools are needed; None where it can't be read.

    Example:
        >>> tool_probability({"Yes": 0.25, " yes": 0.125, "no": 0.125, "not": 0.5})
        0.75
    """
    mass = {"yes": 0.0, "no": 0.0}
    for text, probability in first_token.items():
        word = text.strip(_AROUND).lower()
        if word in mass:
            mass[word] += probability
    yes, total = mass["yes"], mass["yes"] + mass["no"]
    if min(mass.values()) < 0 or not (math.isfinite(total) and total > 0 and total >= min_mass):
        return None
    return yes / total


NO_JUDGE: Final = "none"
"""Identity of a pipeline's judge where it has none."""
DRAFT_JUDGES: Final = "draft"
"""The same where the drafter itself says that it must look closer."""


def judge_identity(model: str, threshold: float = 0.5, max_pixels: int | None = None) -> str:
    """Identity of a judge: its model's name, its threshold, and the pixels that it judges by.

    Example:
        >>> judge_identity("large"), judge_identity("small", 0.5, 65536)
        ('large at 0.5', 'small at 0.5 on 65536 pixels')
    """
    on = "" if max_pixels is None else f" on {max_pixels} pixels"
    return f"{model} at {threshold:g}{on}"


def behind_ladder(judge: str, rungs: Iterable[tuple[int | None, float | None]]) -> str:
    """Identity of a judge with a ladder behind it, whose first drafts keep queries from the gate.

    Args:
        judge: The judge's.
        rungs: Pixels and threshold of each rung below the gate; None for all pixels, and for a gate
            of another kind.

    Example:
        >>> behind_ladder("none", [(3600, 0.9)]), behind_ladder("none", [])
        ('none, drafts on 3600 pixels from 0.9', 'none')
    """
    found = judge
    for pixels, threshold in rungs:
        found += f", drafts on {'all' if pixels is None else pixels} pixels"
        found += " by another gate" if threshold is None else f" from {threshold:.6g}"
    return found


@final
class ToolJudge:
    """Judges a batch of queries in one forward pass.

    Args:
        model: The judge; the paper takes the large model, which knows its tools best.
        threshold: Tools are needed where p(tools) >= threshold: 0 sends every query to the
            agent, 1 only those on which the judge has no doubt at all.
        dialect: The agent's dialect, whose beginning (system, tools, images, question) the
            judge's prompt then shares; None asks plainly, which suits the small model.
        texts: What it is told, `Texts.judge` and `judge_system`, or a file for `Texts.load`; None
            for the dialect's own.
        tools: The agent's tools, or whatever `Tools` makes them of; the dialect describes them to
            the judge.
        parity: Decide as the research code does: generate up to 10 tokens, and a text that
            begins with "no" in any case ("not sure" too) means no tools. The threshold is not
            used then, and p_tools is None.
        min_mass: See `tool_probability`.
        max_pixels: Most pixels of an image that it judges by; larger ones are shrunk, which makes
            judging cheaper. A large judge then reads another image than the agent does, so that
            the agent can't go on from what the judge has read. None for all that the model takes.

    Raises:
        ConfigError: threshold or min_mass is not in [0, 1], max_pixels is below 1, or the dialect
            or a tool is unknown.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> judge = ToolJudge(ScriptedModel("no"), dialect=None)
        >>> judge([Query("Is it day?", (Image.new("RGB", (64, 64)),))])[0].needs_tools
        False
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        threshold: float = 0.5,
        dialect: str | Dialect | None = "auto",
        texts: Texts | str | PathLike[str] | None = None,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] = (),
        parity: bool = False,
        min_mass: float = 1e-3,
        max_pixels: int | None = None,
    ) -> None:
        for name, value in (("threshold", threshold), ("min_mass", min_mass)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}={value}; it must be a probability, 0 to 1")
        if max_pixels is not None and max_pixels < 1:
            raise ConfigError(f"max_pixels={max_pixels}; it must be at least 1")
        from speceyes.dialects import dialect as dialect_named
        from speceyes.tools import Tools

        self.model = model
        self.max_pixels = max_pixels
        self.threshold = float(threshold)
        self.tools: tuple[Tool, ...] = tuple(tools if isinstance(tools, Tools) else Tools(tools))
        self.dialect: Dialect | None = None
        if dialect is not None:
            names = [tool.name for tool in self.tools]
            self.dialect = dialect_named(dialect, model, tools=names, texts=texts)
        own = Texts() if texts is None else texts if isinstance(texts, Texts) else Texts.load(texts)
        self.texts = own.over(_TEXTS)
        self.parity = parity
        self.min_mass = float(min_mass)
        self._sampling = (
            Sampling(max_tokens=PARITY_TOKENS)
            if parity
            else Sampling(max_tokens=1, first_token=True)
        )

    def __call__(self, queries: Sequence[Query]) -> list[Judgement]:
        """One judgement a query, in order. What can't be read means that tools are needed.

        Never raises for a query: a model that fails on one, or an answer that is neither yes
        nor no, is a `Judgement` with `needs_tools` and a reason.
        """
        judgements: dict[int, Judgement] = {}
        asked: list[tuple[int, Conversation]] = []
        for at, query in enumerate(queries):
            try:
                asked.append((at, self.conversation(query)))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                judgements[at] = Judgement(True, reason=f"could not be asked: {describe(exc)}")
        said = generate_rows(self.model, [c for _, c in asked], self._sampling)
        for (at, _), completion in zip(asked, said, strict=True):
            judgements[at] = self._read(completion)
        return [judgements[at] for at in range(len(queries))]

    @property
    def identity(self) -> str:
        """Model, threshold and pixels, which decide on what reaches the gate; a calibration keeps
        it.
        """
        return judge_identity(self.model.name, self.threshold, self.max_pixels)

    def conversation(self, query: Query) -> Conversation:
        """Conversation that the model is asked about a query."""
        query = reduced(query, self.max_pixels)
        if self.dialect is not None:
            return self.dialect.ask_judge(query, self.tools)
        return ask_plainly(
            query, self.texts.judge_system, self.texts.judge, self.model, thinking=False
        )

    def _read(self, completion: Completion) -> Judgement:
        if completion.error is not None or completion.finish == "error":
            reason = f"the judge failed: {completion.error or 'no reason given'}"
            return Judgement(True, None, completion, reason)
        if self.parity:
            return Judgement(not completion.text.lower().startswith("no"), None, completion)
        if not completion.first_token:
            reason = (
                "the model returned no first-token probabilities; "
                "use an engine that does, or parity=True to read the text"
            )
            return Judgement(True, None, completion, reason)
        p_tools = tool_probability(completion.first_token, min_mass=self.min_mass)
        if p_tools is None:
            reason = (
                f"neither yes nor no has a probability of {self.min_mass:g}; "
                f"the likeliest beginning is {_likeliest(completion.first_token)!r}"
            )
            return Judgement(True, None, completion, reason)
        return Judgement(p_tools >= self.threshold, p_tools, completion)


def _likeliest(first_token: Mapping[str, float]) -> str:
    return max(first_token, key=lambda text: first_token[text])
