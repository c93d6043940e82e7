"""Tiny models of families that can't be asked: BLIP-2 and Florence-2 have no chat template, Janus
hands its scores to nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers as tf

from support.random_models import tokenizer


def _tokens(**named: str) -> Any:
    words = tokenizer().backend_tokenizer
    words.add_special_tokens(list(named.values()))
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )


_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def blip_2() -> tuple[Any, Any]:
    words = _tokens(image_token="<image>")
    config = tf.Blip2Config(
        vision_config={**_TOWER, "image_size": 28, "patch_size": 14},
        qformer_config={**_TOWER, "encoder_hidden_size": 32, "vocab_size": len(words)},
        text_config={
            "model_type": "opt",
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": len(words),
            "max_position_embeddings": 256,
        },
        num_query_tokens=4,
        image_token_index=words.image_token_id,
    )
    images = tf.BlipImageProcessor(size={"height": 28, "width": 28})
    return (
        tf.Blip2ForConditionalGeneration(config),
        tf.Blip2Processor(images, words, num_query_tokens=4),
    )


_CHAT = """
{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- for p in m.content %}
{%- if p.type == 'image' %}{{- '<image>' }}{%- else %}{{- p.text }}{%- endif %}
{%- endfor %}{{- '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def janus() -> tuple[Any, Any]:
    words = _tokens(image_token="<image>", boi_token="<begin_image>", eoi_token="<end_image>")
    size = {"num_hidden_layers": 1, "projection_dim": 32}
    config = tf.JanusConfig(
        text_config={
            **_TOWER,
            "model_type": "llama",
            "num_key_value_heads": 2,
            "vocab_size": len(words),
            "max_position_embeddings": 512,
        },
        vision_config={
            **size,
            "hidden_size": 32,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "depth": 1,
            "num_image_tokens": 4,
        },
        vq_config={
            **size,
            "num_embeddings": 16,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "num_patches": 2,
            "image_token_embed_dim": 32,
        },
        image_token_id=words.image_token_id,
    )
    images = tf.JanusImageProcessor(size={"height": 28, "width": 28}, min_size=14)
    processor = tf.JanusProcessor(images, words, chat_template=_CHAT, num_image_tokens=4)
    return tf.JanusForConditionalGeneration(config), processor


def florence_2() -> tuple[Any, Any]:
    words = _tokens(image_token="<image>")
    config = tf.Florence2Config(
        text_config={
            "model_type": "bart",
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "vocab_size": len(words),
            "max_position_embeddings": 256,
        },
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": 32,
        },
        image_token_id=words.image_token_id,
    )
    images = tf.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    processor = tf.Florence2Processor(images, words, chat_template=_CHAT)
    return tf.Florence2ForConditionalGeneration(config), processor


def save_odd(parts: tuple[Any, Any], folder: Path) -> Path:
    """A checkpoint of a model and its processor, as `from_pretrained` reads it."""
    for part in parts:
        part.save_pretrained(folder)
    return folder
