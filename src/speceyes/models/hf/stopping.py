"""When a row of a batch is finished, and what it said: end-of-sequence ids and stop strings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from speceyes.errors import ConfigError
from speceyes.types import Finish

logger = logging.getLogger(__name__)

_TURN_END = "<|im_end|>"
_BROKEN = "\ufffd"


def _ids(value: Any) -> set[int]:
    if value is None:
        return set()
    if isinstance(value, int):
        return {value}
    return {int(item) for item in value}


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer.

    The generation config, the model's config and the tokenizer each name some, and don't
    always agree: Qwen checkpoints end a turn with `<|im_end|>` while their text config names
    `<|endoftext|>`. All of them count, and `<|im_end|>` wherever it is a token.
    """
    found: set[int] = set()
    config = model.config
    for source in (model.generation_config, config, config.get_text_config(), tokenizer):
        found |= _ids(getattr(source, "eos_token_id", None))
    if _TURN_END in tokenizer.get_vocab():
        found.add(int(tokenizer.convert_tokens_to_ids(_TURN_END)))
    return frozenset(found)


@final
@dataclass(frozen=True, slots=True)
class Detokenizer:
    """A tokenizer, as far as reading a model's answer needs one.

    Args:
        tokenizer: The processor's tokenizer.
        ends: The ids that end an answer; see `end_ids`.
    """

    tokenizer: Any
    ends: frozenset[int]
    special: dict[int, str] = field(init=False)
    _pieces: dict[int, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        ids = sorted(self.tokenizer.all_special_ids)
        names = self.tokenizer.convert_ids_to_tokens(ids)
        object.__setattr__(self, "special", dict(zip(ids, names, strict=True)))

    def text(self, ids: Sequence[int]) -> str:
        """The ids as text, without special tokens."""
        # Tidying spaces would make a part of an answer read other than the whole.
        decoded: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded

    def piece(self, token: int) -> str:
        """One id as text; "" for a special token, U+FFFD for a part of a character."""
        if token not in self._pieces:
            self._pieces[token] = self.text([token])
        return self._pieces[token]

    def first_token(self, ids: Sequence[int], chances: Sequence[float]) -> dict[str, float]:
        """Probabilities by text, likeliest first; ids of the same text are summed."""
        found: dict[str, float] = {}
        for token, probability in zip(ids, chances, strict=True):
            text = "" if token in self.special or token in self.ends else self.piece(token)
            if text:
                found[text] = found.get(text, 0.0) + probability
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@final
@dataclass(frozen=True, slots=True)
class StopStrings:
    """Finds stop strings in a growing answer at the cost of a look-up for most tokens.

    Only a token with a stop string's last character in it can complete that string, so only
    then is text decoded, and of that only the tail: as many tokens as the longest stop string
    has bytes, since each token that isn't special stands for one byte at least.

    Args:
        strings: The stop strings; none may be empty.
        detokenizer: The tokenizer.
        after: Closes a reasoning block, in which they don't count; see `Sampling.stop_after`.

    Raises:
        ConfigError: A stop string is empty.
    """

    strings: tuple[str, ...]
    detokenizer: Detokenizer
    after: str = ""
    tokens: dict[int, str] = field(init=False)
    window: int = field(init=False)
    _last: frozenset[str] = field(init=False)
    _always: bool = field(init=False)

    def __post_init__(self) -> None:
        if "" in self.strings:
            raise ConfigError("stop holds an empty string, which would stop every answer at once")
        # A stop string that is itself a special token never shows in the text.
        tokens = {t: name for t, name in self.detokenizer.special.items() if name in self.strings}
        object.__setattr__(self, "tokens", tokens)
        longest = max((len(s.encode()) for s in self.strings), default=0)
        object.__setattr__(self, "window", longest + 4)  # and what is left of a cut character
        object.__setattr__(self, "_last", frozenset(s[-1] for s in self.strings))
        # Some tokenizers drop white space that stands alone, so it can't be looked up.
        object.__setattr__(self, "_always", any(s[-1].isspace() for s in self.strings))

    def begins(self, tail: str) -> bool:
        """True where a prompt that ends so has begun a reasoning block, and not closed it."""
        opening = _opening(self.after)
        return bool(opening) and tail.rfind(opening) > tail.rfind(self.after)

    def _from(self, text: str, begun: bool) -> int | None:
        """The place from which stop strings count; None while a reasoning block is open."""
        if not self.after:
            return 0
        end = text.find(self.after)
        if end >= 0:
            return end + len(self.after)
        opening = _opening(self.after)
        return None if begun or (opening and opening in text) else 0

    def met(self, ids: Sequence[int], *, begun: bool = False) -> bool:
        """True where the last of `ids` completes a stop string.

        Args:
            ids: The answer so far.
            begun: The prompt left a reasoning block open.
        """
        if not self.strings:
            return False
        if ids[-1] in self.tokens:
            return not self.after or self._from(self.detokenizer.text(ids), begun) is not None
        piece = self.detokenizer.piece(ids[-1])
        if not (self._always or _BROKEN in piece or any(c in self._last for c in piece)):
            return False
        tail: list[int] = []
        for token in reversed(ids):
            if token not in self.detokenizer.special:
                tail.append(token)
                if len(tail) == self.window:
                    break
        text = self.detokenizer.text(tail[::-1])
        if not any(string in text for string in self.strings):
            return False
        if not self.after:
            return True
        text = self.detokenizer.text(ids)
        start = self._from(text, begun)
        return start is not None and any(string in text[start:] for string in self.strings)

    def cut(self, ids: Sequence[int], *, begun: bool = False) -> str:
        """The text of an answer that met a stop string, up to and with that string."""
        text = self.detokenizer.text(ids)
        start = self._from(text, begun) or 0
        if ids and ids[-1] in self.tokens:
            return text + self.tokens[ids[-1]]
        ends = [text.find(s, start) + len(s) for s in self.strings if s in text[start:]]
        return text[: min(ends)] if ends else text


def _opening(closing: str) -> str:
    """The tag that a closing one belongs to; "" where it is no tag."""
    return "<" + closing[2:] if closing.startswith("</") else ""


@dataclass(slots=True)
class Row:
    """One row while it is being decoded. Each row ends on its own.

    Args:
        ids: The answer so far, the end-of-sequence token left out.
        finish: None while it goes on.
        begun: The prompt left a reasoning block open; see `Sampling.stop_after`.
    """

    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    begun: bool = False
    _met: bool = False

    def take(
        self, token: int, ends: frozenset[int], stops: StopStrings, *, lost: bool = False
    ) -> bool:
        """Adds a token; returns whether the row is finished.

        Args:
            token: Its id.
            ends: Ids that end an answer, and are no part of it.
            stops: Strings that end an answer.
            lost: The token alone rejects the answer, unless it is its end.
        """
        if self.finish is None:
            if token in ends:
                self.finish = "stop"
            else:
                self.ids.append(token)
                if stops.met(self.ids, begun=self.begun):
                    self.finish, self._met = "stop", True
                elif lost:
                    self.finish = "rejected"
        return self.finish is not None

    def text(self, stops: StopStrings) -> str:
        """Text, cut right after the stop string where one was met."""
        if self._met:
            return stops.cut(self.ids, begun=self.begun)
        return stops.detokenizer.text(self.ids)
