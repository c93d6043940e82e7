"""Local weights: any Hugging Face `AutoModelForImageTextToText` and its processor."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
import torch

from speceyes.bounded_cache import BoundedCache
from speceyes.errors import ConfigError, PromptError, SpecEyesError, fault_of
from speceyes.models._seed import row_seed
from speceyes.models.hf.chat_prompt import Prompt, Prompter
from speceyes.models.hf.continuous_batch import ContinuousBatch, compiled
from speceyes.models.hf.device import Device
from speceyes.models.hf.driver import (
    Driver,
    Trial,
    check_adapter,
    generated,
    trial_conversations,
    undrivable_reason,
    versions,
)
from speceyes.models.hf.generate import Decoded, decode
from speceyes.models.hf.load import device_of, load, out_of_memory, reason, short_name
from speceyes.models.hf.pixels import QwenPixels, pixels_of
from speceyes.models.hf.prefix_cache import PrefixCache
from speceyes.models.hf.prompt_encoder import ComputeStats, EncodedPrompt, PromptEncoder
from speceyes.models.hf.prompt_length import PromptLength
from speceyes.models.hf.qwen_vl_adapter import Features, QwenVLAdapter, unsupported_reason
from speceyes.models.hf.revision import revision_of
from speceyes.models.hf.session import ContinuousSession, Host
from speceyes.models.hf.stopping import Detokenizer, StopStrings, end_ids
from speceyes.models.rows import DEFECTS
from speceyes.protocols import Session
from speceyes.types import Completion, Conversation, Image, Sampling

logger = logging.getLogger(__name__)

_DEFAULT_CACHE = 1 << 30
_SCORED = 8
"""Rows whose answers are scored together: logits of all their tokens are there at once."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A conversation ready to be run: encoded for the adapter, or as a prompt for `generate`.

    Args:
        index: Its place in the call.
        tokens: Of its prompt; for `generate` about so many.
    """

    index: int
    conversation: Conversation
    tokens: int
    encoded: EncodedPrompt | None = None
    prompt: Prompt | None = None


@final
class HFModel:
    """A vision-language model with local weights, called on batches of conversations.

    Rows of a batch are left-padded, and each gives what it would give alone, up to the
    rounding of the arithmetic. A row that can't be prepared or run becomes a `Completion` with
    `error`; its neighbours are run again without it. When memory runs out the batch is halved,
    and later ones are kept to the smaller size. One object may be called from several threads;
    they take turns.

    Args:
        model: The model, on its device, in the dtype it shall run in.
        processor: Its processor, with an image processor, a tokenizer and a chat template.
            It is not changed.
        name: Names the model in results and calibrations; default: the checkpoint's name.
        max_batch: Most rows in one forward pass. Default: 32 on the CPU; on CUDA as many as the
            memory that earlier batches took says there is room for, starting from 4. In either
            case a batch that runs out of memory is halved.
        cache_bytes: Memory, on the model's device, for what was read before: beginnings of
            conversations (three quarters) and features of images (one quarter), the least
            recently used given up first. 0 reads everything anew; default: 1 GiB on the CPU,
            an eighth of the memory on CUDA. Only the Qwen-VL families are driven this way;
            others say once in the log that they are not.
        reference: Work as the paper's code does: every call hands all of its text and images
            to the processor and to `model.generate` anew, and keeps the logits of all steps
            and the whole vocabulary until it ends. The yardstick of `speceyes bench`.
        compile: Decode with `torch.compile`, on CUDA in CUDA graphs, over a few fixed shapes.
            The first step of each shape takes 10 s to a minute; pays where many queries follow.
            Without effect where rows are not driven by tokens.
        template_kwargs: Arguments of the chat template, such as `{"enable_thinking": False}`.

    Raises:
        ConfigError: The processor lacks a part, max_batch is below 1 or cache_bytes below 0.

    Example:
        >>> from speceyes.models import HFModel
        >>> from speceyes.types import Conversation, Message, Sampling
        >>> model = HFModel.from_pretrained("Qwen/Qwen3-VL-2B-Instruct")  # doctest: +SKIP
        >>> turn = Message("user", (image, "What colour is the collar?"))  # doctest: +SKIP
        >>> model.generate([Conversation((turn,))], Sampling(top_k=64))[0].text  # doctest: +SKIP
        'Red'
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        name: str | None = None,
        max_batch: int | None = None,
        cache_bytes: int | None = None,
        reference: bool = False,
        compile: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if cache_bytes is not None and cache_bytes < 0:
            raise ConfigError(f"cache_bytes={cache_bytes}; it must be 0 (off) or more")
        if max_batch is not None and max_batch < 1:
            raise ConfigError(f"max_batch={max_batch}; it must be at least 1 row")
        if why := undrivable_reason(model):
            raise ConfigError(
                f"{type(model).__name__} {why}: docs/backbones.md lists the families that can be "
                "driven"
            )
        for part in ("image_processor", "tokenizer"):
            if getattr(processor, part, None) is None:
                raise ConfigError(
                    f"the processor ({type(processor).__name__}) has no {part}: pass what "
                    "AutoProcessor.from_pretrained gives for a vision-language checkpoint"
                )
        self._model = model
        self._processor = processor
        self._is_reference = reference
        self._source = str(getattr(model, "name_or_path", "") or "")
        self._name = name or short_name(self._source or type(model).__name__)
        where = device_of(model)
        on_cuda = where.type == "cuda"
        self._device = Device(self._name, where, max_batch)
        self._pixels = pixels_of(processor.image_processor)
        self._prompter = Prompter(processor, self._pixels, dict(template_kwargs or {}))
        self._pad_id: int = processor.tokenizer.pad_token_id
        self._detokenizer = Detokenizer(processor.tokenizer, end_ids(model, processor.tokenizer))
        config = model.config.get_text_config()
        self._vocabulary: int = config.vocab_size
        self._longest: int | None = getattr(config, "max_position_embeddings", None)
        self._length = PromptLength(self._prompter, self._longest)
        self._stats = ComputeStats()
        if cache_bytes is None:
            cache_bytes = _DEFAULT_CACHE
            if on_cuda:
                cache_bytes = torch.cuda.get_device_properties(where).total_memory // 8
        self._features = BoundedCache[bytes, Features](cache_bytes // 4, lambda f: f.bytes)
        self._prefixes = PrefixCache(cache_bytes - cache_bytes // 4)
        self._encoder, refused = None, "reference=True"
        if not reference:
            self._encoder, refused = self._made_encoder()
        self._trial = Trial(self._name, refused)
        self._broken = ""
        self._compiled = compiled(model) if compile and self._encoder is not None else None
        self._spare: list[Any] = []

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        max_batch: int | None = None,
        cache_bytes: int | None = None,
        compile: bool = False,
        name: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        token: str | bool | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **model_kwargs: Any,
    ) -> HFModel:
        """A model by its Hugging Face id or from a directory.

        A model of a family that isn't driven by the adapter is tried on one short prompt, so
        that one that can't be run is refused here and not query by query.

        Args:
            name_or_path: "Qwen/Qwen3-VL-2B-Instruct", a directory with config.json, or one with
                a LoRA adapter, which the package peft loads upon its base model.
            device: "cuda", "cuda:1", "cpu", "mps"; default: CUDA where there is one, else CPU.
                Not used with `device_map`.
            dtype: A torch dtype or its name, or "auto" for the checkpoint's own; default:
                float32 on the CPU, on CUDA bfloat16 where the GPU has it, else float16.
            attn_implementation: "sdpa", "flash_attention_2", "eager"; default: transformers' own.
            max_batch: See `HFModel`.
            cache_bytes: See `HFModel`.
            compile: See `HFModel`.
            name: Names the model in results and calibrations; default: the id, or the
                directory's last part.
            template_kwargs: See `HFModel`.
            revision: Branch, tag or commit on the Hub.
            local_files_only: Never download.
            trust_remote_code: Run code that comes with the checkpoint. Off by default: it can
                do anything to this machine.
            token: For gated checkpoints; default: that of `hf auth login`.
            min_pixels: Fewest pixels of an image after resizing; default: the checkpoint's own.
                For the families that count pixels only, as Qwen-VL does.
            max_pixels: Most pixels, likewise: the first means to save memory and time.
            **model_kwargs: Passed on to the model's `from_pretrained`, such as `device_map` or
                `quantization_config`. A model spread over several devices is driven by
                `generate`.

        Raises:
            ConfigError: The checkpoint can't be loaded, or not onto this device, or the model
                can't be run.
        """
        if attn_implementation is not None:
            model_kwargs["attn_implementation"] = attn_implementation
        source = os.fspath(name_or_path)
        common = {
            "revision": revision,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
            "token": token,
        }
        net, processor = load(
            source,
            device=device,
            dtype=dtype,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            common={key: value for key, value in common.items() if value is not None},
            model_kwargs=model_kwargs,
        )
        try:
            model = cls(
                net,
                processor,
                name=name or short_name(source),
                max_batch=max_batch,
                cache_bytes=cache_bytes,
                compile=compile,
                template_kwargs=template_kwargs,
            )
            model._check_prompts(source)
        except SpecEyesError:
            raise
        except Exception as exc:
            raise ConfigError(
                f"{source!r} is of a kind that can't be driven ({type(net).__name__}: "
                f"{reason(exc)}): docs/backbones.md lists the families that can"
            ) from exc
        if model._encoder is None:
            model._examine()
        if model._broken:
            raise ConfigError(f"{source!r}: {model._broken}; docs/backbones.md lists what can be")
        return model

    def _check_prompts(self, source: str) -> None:
        """Makes one prompt with a picture ready, without running the model.

        Raises:
            ConfigError: The chat template or the processor can't; each query would fail.
        """
        trial = trial_conversations((224, 160))[1:]
        try:
            self._prompter.batch([self._prompter.prompt(0, trial[0])])
        except Exception as exc:
            if out_of_memory(exc):
                return
            raise ConfigError(
                f"{source!r} can't be asked about a picture ({reason(exc)}): its chat template, "
                "tokenizer and image processor must be those of one vision-language checkpoint"
            ) from exc

    def _made_encoder(self) -> tuple[PromptEncoder | None, str]:
        """The prompt encoder with its adapter; or None, and why there is none."""
        if not isinstance(self._pixels, QwenPixels):
            why = "its image processor is not that of the Qwen-VL families"
            logger.info("%s is driven by generate, since %s", self._name, why)
            return None, why
        adapter = None
        try:
            against = unsupported_reason(self._model) or ""
            if not against:
                adapter = QwenVLAdapter(self._model)
        except Exception as exc:  # noqa: BLE001 - whatever another release of its package raises
            against = reason(exc)
        if adapter is None:
            logger.warning(
                "%s is driven by plain generate, since %s (%s): every prompt is read anew",
                self._name,
                against,
                versions(),
            )
            return None, against
        encoder = PromptEncoder(adapter, self._processor, self._pixels, self._features)
        return encoder, ""

    @property
    def _driven(self) -> PromptEncoder | None:
        """The prompt encoder where the adapter drives the rows; checks it at its first use."""
        encoder = self._encoder
        if encoder is None:
            return None
        self._trial.hold(lambda: self._against(encoder))
        return None if self._trial.refused else encoder

    def _against(self, encoder: PromptEncoder) -> str:
        with self._device.turn():
            return check_adapter(self._model, encoder, self._prompter, self._detokenizer)

    @property
    def driver(self) -> Driver:
        """Driver of the rows, and why. The adapter is checked now, if it wasn't yet."""
        by: Literal["qwen_vl_adapter", "generate"]
        by = "generate" if self._driven is None else "qwen_vl_adapter"
        return Driver(by, self._trial.refused, version("transformers"), version("torch"))

    @property
    def name(self) -> str:
        """Names the model in results and calibrations."""
        return self._name

    @functools.cached_property
    def revision(self) -> str | None:
        """Revision of the weights: a commit on the Hub, or a fingerprint of local files; None for
        a model that was made in memory. A calibration keeps it.
        """
        return revision_of(self._model, self._source)

    @property
    def net(self) -> Any:
        """The transformers model; what is changed in it is not seen by what was read before (see
        `forget`).
        """
        return self._model

    @property
    def processor(self) -> Any:
        """The transformers processor, with image processor, tokenizer and chat template."""
        return self._processor

    @property
    def config(self) -> Any:
        """The model's configuration, as transformers has it."""
        return self._model.config

    def prompt(self, conversation: Conversation) -> Prompt:
        """Prompt of a conversation as the model reads it: the text that the chat template writes,
        the answer's beginning included, and its images as the processor gets them.

        Raises:
            ModelError: The template can't write this conversation.
        """
        return self._prompter.prompt(0, conversation)

    @property
    def chat_template(self) -> str:
        """The template that writes conversations, in Jinja; the default one, if it has several."""
        processor = self._prompter.processor
        template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
        return str(template["default"] if isinstance(template, dict) else template)

    @property
    def device(self) -> torch.device:
        """Where the weights are; the first of them, if they are spread over several."""
        return device_of(self._model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def max_batch(self) -> int:
        """Most rows in one forward pass now; shrinks when memory runs out."""
        return self._device.rows()

    @property
    def spent(self) -> ComputeStats:
        """Computation so far: tokens read, reused, decoded, and padding. Counted for
        the families that are driven by tokens only.
        """
        return dataclasses.replace(self._stats)

    @property
    def kept_bytes(self) -> int:
        """Memory in use for what was read before, prefixes and features of images together; at
        most `cache_bytes`.
        """
        return self._prefixes.used + self._features.used

    def sharing(
        self,
        *,
        cache_bytes: int | None = None,
        reference: bool = False,
        compile: bool | None = None,
    ) -> HFModel:
        """Another model on the same weights, with settings of its own; see `HFModel`. Called from
        several threads, all that share weights take turns.
        """
        other = HFModel(
            self._model,
            self._processor,
            name=self._name,
            max_batch=self.max_batch if self._device.fit is None else None,
            cache_bytes=cache_bytes,
            reference=reference,
            compile=self._compiled is not None if compile is None else compile,
            template_kwargs=self._prompter.template_kwargs,
        )
        # Passes of one set of weights get in each other's way: it keeps positions.
        other._device.lock = self._device.lock
        if other._encoder is not None and self._encoder is not None:
            other._trial = self._trial
        return other

    def reference(self) -> HFModel:
        """The same weights under `reference=True`."""
        return self.sharing(cache_bytes=0, reference=True)

    def piece(self, token: int) -> str:
        """A token as text; "" for a special one, U+FFFD for a part of a character."""
        return self._detokenizer.piece(token)

    def prepare(self, images: Sequence[Image]) -> None:
        """Shrinks images ahead of a call that shows them.

        Never raises for an image: the call itself says what is wrong with it. May be called
        from another thread while the model is at work.
        """
        if self._encoder is not None:
            with contextlib.suppress(Exception):
                self._encoder.prepare(images)

    def forget(self) -> None:
        """Gives up what is kept of images and conversations."""
        self._prefixes.clear()
        self._features.clear()
        self._spare.clear()

    def seen_size(self, image: Image) -> tuple[int, int]:
        """(width, height) in pixels of the image as the model sees it, after its resizing.

        For the Qwen families it is computed without touching a pixel. For others the processor
        is run once for each size of image; where it cuts images into tiles, so that no one
        size describes what is seen, it is the image's own size.

        Raises:
            ImageError: The model can't see such an image: it is far too long and thin.
        """
        return self._pixels.size(image)

    def too_long(self, conversation: Conversation) -> str | None:
        """The reason for which a conversation is above the model's context; None where it may
        fit. Neither the model nor a pixel is touched for it. May be called beside everything else.

        Args:
            conversation: What would be asked.
        """
        n = self._length.above(conversation)
        return None if n is None else self._length_reason(f"at least {n}")

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion a conversation, in order.

        With a temperature, row i draws from a generator seeded with `sampling.seed` and i, so
        that the draws are the same however the batch is cut, and equal conversations in one
        call get different answers.

        Raises:
            ConfigError: `sampling` asks for what no row can have: more log-probabilities than
                the vocabulary has tokens, or an empty stop string.
        """
        sampling = self._checked(sampling)
        if self._broken:
            return [Completion.failed(self._broken) for _ in conversations]
        done: dict[int, Completion] = {}
        order: Sequence[int] = range(len(conversations))
        if len(order) > self.max_batch:
            # Prompts of like length share a batch, which saves padding.
            order = sorted(order, key=lambda i: self._prompter.length(conversations[i]))
        start = 0
        while start < len(order):
            chunk = order[start : start + self.max_batch]
            start += len(chunk)
            rows: list[_Row] = []
            for index in chunk:
                try:
                    rows.append(self._row(index, conversations[index]))
                except Exception as exc:  # noqa: BLE001  (it ends this row, whatever it is)
                    why = f"the prompt can't be made: {reason(exc)}"
                    done[index] = Completion.failed(why, fault_of(exc))
            self._run([row for row in rows if row.encoded is not None], sampling, done)
            self._run([row for row in rows if row.encoded is None], sampling, done)
        if done and all(one.error and one.fault is None for one in done.values()):
            self._examine()
        return [done[index] for index in range(len(conversations))]

    def session(self, sampling: Sampling) -> Session | None:
        """Conversations that join and leave on their own, or None where this model can't: it
        isn't driven by tokens, or rows are drawn, which depends on their places in a call.
        """
        if sampling.temperature > 0 or self._broken or self._driven is None:
            return None
        sampling = self._checked(sampling)
        return ContinuousSession(
            Host(
                batch=lambda: self._batch(sampling),
                encode=self._encoded,
                alone=lambda conversations: self.generate(conversations, sampling),
                completion=lambda row, n: self._completion(row, n, sampling),
                device=self._device,
                max_tokens=sampling.max_tokens,
                shrink=self._shrink,
            )
        )

    @property
    def tells_likelihoods(self) -> bool:
        """True where `likelihoods` can tell any."""
        return self._driven is not None

    def likelihoods(
        self, conversations: Sequence[Conversation], answers: Sequence[str]
    ) -> list[float | None]:
        """Log-likelihood of an answer to each conversation, in one pass over it.

        Args:
            conversations: What is asked.
            answers: What is answered, one each.

        Returns:
            The mean log-probability of the answer's tokens in nats; None where an answer is
            blank, or its conversation can't be read, or the model isn't driven by tokens.
        """
        found: list[float | None] = [None] * len(conversations)
        if self._driven is None:
            return found
        rows: list[tuple[int, EncodedPrompt, list[int]]] = []
        for at, (conversation, answer) in enumerate(zip(conversations, answers, strict=True)):
            with contextlib.suppress(Exception):
                tokenizer = self._processor.tokenizer
                said = tokenizer(answer.strip(), add_special_tokens=False)["input_ids"]
                if said:
                    rows.append((at, self._encoded(conversation), said))
        rows.sort(key=lambda row: len(row[1].ids) + len(row[2]))
        for start in range(0, len(rows), _SCORED):
            some = rows[start : start + _SCORED]
            with self._device.turn():
                likely = self._batch(Sampling()).likelihoods([row[1:] for row in some])
            for (at, _, _), values in zip(some, likely, strict=True):
                mean = float(values.mean())
                found[at] = mean if math.isfinite(mean) else None
        return found

    @property
    def tells_attention(self) -> bool:
        """True where `attended` works."""
        return self._driven is not None

    def attended(
        self, conversations: Sequence[Conversation], said: Sequence[Sequence[int]], lead: str
    ) -> list[npt.NDArray[np.float32] | None]:
        """Attention to what was said, from the token about to be decoded.

        Args:
            conversations: What was asked.
            said: The n tokens that it said to each, as in `Completion.token_ids`.
            lead: What stands between the last token and where it goes on.

        Returns:
            float32[layers, heads, n] each: the attention, 0 to 1, from the end of the lead to
            each token; None where a conversation can't be read or nothing was said.

        Raises:
            ConfigError: This model can't tell.
        """
        if self._driven is None:
            raise ConfigError(
                f"{self._name} can't tell what it attends to: only models of the Qwen-VL families "
                "that are not under reference=True can"
            )
        found: list[npt.NDArray[np.float32] | None] = [None] * len(conversations)
        behind = self._processor.tokenizer(lead, add_special_tokens=False)["input_ids"]
        rows: list[tuple[int, int, EncodedPrompt]] = []
        for at, (asked, ids) in enumerate(zip(conversations, said, strict=True)):
            with contextlib.suppress(Exception):
                prompt = self._encoded(asked)
                if ids:
                    rows.append((at, len(prompt.ids), prompt.followed([*ids, *behind])))
        rows.sort(key=lambda row: len(row[2].ids))
        for start in range(0, len(rows), _SCORED):
            some = rows[start : start + _SCORED]
            with self._device.turn():
                weights = self._batch(Sampling()).attended([row[2] for row in some])
            for (at, n, _), mine in zip(some, weights, strict=True):
                found[at] = mine[:, :, n : n + len(said[at])]
        return found

    def _checked(self, sampling: Sampling) -> Sampling:
        """The sampling with the checkpoint's own settings filled in.

        Raises:
            ConfigError: It asks for what no row can have.
        """
        if sampling.top_k > self._vocabulary:
            raise ConfigError(
                f"top_k={sampling.top_k} is more than the vocabulary of {self._name} has tokens "
                f"({self._vocabulary}): ask for {self._vocabulary} at most"
            )
        StopStrings(sampling.stop, self._detokenizer)
        if sampling.repetition_penalty is not None:
            return sampling
        own = getattr(self._model.generation_config, "repetition_penalty", None) or 1.0
        return dataclasses.replace(sampling, repetition_penalty=float(own))

    def _row(self, index: int, conversation: Conversation) -> _Row:
        """A row ready to be run, encoded where the adapter drives this model."""
        if self._driven is not None:
            try:
                encoded = self._encoded(conversation)
                return _Row(index, conversation, len(encoded.ids), encoded=encoded)
            except SpecEyesError:
                raise
            except Exception as exc:  # noqa: BLE001 - the adapter's inside; generate may do it
                logger.debug("a prompt is left to generate: %s", reason(exc))
        return self._plain(index, conversation)

    def _plain(self, index: int, conversation: Conversation) -> _Row:
        prompt = self._prompter.prompt(index, conversation)
        return _Row(index, conversation, int(self._prompter.length(conversation)), prompt=prompt)

    def _encoded(self, conversation: Conversation) -> EncodedPrompt:
        assert self._encoder is not None
        with self._device.lock:
            prompt = self._prompter.prompt(0, conversation, ready=False)
            encoded = self._encoder.encode(prompt)
        self._check_length(len(encoded.ids))
        return encoded

    def _check_length(self, n: int) -> None:
        if self._longest is not None and n >= self._longest:
            raise PromptError(self._length_reason(str(n)), "length")

    def _length_reason(self, n: str) -> str:
        return (
            f"the prompt has {n} tokens, and {self._name} reads fewer than {self._longest}: use "
            "fewer or smaller images, or less text"
        )

    def _run(
        self,
        rows: Sequence[_Row],
        sampling: Sampling,
        done: dict[int, Completion],
        *,
        emptied: bool = False,
    ) -> None:
        """Completes the rows; halves a batch that fails until the guilty row is alone.

        Args:
            rows: The rows.
            sampling: How they are decoded.
            done: Takes their completions.
            emptied: All that is kept was forgotten for them just now.
        """
        size = len(rows)
        if not rows:
            return
        longest = sampling.max_tokens + max(row.tokens for row in rows)
        most = self._device.rows(longest)
        if size > most:  # it shrank since these were gathered, or these are longer than others
            for start in range(0, size, most):
                self._run(rows[start : start + most], sampling, done)
            return
        try:
            with self._device.turn(), self._device.measured(size, longest):
                answers = self._forward(rows, sampling)
        except Exception as exc:  # noqa: BLE001  (it ends the row that is guilty, whatever it is)
            # Only words are kept: the traceback would hold on to the memory that ran out.
            failure, full, fault = reason(exc), out_of_memory(exc), fault_of(exc)
            defect = isinstance(exc, DEFECTS)
        else:
            done.update(zip((row.index for row in rows), answers, strict=True))
            return
        if full:
            failure = self._shrink(size, failure)
        if size > 1:
            self._run(rows[: size // 2], sampling, done)
            self._run(rows[size // 2 :], sampling, done)
            return
        [row] = rows
        if full and not emptied:
            self._run(rows, sampling, done, emptied=True)
            return
        if full:
            fault = "length"  # with nothing else kept it doesn't fit, however often it is asked
        done[row.index] = Completion.failed(failure, fault)
        if row.encoded is not None and not full and fault is None:
            self._rescue(row, sampling, done, failure if defect else "")

    def _rescue(
        self, row: _Row, sampling: Sampling, done: dict[int, Completion], defect: str
    ) -> None:
        """Lets `generate` try a row that failed in the adapter.

        Args:
            row: The row.
            sampling: How it is decoded.
            done: Takes its completion, if it has one now.
            defect: What failed, if it is of a kind that would fail again.
        """
        tried: dict[int, Completion] = {}
        with contextlib.suppress(SpecEyesError):
            self._run([self._plain(row.index, row.conversation)], sampling, tried)
        if row.index in tried and tried[row.index].error is None:
            done.update(tried)
            if defect:
                self._trial.refuse(defect)

    def _examine(self) -> None:
        """Finds out, after a call of which every row failed, whether any row could go well.

        Where a short prompt with an image fails too, in plain `generate`, it is a defect of this
        package or another, or a model of a kind that can't be run: later calls say so at once.
        """
        try:
            with self._device.turn():
                trial = trial_conversations((224, 160))[1:]
                generated(self._model, self._prompter, self._detokenizer, trial)
        except SpecEyesError:
            return
        except Exception as exc:
            if out_of_memory(exc):
                return
            self._broken = (
                f"{self._name} can't run, whatever it is asked ({reason(exc)}): this is a defect "
                f"of speceyes or of another package, or a kind of model that it can't drive "
                f"({versions()})"
            )
            logger.error("%s", self._broken, exc_info=exc)

    def _shrink(self, size: int, failure: str) -> str:
        """Makes room after memory ran out with `size` rows; what to say if that was one row."""
        self.forget()
        self._device.shrink(size)
        return (
            f"out of memory on {self.device} with this row alone: use smaller images, a lower "
            f"max_tokens or a smaller dtype ({failure})"
        )

    def _forward(self, rows: Sequence[_Row], sampling: Sampling) -> list[Completion]:
        """One batch through the model; either all of its rows are encoded or none is."""
        seeds = [row_seed(sampling.seed, row.index) for row in rows]
        encoded = [row.encoded for row in rows if row.encoded is not None]
        if encoded:
            batch = self._batch(sampling)
            found = dict(batch.add(list(zip(range(len(rows)), encoded, seeds, strict=True))))
            while len(batch):
                found.update(batch.step())
            return [
                self._completion(found[i], len(one.ids), sampling) for i, one in enumerate(encoded)
            ]
        inputs, lengths = self._prompter.batch([r.prompt for r in rows if r.prompt is not None])
        self._check_length(max(lengths))
        decoded = decode(
            self._model,
            inputs.to(device=self.device, dtype=self.dtype),
            sampling,
            self._detokenizer,
            self._pad_id,
            seeds,
            tails=[row.prompt.begun for row in rows if row.prompt is not None],
            keep_logits=self._is_reference,
        )
        return [self._completion(one, n, sampling) for one, n in zip(decoded, lengths, strict=True)]

    def _batch(self, sampling: Sampling) -> ContinuousBatch[int]:
        """An empty batch."""
        assert self._encoder is not None
        return ContinuousBatch(
            self._encoder,
            self._prefixes,
            sampling,
            self._detokenizer,
            self._stats,
            self._compiled,
            self._spare,
        )

    def _completion(self, row: Decoded, prompt_tokens: int, sampling: Sampling) -> Completion:
        if not row.finite:
            return Completion.failed(
                f"the scores of {self._name} in {self.dtype} are not finite numbers: load it "
                "with dtype='bfloat16' or dtype='float32'"
            )
        return Completion(
            text=row.text,
            token_ids=row.ids,
            top_logprobs=row.top_logprobs,
            finish=row.finish,
            prompt_tokens=prompt_tokens,
            first_token=row.first_token,
            tokens=tuple(map(self._detokenizer.piece, row.ids)) if sampling.token_texts else (),
        )
