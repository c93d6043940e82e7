"""A tiny captioner, which answers no chats: BLIP-2 has no chat template."""

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


def save_blip_2(folder: Path) -> Path:
    """A checkpoint of BLIP-2, as `from_pretrained` reads it."""
    for part in blip_2():
        part.save_pretrained(folder)
    return folder
