"""Models of real sizes with random weights: what they compute is nonsense, what it costs is not."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from speceyes import prompts
from speceyes.errors import ConfigError
from speceyes.models.hf import HFModel
from speceyes.models.hf.load import choose_device, choose_dtype
from speceyes.models.sizes import Shape, named

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content %}{% if p.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NEVER = -1e4
"""Score of tokens that a random model must not say; finite in every dtype."""


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    """Learned from the prompts alone, so that, as in the real vocabularies, their words are
    about a token each. Not changed by those who share it.
    """
    texts = [text for text in vars(prompts).values() if isinstance(text, str)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1800,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(_SPECIAL),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts, "user system assistant yes no answer look closer"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def tokens_of(text: str) -> int:
    """Number of tokens of a text for the models that `build` makes."""
    return len(_tokenizer()(text)["input_ids"])


def _config(shape: Shape) -> Any:
    ids = {name: at for at, name in enumerate(_SPECIAL)}
    common = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": shape.tied,
    }
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": ids["<|im_end|>"]}
    kind: Any = Qwen3VLConfig if shape.family == "qwen3_vl" else Qwen2_5_VLConfig
    return kind(text_config={**shape.text, **ends}, vision_config=dict(shape.vision), **common)


def _class(shape: Shape) -> Any:
    is_third = shape.family == "qwen3_vl"
    return Qwen3VLForConditionalGeneration if is_third else Qwen2_5_VLForConditionalGeneration


def parameters(shape: Shape) -> int:
    """Number of weights of the model; nothing is allocated to count them."""
    with torch.device("meta"):
        model = _class(shape)._from_config(_config(shape))
    return sum(weight.numel() for weight in model.parameters())


def _processor(shape: Shape) -> Any:
    common: dict[str, Any] = {
        "patch_size": shape.vision["patch_size"],
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": shape.least, "longest_edge": shape.most},
    }
    first: tuple[Any, Any] = (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)
    if shape.family == "qwen3_vl":
        first = (Qwen3VLProcessor, Qwen3VLVideoProcessor)
    whole, video = first
    return whole(
        image_processor=Qwen2VLImageProcessor(**common),
        tokenizer=_tokenizer(),
        video_processor=video(**common),
        chat_template=_TEMPLATE,
    )


def build(
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    vocabulary: int | None = None,
    seed: int = 0,
) -> HFModel:
    """A model of that shape with random weights, which never ends its turn by itself.

    Args:
        name: One of `sizes.SHAPES`.
        device: Where it is made; default: a GPU if there is one.
        dtype: Of its weights; default: float32 on the CPU, bfloat16 on a GPU that has it.
        vocabulary: Tokens of its vocabulary; default: as the shape has it.
        seed: Seed of the weights.

    Raises:
        ConfigError: No such shape, device or dtype, or a vocabulary below the tokenizer's.

    Example:
        >>> build("tiny-small", device="cpu").name
        'tiny-small'
    """
    shape, where = named(name), choose_device(device)
    kind = choose_dtype(dtype, where)
    if vocabulary is not None:
        if vocabulary < len(_tokenizer()):
            raise ConfigError(
                f"vocabulary={vocabulary}; the tokenizer has {len(_tokenizer())} tokens, so it "
                "must be at least that"
            )
        shape = dataclasses.replace(shape, text={**shape.text, "vocab_size": vocabulary})
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), where:
        torch.manual_seed(seed)
        model = _class(shape)._from_config(_config(shape), dtype=kind).eval()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=_SPECIAL.index("<|im_end|>"), pad_token_id=0
    )

    def mute(layer: Any, given: Any, scores: torch.Tensor) -> torch.Tensor:
        """Special tokens are the first of the vocabulary, the ends of a turn among them."""
        scores[..., : len(_SPECIAL)] = _NEVER
        return scores

    model.lm_head.register_forward_hook(mute)
    return HFModel(model, _processor(shape), name=name)


def place(
    device: str | torch.device | None, dtype: str | torch.dtype | None
) -> tuple[torch.device, int]:
    """Where `build` would make a model, and the bytes of one of its weights.

    Raises:
        ConfigError: No such device or dtype.
    """
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(f"dtype={kind!r}; random weights need one: 'float32' or 'bfloat16'")
    return where, kind.itemsize
