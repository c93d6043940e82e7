"""Base of the package's dialects: conversations out of texts and a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from speceyes import prompts
from speceyes.dialects._space import locate
from speceyes.dialects._talk import boxes, content_of, joined, reply, texts_in
from speceyes.dialects.profile import Profile
from speceyes.models.control_tokens import RESULT_TAGS, neutral, said_by_others
from speceyes.protocols import Tool
from speceyes.texts import Texts, fill, filled
from speceyes.types import Conversation, Image, Message, Observation, Query, ToolCall

OURS = Texts(
    system="",
    user="{question}\n{instruction}",
    instruction="",
    observation="{result}\n",
    again="{instruction}",
    error=prompts.OBSERVATION_ERROR,
    last_turn=prompts.LAST_TURN,
    direct=prompts.DIRECT,
    judge=prompts.JUDGE,
)
"""What a family's texts are laid over."""


_ANY, _NONE = Profile(), Texts()


@dataclass(frozen=True, slots=True)
class Family:
    """A dialect's profile and texts, and the conversations made of them.

    Args:
        profile: How the checkpoint is driven.
        texts: What is said instead of the family's own texts.
        known: Names of the tools there are; a bare JSON object is a call where it names one.
        seen_size: Says how large the model sees an image; None takes images for seen as they are.
    """

    own: ClassVar[Texts] = OURS

    profile: Profile = _ANY
    texts: Texts = _NONE
    known: tuple[str, ...] = ()
    seen_size: Callable[[Image], tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", self.texts.over(self.own.over(OURS)))

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a turn."""
        return self.profile.stop

    def open(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The agent's first conversation: system message, images, question, instruction."""
        return self._begin(query, tools, self.texts.system, self.texts.user)

    def ask_judge(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, with the judge's question instead of the instruction."""
        system = self.texts.judge_system
        system = self.texts.system if system is None else system
        return self._begin(query, tools, system, self.texts.judge, thinking=False)

    def ask_direct(self, query: Query, tools: Sequence[Tool]) -> Conversation:
        """The same beginning, asking for the answer at once."""
        return self._begin(query, tools, self.texts.system, self.texts.direct, thinking=False)

    def locate(
        self, call: ToolCall, images: Sequence[Image], seen: Sequence[tuple[int, int]]
    ) -> ToolCall:
        """Boxes and points from the profile's space to pixels of the images.

        Raises:
            ParseError: An image that is none so far, or numbers that can't be meant.
        """
        return locate(call, images, seen, self.profile, first=self.profile.first_image)

    def observe(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        *,
        last: bool,
    ) -> Conversation:
        """The model's turn, then its results where the profile has them."""
        where = self.profile.results
        if where == "tool" and observations:
            return self._tool_turns(conversation, text, observations, last)
        parts = self._results(conversation, text, observations, last)
        if where == "assistant":
            parts = [*conversation.begun, text, *parts]
            return replace(conversation, prefill=joined(parts))
        return reply(conversation, self._kept(text), parts)

    # --- what families may make otherwise ---------------------------------------------------

    def _listed(self, tools: Sequence[Tool]) -> tuple[str, tuple[Mapping[str, Any], ...]]:
        """The tools in words, and their schemas for the chat template; one of them is empty."""
        return "", ()

    def _told(self, query: Query, sizes: Sequence[tuple[int, int]]) -> Mapping[str, str]:
        """Further placeholders of a family's first turn."""
        return {}

    def _framed(self, images: Sequence[Image]) -> Sequence[str | Image]:
        """The question's images with what stands around them."""
        return images

    def _shown(self, seen: Observation) -> list[str | Image]:
        """A result's own texts and images."""
        return content_of(seen, self.profile, str(self.texts.error))

    def _template(self, text: str, seen: Observation) -> str:
        """Template of a result, the turn having said `text`."""
        template = str(self.texts.observation)
        about = "{number}" in template or "{width}" in template
        return template if seen.images or not about else "{result}\n"

    # --- the rest -----------------------------------------------------------------------------

    def _begin(
        self,
        query: Query,
        tools: Sequence[Tool],
        system: str | None,
        text: str | None,
        *,
        thinking: bool | None = None,
    ) -> Conversation:
        images = tuple(self.profile.first(image) for image in query.images)
        sizes = [self._seen(image) for image in images]
        words, schemas = self._listed(tools)
        values = {
            "question": said_by_others(query.text),
            "tools": words,
            "boxes": boxes(self.profile.scale),
            "images": ", ".join(f"{width}x{height}" for width, height in sizes),
            "width": str(sizes[0][0]),
            "height": str(sizes[0][1]),
            **self._told(query, sizes),
        }
        ask = filled(str(self.texts.instruction), **values)
        text, user = str(text), str(self.texts.user)
        if text != user and "{question}" not in text:
            ask, text = filled(text, **values), user
        said = filled(text, **{**values, "instruction": ask}).strip("\n")
        content = joined((*self._framed(images), said))
        before = filled(str(system or ""), **values)
        head = (Message("system", (before,)),) if before else ()
        return Conversation((*head, Message("user", content)), schemas, thinking=thinking)

    def _results(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        last: bool,
    ) -> list[str | Image]:
        texts = self.texts
        again = str(texts.last_turn) if last else str(texts.again)
        again = filled(again, instruction=str(texts.instruction))
        action = sum(message.role == "assistant" for message in conversation.messages)
        number = len(conversation.images) + self.profile.first_image
        parts: list[str | Image] = []
        untold = True
        for at, seen in enumerate(observations):
            shown, template = self._shown(seen), self._template(text, seen)
            pictures = [part for part in shown if isinstance(part, Image)]
            end = at == len(observations) - 1
            if self.profile.errors == "bare" and seen.error is not None and not seen.content:
                parts += [*shown, "\n"]
                untold = last
                continue
            untold = "{again}" not in template
            size = self._seen(pictures[0]) if pictures else (0, 0)
            values: dict[str, str | Sequence[str | Image]] = {
                "result": shown,
                "text": texts_in(self._shown(replace(seen, error=None))),
                "shown": pictures,
                "error": neutral(seen.error or "", RESULT_TAGS),
                "width": str(size[0]),
                "height": str(size[1]),
                "number": str(number),
                "action": str(action),
                "again": again if end else "",
            }
            parts += fill(template, values)
            number += len(pictures)
        if untold and again:
            if parts and isinstance(parts[-1], str) and not parts[-1].endswith("\n"):
                parts.append("\n")
            parts.append(again)
        if parts and isinstance(parts[-1], str):
            parts[-1] = parts[-1].rstrip("\n")
        return parts

    def _said(self, text: str, before: Conversation) -> Message:
        """The model's turn where results have turns of their own."""
        return Message("assistant", (self._kept(text),))

    def _tool_turns(
        self,
        conversation: Conversation,
        text: str,
        observations: Sequence[Observation],
        last: bool,
    ) -> Conversation:
        said = self._said(text, conversation)
        after = conversation.then(said)
        for at, seen in enumerate(observations):
            end = at == len(observations) - 1
            parts = self._results(after, text, [seen], last and end)
            call = said.calls[at].id if at < len(said.calls) else ""
            after = after.then(Message("tool", joined(parts), call_id=call))
        return after

    def _kept(self, text: str) -> str:
        """A turn as it stays in the conversation."""
        if self.profile.keep_reasoning:
            return text
        return text.rpartition("</think>")[2].lstrip("\n") or text

    def _seen(self, image: Image) -> tuple[int, int]:
        return image.size if self.seen_size is None else self.seen_size(image)
