"""Phase II: a small model drafts the answers, statelessly.  (Sec. 3.3, arXiv 2603.23483.)

With tools it may look before it drafts (D >= 1, which the paper leaves to future work); see
docs/depth.md.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, final

from speceyes import prompts
from speceyes.dialects.plain import ask_plainly
from speceyes.drafting.rule import DEPTH, DepthRule
from speceyes.errors import ConfigError, describe
from speceyes.images.reduced import reduced
from speceyes.judge import ToolJudge
from speceyes.models.rows import generate_rows
from speceyes.protocols import ChecksTopK, Dialect, HasTexts, Tool, VisionLanguageModel, offers
from speceyes.scoring.scores import raw_scores
from speceyes.texts import Texts, fingerprint
from speceyes.types import Completion, Conversation, Floor, Judgement, Query, Sampling

if TYPE_CHECKING:
    from speceyes.tools import Tools

_TEXTS = Texts(draft=prompts.DRAFT, draft_choice=prompts.CHOICE, draft_look=prompts.DRAFT_LOOK)
_AROUND = " \t\r\n.,:;!?\"'`*()[]"

_log = logging.getLogger(__name__)

_NOT_ASKED = Completion.failed("not asked")


def asks_to_look(text: str) -> bool:
    """True for an answer that says nothing but "look closer", in any case and punctuation.

    Example:
        >>> asks_to_look("Look closer."), asks_to_look("look closer at the sign")
        (True, False)
    """
    return " ".join(text.strip(_AROUND).lower().split()) == prompts.LOOK_CLOSER


@final
class SpeculativeAnswerer:
    """Drafts a batch of answers, each with its top-K log-probabilities.

    Without `max_depth` it uses no tools and takes no turns. With it, a query whose draft should
    go deeper is looked at by the same model with tools; it is drafted again with what was seen
    behind its images, and of its drafts the best separated one is kept.

    Args:
        model: The small model.
        top_k: K, how many log-probabilities are kept for each token; the gate's K.
        max_tokens: Most new tokens; 20 in the research code (1024 for models that think first).
            A draft that needs more is cut, and the gate rejects it.
        system: System prompt; None sends none. It, and the next two, stand before `texts`.
        prompt: Instruction below an open question.
        choice_prompt: Instruction below a question with choices.
        texts: What it is told, `Texts.draft`, `draft_choice` and `draft_system`, or a file for
            `Texts.load`; None for our own.
        thinking: Let a thinking model reason before it drafts, which needs max_tokens for it;
            otherwise its reasoning block is closed.
        tools: What the model may look with: a `Tools` registry, or whatever one is made of.
        max_depth: Most turns with a tool call before a draft; 0 drafts at once. Experimental:
            on the bundled models depth saves no time (docs/depth.md).
        together: How many boxes are proposed in the first of these turns, each drafted from by
            itself; see `speceyes.drafting.Looks`.
        rule: Which drafts go deeper; None lets all of them. It must belong to the gate that
            judges the drafts.
        dialect: How the model writes calls; "auto" picks by its name and config.
        look_tokens: Most new tokens of a turn with a call.
        may_look: Let the model say "look closer" instead of answering, which counts as "tools are
            needed": judge and draft in one pass.
        max_pixels: Most pixels of an image that it drafts from; larger ones are shrunk. The
            dial between cost and what can be seen: vision tokens, and so most of a draft's
            time, grow with it. None for all that the model itself takes.

    Raises:
        ConfigError: A number is out of range, there are no tools for max_depth, the dialect
            or a tool is unknown, or an engine returns fewer than top_k log-probabilities.

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
        prompt: str | None = None,
        choice_prompt: str | None = None,
        texts: Texts | str | PathLike[str] | None = None,
        thinking: bool = False,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] | None = None,
        max_depth: int = 0,
        together: int = 1,
        rule: DepthRule | None = None,
        dialect: str | Dialect = "auto",
        look_tokens: int = 128,
        max_pixels: int | None = None,
        may_look: bool = False,
    ) -> None:
        for name, value in (
            ("max_pixels", 1 if max_pixels is None else max_pixels),
            ("top_k", top_k),
            ("max_tokens", max_tokens),
            ("together", together),
            ("look_tokens", look_tokens),
        ):
            if value < 1:
                raise ConfigError(f"{name}={value}; it must be at least 1")
        if offers(model, ChecksTopK):  # or every draft fails later, one by one
            model.check_top_k(top_k)
        self.model = model
        self.top_k = top_k
        self.max_tokens = max_tokens
        given = Texts(draft_system=system, draft=prompt, draft_choice=choice_prompt)
        if texts is not None:
            given = given.over(texts if isinstance(texts, Texts) else Texts.load(texts))
        self.texts = given.over(_TEXTS)
        self.thinking = thinking
        self._sampling = Sampling(max_tokens=max_tokens, top_k=top_k)
        self.max_depth = max_depth
        self.together = together
        self.rule = rule
        self.look_tokens = look_tokens
        self.max_pixels = max_pixels
        self.may_look = may_look
        self.tools: Tools | None = None
        self.dialect: Dialect | None = None
        if max_depth:
            self._check_depth(tools)
            from speceyes.dialects import dialect as dialect_named
            from speceyes.tools import Tools

            assert tools is not None
            self.tools = tools if isinstance(tools, Tools) else Tools(tools)
            self.dialect = dialect_named(dialect, model)

    def _check_depth(self, tools: object) -> None:
        if self.max_depth < 0:
            raise ConfigError(f"max_depth={self.max_depth}; it must be 0 (draft at once) or more")
        if tools is None:
            raise ConfigError(
                f"max_depth={self.max_depth} without tools: pass tools, such as ['zoom']"
            )
        if self.top_k < 3:
            raise ConfigError(
                f"top_k={self.top_k}; drafts of several depths are compared by their "
                "separability, which needs at least 3"
            )

    @property
    def prompt_hash(self) -> str:
        """Fingerprint (16 hex digits) of the prompts, the size of images, and how it looks
        where it may: scores calibrated under others don't carry over.
        """
        texts = self.texts
        asked = [texts.draft_system or "", texts.draft or "", texts.draft_choice or ""]
        if self.thinking:
            asked.append("thinking")
        if self.max_pixels is not None:
            asked.append(f"max_pixels {self.max_pixels}")
        if self.may_look:
            asked.append(f"may look {texts.draft_look or ''}")
        if self.tools is not None and self.dialect is not None:
            names = ",".join(tool.name for tool in self.tools)
            asked.append(f"{self.max_depth} {self.together} {self.dialect.name} {names}")
            own: object = self.dialect.texts if offers(self.dialect, HasTexts) else None
            if isinstance(own, Texts):
                asked.append(own.fingerprint)
        return fingerprint(*asked)

    def __call__(
        self,
        queries: Sequence[Query],
        *,
        floor: Floor | None = None,
    ) -> list[Completion]:
        """One completion a query, in order; a query on which the model fails gets one with
        `error`.

        Args:
            queries: One batch.
            floor: Drafts may end, with finish "rejected", at the first token below it, at any
                depth.
        """
        sampling = self._sampling
        if floor is not None and floor.top_k <= sampling.top_k:
            sampling = dataclasses.replace(sampling, floor=floor)
        drafts: list[Completion] = []
        asked: list[tuple[int, Conversation]] = []
        for at, query in enumerate(queries):
            drafts.append(_NOT_ASKED)
            try:
                asked.append((at, self.conversation(query)))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                drafts[at] = Completion.failed(f"could not be asked: {describe(exc)}")
        said = generate_rows(self.model, [c for _, c in asked], sampling)
        for (at, _), draft in zip(asked, said, strict=True):
            drafts[at] = draft
        if self.max_depth:
            self._deepen(queries, drafts, sampling)
        return drafts

    def _deepen(
        self, queries: Sequence[Query], drafts: list[Completion], sampling: Sampling
    ) -> None:
        """Puts better separated drafts in the place of those that should go deeper."""
        deeper = [at for at, draft in enumerate(drafts) if self._deepens(draft)]
        if not deeper:
            return
        found = self._deeper([queries[at] for at in deeper], sampling)
        for at, (depth, draft) in zip(deeper, found, strict=True):
            if draft is not None and self._score(draft) > self._score(drafts[at]):
                drafts[at] = draft.noted(DEPTH, depth)

    def _deeper(
        self, queries: Sequence[Query], sampling: Sampling
    ) -> list[tuple[int, Completion | None]]:
        """(its depth, the best separated draft of what was seen) of each query; None where
        nothing was seen, or no draft was made of it.
        """
        # Imported late: a draft at once needs no tools. Made here, for `self.model` may have been
        # exchanged since, and `Looks` keeps nothing of a run.
        from speceyes.drafting.looks import Looks

        assert self.tools is not None and self.dialect is not None
        looks = Looks(
            self.model,
            tools=self.tools,
            dialect=self.dialect,
            max_depth=self.max_depth,
            together=self.together,
            max_tokens=self.look_tokens,
        )
        asked: list[tuple[int, int, Conversation]] = []
        for at, (query, seen) in enumerate(zip(queries, looks(queries), strict=True)):
            for images in seen:
                try:
                    whole = dataclasses.replace(query, images=(*query.images, *images))
                    asked.append((at, len(images), self.conversation(whole)))
                except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                    _log.warning("a deeper draft could not be asked: %s", describe(exc))
        said = generate_rows(self.model, [c for _, _, c in asked], sampling)
        best: list[tuple[int, Completion | None]] = [(0, None)] * len(queries)
        for (at, depth, _), draft in zip(asked, said, strict=True):
            before = best[at][1]
            if before is None or self._score(draft) > self._score(before):
                best[at] = (depth, draft)
        return best

    def judgement(self, draft: Completion) -> Judgement | None:
        """Judgement that a draft holds: tools are needed where it asks for a closer look. None
        without `may_look`, and of a draft that failed, which the gate rejects anyway.

        Example:
            >>> from speceyes.models.scripted import ScriptedModel
            >>> answerer = SpeculativeAnswerer(ScriptedModel("red"), may_look=True)
            >>> answerer.judgement(Completion("Look closer.")).needs_tools
            True
        """
        if not self.may_look or draft.error is not None:
            return None
        if asks_to_look(draft.text):
            return Judgement(True, reason="the drafter asks for a closer look")
        return Judgement(False)

    def on(self, max_pixels: int) -> SpeculativeAnswerer:
        """This answerer, drafting at once from images of at most so many pixels."""
        return SpeculativeAnswerer(
            self.model,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            texts=self.texts,
            thinking=self.thinking,
            max_pixels=max_pixels,
            may_look=self.may_look,
        )

    def judge(
        self, *, threshold: float = 0.5, max_pixels: int | None = None, parity: bool = False
    ) -> ToolJudge:
        """A judge by the same model whose reading serves the draft as well: images, system text
        and question come first in both, and only the instruction below differs.

        Args:
            threshold: See `ToolJudge`.
            max_pixels: See `ToolJudge`; None for the drafter's own. Another size than the
                drafter's makes both read images of their own.
            parity: See `ToolJudge`.
        """
        texts = self.texts
        if texts.judge_system is None:
            texts = dataclasses.replace(texts, judge_system=texts.draft_system)
        return ToolJudge(
            self.model,
            threshold=threshold,
            dialect=None,  # it was not trained as the agent: it knows nothing of its system text
            texts=texts,
            parity=parity,
            max_pixels=self.max_pixels if max_pixels is None else max_pixels,
        )

    def _deepens(self, draft: Completion) -> bool:
        if draft.error is not None or asks_to_look(draft.text):
            return False
        try:
            return self.rule is None or self.rule(draft)
        except Exception as exc:  # noqa: BLE001 - a draft that can't be judged stays as it is
            _log.warning("the depth rule failed: %s", describe(exc))
            return False

    def _score(self, draft: Completion) -> float:
        """Score by which drafts of a query are compared; -inf for what no gate would accept."""
        if draft.error is not None or draft.finish == "length" or not draft.text.strip():
            return -math.inf
        if self.rule is not None:
            return self.rule.score(draft)
        [found] = raw_scores([draft.top_logprobs], self.top_k)
        return -math.inf if math.isnan(found) else float(found)

    def conversation(self, query: Query) -> Conversation:
        """Conversation that the model is asked about a query: images, question, instruction."""
        texts = self.texts
        text = texts.draft_choice if query.choices else texts.draft
        if self.may_look:
            text = "\n".join(part for part in (text, texts.draft_look) if part)
        thinking = None if self.thinking else False
        seen = reduced(query, self.max_pixels)
        return ask_plainly(seen, texts.draft_system, text, self.model, thinking=thinking)
