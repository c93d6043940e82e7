"""Drivers of a model's rows, and the check that the faster one gives what plain `generate` gives.

The adapter of a model family leans on the inside of another package, which may change with any
release. So, before it is used, two short prompts go both ways. Where the adapter raises or
differs, the model is driven by `generate` from then on: a new release may cost speed, never
answers.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, final

import numpy as np
import torch
from PIL import Image as PILImage

from speceyes.bounded_cache import BoundedCache
from speceyes.models.hf.chat_prompt import Prompter
from speceyes.models.hf.continuous_batch import ContinuousBatch
from speceyes.models.hf.generate import Decoded, decode
from speceyes.models.hf.load import device_of, out_of_memory, reason
from speceyes.models.hf.prefix_cache import PrefixCache
from speceyes.models.hf.prompt_encoder import ComputeStats, PromptEncoder
from speceyes.models.hf.stopping import Detokenizer
from speceyes.types import Conversation, Image, Message, Sampling

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float16: 0.1, torch.bfloat16: 0.5}
"""How far top-K log-probabilities may be apart, in nats, by dtype; 1e-3 in all others. In half
precision the two ways round differently: they read prompts in other shapes."""
_EXACT = 1e-3
_TOKENS = 3
_TOP_K = 8
_ROOM = 1 << 30


@final
@dataclass(frozen=True, slots=True)
class Driver:
    """Driver of a model's rows, and the reason for it.

    Args:
        name: "qwen_vl_adapter" reads only what is new of a prompt and lets rows join and leave;
            "generate" is transformers' own loop.
        reason: Why it isn't the faster way; "" where it is.
        transformers: Version of transformers.
        torch: Version of torch.

    Example:
        >>> model.driver.name, model.driver.reason  # doctest: +SKIP
        ('generate', 'its image processor is not that of the Qwen-VL families')
    """

    name: Literal["qwen_vl_adapter", "generate"]
    reason: str
    transformers: str
    torch: str

    def __str__(self) -> str:
        why = f", since {self.reason}" if self.reason else ""
        return f"{self.name}{why} (transformers {self.transformers}, torch {self.torch})"


_OWN_LOOPS = frozenset(("JanusForConditionalGeneration",))
"""Classes whose own `generate` drops the logits processor by which scores are read."""


def undrivable_reason(model: Any) -> str:
    """Why no driver can ask a model; "" where one may.

    Args:
        model: The Hugging Face model.
    """
    if type(model).__name__ in _OWN_LOOPS:
        return "hands no scores to logits processors, so that no log-probabilities can be told"
    if getattr(model.config, "is_encoder_decoder", False):
        return "is an encoder-decoder, which doesn't go on with the text that it reads"
    return ""


def versions() -> str:
    """The packages that a model is run by, on one line."""
    return f"transformers {version('transformers')}, torch {version('torch')}"


@final
class Trial:
    """The adapter's check, run once for one set of weights and shared by all that use them.

    Args:
        name: The model's name, for the log.
        refused: Why there is no adapter to check; "" where there is.
    """

    def __init__(self, name: str, refused: str = "") -> None:
        self.refused = refused
        self.over = bool(refused)
        self._name = name
        self._lock = threading.Lock()

    def hold(self, check: Callable[[], str]) -> None:
        """Runs the check, unless it was run before.

        Args:
            check: Gives the reason against the adapter, or "". Where memory runs out in it,
                nothing is known, and it is run again another time.
        """
        with self._lock:
            if self.over:
                return
            try:
                against = check()
            except Exception as exc:  # noqa: BLE001 - whatever the adapter's inside raises
                if out_of_memory(exc):
                    return
                against = f"its check ended with {reason(exc)}"
            self.over = True
        if against:
            self.refuse(against)

    def refuse(self, against: str) -> None:
        """Gives the adapter up, and says so once."""
        if self.refused:
            return
        self.over, self.refused = True, against
        logger.warning(
            "%s is driven by plain generate from now on, since %s (%s): answers stay right, but "
            "every prompt is read anew",
            self._name,
            against,
            versions(),
        )


def trial_conversations(size: tuple[int, int]) -> list[Conversation]:
    """A short prompt without and one with an image.

    Args:
        size: (width, height) of the image.
    """
    width, height = size
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack((across, down, 255 - across), axis=2).astype(np.uint8)
    image: Image = PILImage.fromarray(pixels)
    return [
        Conversation((Message("user", content),)) for content in (("Hi.",), (image, "Colours?"))
    ]


def generated(
    model: Any,
    prompter: Prompter,
    detokenizer: Detokenizer,
    conversations: Sequence[Conversation],
) -> list[Decoded]:
    """A few tokens of each conversation by plain `generate`."""
    inputs, _ = prompter.batch([prompter.prompt(i, c) for i, c in enumerate(conversations)])
    return decode(
        model,
        inputs.to(device=device_of(model), dtype=model.dtype),
        _sampling(model),
        detokenizer,
        prompter.processor.tokenizer.pad_token_id,
        [None] * len(conversations),
    )


def check_adapter(
    model: Any, encoder: PromptEncoder, prompter: Prompter, detokenizer: Detokenizer
) -> str:
    """Why the adapter of a model is not to be trusted; "" where it gives what `generate` gives.

    A prompt with an image and one without are decoded for three tokens each both ways, and the
    one with the image once more by the adapter, from what it has kept. Call it in inference mode.

    Raises:
        Exception: Memory ran out, or the adapter's inside raised.
    """
    factor = encoder.pixels.factor
    # An image of the model's own size is resized by nobody: both ways get the same pixels.
    size = encoder.pixels.size(trial_conversations((6 * factor, 4 * factor))[1].images[0])
    conversations = trial_conversations(size)
    endless = Detokenizer(detokenizer.tokenizer, frozenset())
    try:
        wanted = generated(model, prompter, endless, conversations)
    except Exception as exc:
        if out_of_memory(exc):
            raise
        logger.warning(
            "the adapter could not be checked, since generate failed: %s (%s)",
            reason(exc),
            versions(),
        )
        return ""
    own = dataclasses.replace(
        encoder,
        features=BoundedCache(_ROOM, lambda f: f.bytes),
    )
    kept = PrefixCache(_ROOM)
    tolerance = TOLERANCE.get(model.dtype, _EXACT)
    for rows in ((0, 1), (1,)):
        batch = ContinuousBatch[int](own, kept, _sampling(model), endless, ComputeStats())
        prompts = [prompter.prompt(i, conversations[i], ready=False) for i in rows]
        done = dict(
            batch.add([(i, own.encode(p), None) for i, p in zip(rows, prompts, strict=True)])
        )
        while len(batch):
            done.update(batch.step())
        for i in rows:
            against = _difference(done[i], wanted[i], tolerance)
            if against:
                what = "a prompt with an image" if i else "a prompt of text"
                again = ", read in part from the cache," if rows == (1,) else ""
                return f"its adapter gives other answers to {what}{again} than generate: {against}"
    return ""


def _sampling(model: Any) -> Sampling:
    vocabulary = int(model.config.get_text_config().vocab_size)
    return Sampling(max_tokens=_TOKENS, top_k=min(_TOP_K, vocabulary))


def _difference(found: Decoded, wanted: Decoded, tolerance: float) -> str:
    """Difference of an answer from the wanted one; "" where it doesn't."""
    if not wanted.finite:
        return ""  # nothing can be said of numbers that overflow
    if not found.finite:
        return "scores are not finite"
    if len(found.ids) != len(wanted.ids):
        return f"{len(found.ids)} tokens in place of {len(wanted.ids)}"
    for at, (one, other) in enumerate(zip(found.ids, wanted.ids, strict=True)):
        top = wanted.top_logprobs[at]
        apart = float(np.abs(found.top_logprobs[at] - top).max())
        if not apart <= tolerance:
            return f"log-probabilities of token {at + 1} are {apart:.3g} apart"
        if one != other:
            # From here on they answer differently, which two equally likely tokens may cause.
            tied = len(top) > 1 and float(top[0] - top[1]) <= 2 * tolerance
            return "" if tied else f"token {at + 1} is {one} in place of {other}"
    return ""
