"""SpecReason: the small model proposes each step, the large one scores it and may replace it.

Experimental: on the bundled pair it is slower than the agent alone. Its turns are a dozen tokens,
where the method is for hundreds, and its models see images at different sizes, so that no turn
with a box can be accepted (docs/strategies.md).

Pan et al., arXiv 2504.07891, is about steps of text; here a step is an agent's turn, and tools work
inside accepted steps as they do inside the large model's own. The SpecEyes paper runs it as a
baseline (Table 1: 0.37x to 0.61x), since every proposed step is one more pass of the large model.
"""

from __future__ import annotations

import dataclasses
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from speceyes import prompts
from speceyes.errors import ConfigError, ParseError
from speceyes.fallback import AgenticFallback
from speceyes.models.rows import generate_rows
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.protocols import Dialect, HasConfig, Tool, VisionLanguageModel, offers
from speceyes.types import Completion, Conversation, Image, Message, Result, Sampling

if TYPE_CHECKING:
    from speceyes.tools import Tools

ACCEPT = 7.0
"""Utility from which a step is accepted, of 0 to 9; as in the SpecEyes code's baseline."""
_PARITY_TOKENS = 8
_DIGIT = re.compile(r"(?<!\d)\d(?!\d)")


def utility(first_token: Mapping[str, float], *, min_mass: float = 1e-3) -> float | None:
    """The expected digit, 0 to 9, among the tokens that are one digit.

    Args:
        first_token: Text to probability of what could come first.
        min_mass: Least probability of all digits together; below it none was meant.

    Returns:
        None where no digit can be read.

    Example:
        >>> utility({"9": 0.5, " 7": 0.25, "Yes": 0.25})
        8.333333333333334
    """
    digits = {text: p for text, p in first_token.items() if _is_digit(text)}
    mass = sum(digits.values())
    if not (math.isfinite(mass) and mass > 0 and mass >= min_mass):
        return None
    return sum(int(text.strip(_AROUND)) * p for text, p in digits.items()) / mass


_AROUND = " \t\r\n\u00a0\u0120\u010a\u2581"


def _is_digit(text: str) -> bool:
    bare = text.strip(_AROUND)
    return len(bare) == 1 and bare in "0123456789"


@dataclass(frozen=True, slots=True)
class Steps:
    """Counts of the steps so far.

    Args:
        proposed: Turns that the small model wrote.
        accepted: Of these, how many the large one let stand.
        unread: Of these, how many got no score that could be read, and were replaced.
        unplaced: Of these, how many called tools while the two models see images at other sizes,
            so that their boxes would be misread, and were replaced.
        small_tokens: Tokens that the small model decoded, in vain or not.
        large_tokens: Tokens that the large model decoded, a score's included.
    """

    proposed: int = 0
    accepted: int = 0
    unread: int = 0
    unplaced: int = 0
    small_tokens: int = 0
    large_tokens: int = 0


@final
class SpecReason:
    """Runs an agent whose turns the small model proposes. Experimental; see the module.

    Args:
        large: Scores each turn, and writes those that it doesn't accept.
        small: Proposes. It must know the dialect, or nothing that it proposes can be used.
        tools: What may be called.
        dialect: How turns are written.
        accept: Least utility, 0 to 9, of a turn that stands.
        parity: Read the score from up to 8 tokens of text, as the published code does, instead of
            from the probabilities of the ten digits in one pass.
        max_steps: Most turns; None for the profile's.
        max_tokens: Most new tokens a turn; None for the profile's.
        max_batch: Most trajectories alive at once.

    Raises:
        ConfigError: accept is not within 0 to 9.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> large = ScriptedModel({"0 to 9": "8", "": "<answer>blue</answer>"})
        >>> run = SpecReason(large, ScriptedModel("<answer>red</answer>"), tools=["zoom"])
        >>> run([(Image.new("RGB", (64, 64)), "Which colour?")])[0].answer, run.steps.accepted
        ('red', 1)
    """

    def __init__(
        self,
        large: VisionLanguageModel,
        small: VisionLanguageModel,
        *,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] = ("zoom",),
        dialect: str | Dialect = "auto",
        accept: float = ACCEPT,
        parity: bool = False,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_batch: int = 16,
    ) -> None:
        if not 0 <= accept <= 9:
            raise ConfigError(f"accept={accept}; it must be within 0 to 9, the scale of scores")
        self._model = _Proposing(large, small, accept, parity)
        self.fallback = AgenticFallback(
            self._model,
            tools=tools,
            dialect=dialect,
            max_steps=max_steps,
            max_tokens=max_tokens,
            max_batch=max_batch,
        )
        self._model.dialect = self.fallback.dialect
        self._pipe = SpecPipeline(
            fallback=self.fallback, schedule=ScheduleConfig(batch_size=max_batch, overlap=False)
        )

    def __call__(self, queries: Iterable[Any]) -> list[Result]:
        """One result a query, in order; a query is what `SpecPipeline` takes as one."""
        return self._pipe(list(queries))

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results as they finish; see `SpecPipeline.stream`."""
        return self._pipe.stream(queries)

    @property
    def steps(self) -> Steps:
        """Counts of all steps so far."""
        return self._model.steps


@final
class _Proposing:
    """Two models as one: each turn is the small one's where the large one lets it stand."""

    def __init__(
        self, large: VisionLanguageModel, small: VisionLanguageModel, accept: float, parity: bool
    ) -> None:
        self._large, self._small = large, small
        self._accept, self._parity = accept, parity
        self.dialect: Dialect | None = None
        self.steps = Steps()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._large.name

    @property
    def config(self) -> Any:
        return self._large.config if offers(self._large, HasConfig) else None

    def seen_size(self, image: Image) -> tuple[int, int]:
        """As the large one sees it; see `_placed`."""
        return self._large.seen_size(image)

    def _placed(self, conversation: Conversation, turn: str) -> bool:
        """True where the turn has no boxes, or both models see the images at one size."""
        if all(self._large.seen_size(i) == self._small.seen_size(i) for i in conversation.images):
            return True
        assert self.dialect is not None
        try:
            return not self.dialect.parse(turn).calls
        except ParseError:
            return True  # no call that could be misread

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """The turn of each conversation."""
        drafts = generate_rows(self._small, conversations, sampling)
        # A turn that failed or was cut off is the large one's from the beginning.
        spoken = [i for i, draft in enumerate(drafts) if draft.finish == "stop" and draft.text]
        whole = [i for i in spoken if self._placed(conversations[i], drafts[i].text)]
        asked = [_scoring(conversations[i], drafts[i].text) for i in whole]
        ask = (
            Sampling(max_tokens=_PARITY_TOKENS)
            if self._parity
            else Sampling(max_tokens=1, first_token=True)
        )
        said = generate_rows(self._large, asked, ask) if asked else []
        scores = dict(zip(whole, map(self._read, said), strict=True))
        stand = {i for i, score in scores.items() if score is not None and score >= self._accept}
        own = [i for i in range(len(conversations)) if i not in stand]
        turns = generate_rows(self._large, [conversations[i] for i in own], sampling)
        with self._lock:
            before = self.steps
            self.steps = Steps(
                proposed=before.proposed + len(conversations),
                accepted=before.accepted + len(stand),
                unread=before.unread + sum(score is None for score in scores.values()),
                unplaced=before.unplaced + len(spoken) - len(whole),
                small_tokens=before.small_tokens + sum(len(d.token_ids) for d in drafts),
                large_tokens=before.large_tokens + sum(len(c.token_ids) for c in (*said, *turns)),
            )
        done = {i: drafts[i] for i in stand} | dict(zip(own, turns, strict=True))
        return [done[i] for i in range(len(conversations))]

    def _read(self, said: Completion) -> float | None:
        if said.error is not None:
            return None
        if not self._parity:
            return utility(said.first_token)
        found = _DIGIT.search(said.text)
        return None if found is None else float(found[0])


def _scoring(conversation: Conversation, turn: str) -> Conversation:
    """The large model's question about a turn."""
    said = Message("assistant", (*conversation.begun, turn))
    bare = dataclasses.replace(conversation, prefill="")
    return bare.then(said, Message("user", (prompts.STEP_SCORE,)))
