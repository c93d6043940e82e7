"""The tiny pair's architecture, tokenizer and processors: the real Qwen3-VL classes, shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image as PILImage
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from speceyes import prompts
from speceyes.dialects.deepeyes import SpecEyesDialect
from speceyes.tiny import scenes
from speceyes.tools.zoom import Zoom
from speceyes.types import Query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

END = "<|im_end|>"
PAD = "<|endoftext|>"
SPECIAL = (
    PAD,
    "<|im_start|>",
    END,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CALL = '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": ['
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'text' -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a tiny model. Lengths in units, `view` in pixels a side."""

    view: int
    patch: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    deepstack: tuple[int, ...]


LARGE_SIZE = Size(112, 14, 96, 4, 4, 2, 256, 96, 4, 4, (1, 2))
SMALL_SIZE = Size(80, 10, 64, 4, 4, 2, 176, 64, 3, 4, (1,))


JUDGE_PHRASES = (prompts.DRAFT_LOOK, prompts.LOOK_CLOSER)
"""Phrases that a drafter which judges has a token for as well."""


def system_text() -> str:
    """The large model's system prompt: the dialect's, with the zoom tool."""
    query = Query("?", (PILImage.new("RGB", (8, 8)),))
    return SpecEyesDialect().open(query, (Zoom(),)).messages[0].text


def phrase_tokens() -> list[str]:
    """Phrases that are one token each, so that fixed texts cost one step."""
    phrases = [
        system_text(),
        prompts.DEEPEYES_INSTRUCTION,
        prompts.LAST_TURN,
        prompts.JUDGE,
        prompts.DIRECT,
        prompts.DRAFT,
        prompts.CHOICE,
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<answer>",
        "</answer>",
        "<tool_response>",
        "</tool_response>",
        f"</think>\n<tool_call>\n{CALL}",
        "]}}\n</tool_call>",
        "</think>\n<answer>",
        "system\n",
        "user\n",
        "assistant\n",
        " is in row",
        ", column",
        "It is a",
        "top left",
        "top right",
        "bottom left",
        "bottom right",
    ]
    return phrases + [f", {n}" for n in range(0, 113, 4)]


def _corpus() -> Iterator[str]:
    import numpy as np

    rng = np.random.default_rng(11)
    for index in range(3000):
        _, question, _ = scenes.draw("train", index)
        yield question.text
        yield question.answer
        yield " ".join(question.findings)
        yield "".join(f" The {look.name}. {look.row} {look.column}" for look in question.looks)
        yield "\n".join(f"({'ABCD'[i]}) {c}" for i, c in enumerate(scenes.options(question, rng)))
        yield str(4 * int(rng.integers(0, 29)))
        yield "yes no Yes No"


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer trained on the scenes' questions.

    `tokenizer.json` was made by this. It is kept, since token ids are part of the weights: any
    change to the questions would change the merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        min_frequency=20,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(p, normalized=False) for p in phrase_tokens()])
    return tokenizer


def build_tokenizer(more: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The pair's tokenizer, with a token behind all others for each of some more phrases."""
    known = Tokenizer.from_file(str(Path(__file__).parent / "tokenizer.json"))
    known.add_tokens([AddedToken(phrase, normalized=False) for phrase in more])
    return PreTrainedTokenizerFast(
        tokenizer_object=known,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
    )


def build_processor(
    tokenizer: PreTrainedTokenizerFast, size: Size, *, smallest: int | None = None
) -> Qwen3VLProcessor:
    """The processor; any image near a square is seen at `view` x `view` pixels, or at no less than
    `smallest` x `smallest` where that is given and it has fewer.
    """
    # Around view**2, so that the rounding to whole merged patches always ends at view x view.
    limits = {
        "shortest_edge": round(((smallest or size.view) * 0.9) ** 2),
        "longest_edge": round((size.view * 1.12) ** 2),
    }
    common: dict[str, Any] = {
        "patch_size": size.patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=limits, **common),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(size=limits, **common),
        chat_template=CHAT_TEMPLATE,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, size: Size, seed: int
) -> Qwen3VLForConditionalGeneration:
    """An untrained model of that size."""
    ids = {t: tokenizer.convert_tokens_to_ids(t) for t in SPECIAL}
    config = Qwen3VLConfig(
        speceyes_dialect="speceyes",
        text_config={
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": size.hidden,
            "intermediate_size": size.mlp,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "initializer_range": 0.04,
            "tie_word_embeddings": True,
            "pad_token_id": ids[PAD],
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_hidden * 3,
            "num_heads": size.vision_heads,
            "patch_size": size.patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": size.hidden,
            "num_position_embeddings": (size.view // size.patch) ** 2,
            "deepstack_visual_indexes": list(size.deepstack),
            "initializer_range": 0.04,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids[END]
    model.generation_config.pad_token_id = ids[PAD]
    model.generation_config.do_sample = False
    return model
