"""Tiny checkpoints with random weights, in the Hugging Face format, of real Qwen-VL classes.

The classes, the processor and the files are those of the real models; only the sizes are
shrunk. The weights are drawn from a seed with enough spread that greedy answers vary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

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

from speceyes.models.hf import HFModel
from speceyes.models.hf.chat_prompt import Prompt, Prompter
from speceyes.models.hf.pixels import pixels_of

Family = Literal["qwen2_5_vl", "qwen3_vl"]
FAMILIES: tuple[Family, ...] = ("qwen2_5_vl", "qwen3_vl")

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CORPUS = (
    "system user assistant tool You are a helpful assistant that answers questions about images.",
    "What colour is the small square left of the large circle? Yes yes No no red green blue",
    "Is there a yellow triangle above the cup? Answer with a single word or a short phrase.",
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 100, 250, 350]}}',
    "</tool_call> <think>The object is tiny, so I look closer.</think> <answer>blue</answer>",
    "0 1 2 3 4 5 6 7 8 9 10 20 30 40 50 60 70 80 90 100 200 300 400 500 1024 2048 4096",
)

CHAT_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}
{%- if messages[0].content is string %}{{- messages[0].content }}
{%- else %}{%- for part in messages[0].content %}{{- part.text }}{%- endfor %}{%- endif %}
{{- '\\n\\n' }}{%- endif %}
{{- '# Tools\\n<tools>' }}{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if not (tools and loop.first and message.role == 'system') %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}{{- message.content }}
{%- else %}{%- for part in message.content %}
{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- else %}{{- part.text }}{%- endif %}
{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def tokenizer(vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `CORPUS`, with Qwen's special tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=4096,
    )


def _configs(family: Family, ids: dict[str, int], vocab: int, limit: int) -> Any:
    text: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": limit,
        "pad_token_id": ids["<|endoftext|>"],
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 64,
    }
    common: dict[str, Any] = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    if family == "qwen2_5_vl":
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
        return Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope, "max_window_layers": 2},
            vision_config={**vision, "window_size": 56, "fullatt_block_indexes": [1]},
            **common,
        )
    rope = {
        "rope_type": "default",
        "rope_theta": 5e6,
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    }
    return Qwen3VLConfig(
        text_config={**text, "head_dim": 32, "rope_parameters": rope},
        vision_config={
            **vision,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **common,
    )


def build(
    family: Family,
    *,
    seed: int = 0,
    vocab_size: int = 400,
    min_pixels: int = 4 * 28 * 28,
    max_pixels: int = 16 * 28 * 28,
    limit: int = 4096,
    spread: float = 0.3,
) -> tuple[Any, Any]:
    """(model, processor) of a family, drawn from `seed`.

    Args:
        min_pixels: Fewest pixels an image is resized to.
        max_pixels: Most pixels an image is resized to.
        limit: The model's longest sequence in tokens.
        spread: Standard deviation of the output layer; more makes answers surer.
    """
    text_tokenizer = tokenizer(vocab_size)
    ids = {token: text_tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = _configs(family, ids, vocab_size, limit)
    first, model_class, processor_class, video = (
        (14, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)
        if family == "qwen2_5_vl"
        else (16, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor)
    )
    images = Qwen2VLImageProcessor(
        patch_size=first,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = processor_class(
        image_processor=images,
        tokenizer=text_tokenizer,
        video_processor=video(patch_size=first),
        chat_template=CHAT_TEMPLATE,
    )
    # The global generator is put back, so that building a model changes no other draw.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config).eval()
        with torch.no_grad():
            # Fresh weights hardly pass on what they read: spread them, so that an answer
            # depends on the whole prompt and on every image.
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, 1.5 / weight[0].numel() ** 0.5)
            model.get_input_embeddings().weight.normal_(0.0, 0.5)
            model.lm_head.weight.normal_(0.0, spread)
    model.generation_config = GenerationConfig(
        # The leftovers of a real checkpoint: greedy decoding must not be touched by them.
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
        repetition_penalty=1.3,
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    return model, processor


def save(family: Family, directory: Path, **options: Any) -> Path:
    """Writes the checkpoint of `build` to a directory, as `from_pretrained` reads it."""
    model, processor = build(family, **options)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def batch_of(model: HFModel, prompt: Prompt) -> tuple[Any, list[int]]:
    """Tensors of a prompt as the processor makes them for plain `generate`, and its tokens."""
    prompter = Prompter(model.processor, pixels_of(model.processor.image_processor))
    return prompter.batch([prompt])
