"""Phase II: a small model drafts the answers, statelessly.  (Sec. 3.3, arXiv 2603.23483.)"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from typing import final

from speceyes import prompts
from speceyes.errors import ConfigError
from speceyes.isolation import describe, generate_isolated
from speceyes.values import (
    Completion,
    Conversation,
    Floor,
    Message,
    Query,
    Sampling,
    Session,
    VisionLanguageModel,
)

_log = logging.getLogger(__name__)


@final
class SpeculativeAnswerer:
    """Drafts a batch of answers without tools or turns, each with its top-K log-probabilities.

    Args:
        model: The small model.
        top_k: K, how many log-probabilities are kept for each token; the gate's K.
        max_tokens: Most new tokens; 20 in the research code (1024 for models that think first).
            A draft that needs more is cut, and the gate rejects it.
        system: System prompt; None sends none.
        prompt: Instruction below an open question.
        choice_prompt: Instruction below a question with choices.

    Raises:
        ConfigError: top_k or max_tokens is below 1.

    Example:
        >>> from PIL import Image
        >>> from speceyes.models.scripted import ScriptedModel
        >>> answerer = SpeculativeAnswerer(ScriptedModel("red"), top_k=8)
        >>> answerer([Query("Which colour?", (Image.new("RGB", (64, 64)),))])[0].text
        'red'
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        top_k: int = 64,
        max_tokens: int = 20,
        system: str | None = None,
        prompt: str = prompts.DRAFT,
        choice_prompt: str = prompts.CHOICE,
    ) -> None:
        for name, value in (("top_k", top_k), ("max_tokens", max_tokens)):
            if value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        self.model = model
        self.top_k = top_k
        self.max_tokens = max_tokens
        self.system = system
        self.prompt = prompt
        self.choice_prompt = choice_prompt
        self._sampling = Sampling(max_tokens=max_tokens, top_k=top_k)

    @property
    def prompt_hash(self) -> str:
        """Fingerprint (16 hex digits) of the prompts: scores calibrated under other prompts
        don't carry over.
        """
        return prompts.fingerprint(self.system or "", self.prompt, self.choice_prompt)

    def __call__(
        self,
        queries: Sequence[Query],
        *,
        floor: Floor | None = None,
        unwanted: Callable[[], Collection[int]] | None = None,
    ) -> list[Completion]:
        """One completion a query, in order; a query on which the model fails gets one with
        `error`.

        Args:
            queries: One batch.
            floor: Drafts may end, with finish "rejected", at the first token below it.
            unwanted: Asked before every token for the places of queries whose drafts nobody
                wants any more; these end at once, with `error`. Without effect where the model
                has no `session`.
        """
        sampling = self._sampling
        if floor is not None and floor.top_k <= sampling.top_k:
            sampling = dataclasses.replace(sampling, floor=floor)
        drafts: dict[int, Completion] = {}
        asked: list[tuple[int, Conversation]] = []
        for at, query in enumerate(queries):
            try:
                asked.append((at, self.conversation(query)))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                drafts[at] = Completion.failed(f"could not be asked: {describe(exc)}")
        begin = None if unwanted is None else getattr(self.model, "session", None)
        session: Session | None = begin(sampling) if callable(begin) else None
        if session is not None and unwanted is not None:
            drafts.update(_while_wanted(session, asked, unwanted))
            asked = [(at, conversation) for at, conversation in asked if at not in drafts]
        said = generate_isolated(self.model, [c for _, c in asked], sampling)
        drafts.update((at, completion) for (at, _), completion in zip(asked, said, strict=True))
        return [drafts[at] for at in range(len(queries))]

    def conversation(self, query: Query) -> Conversation:
        """What the model is asked about a query: images, question, instruction."""
        instruction = self.choice_prompt if query.choices else self.prompt
        user = Message("user", (*query.images, f"{query.text}\n{instruction}"))
        before = (Message("system", (self.system,)),) if self.system is not None else ()
        return Conversation((*before, user))


def _while_wanted(
    session: Session,
    asked: Sequence[tuple[int, Conversation]],
    unwanted: Callable[[], Collection[int]],
) -> dict[int, Completion]:
    """Completions by place; a place that is missing was not completed, and is to be tried again."""
    done: dict[int, Completion] = {}
    for at, conversation in asked:
        session.add(at, conversation)
    try:
        while len(session):
            for at in unwanted():
                if at not in done:
                    session.drop(at)
                    done[at] = Completion.failed("given up: the judge wants tools")
            done.update(session.step())
    except Exception as exc:  # noqa: BLE001 - it promised not to; the rows are told apart
        _log.warning("the session failed (%s); going on without", describe(exc))
    finally:
        session.close()
    return done
