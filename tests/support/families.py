"""The families that users are likely to have, each as a tiny `Kind`."""

from __future__ import annotations

from typing import Any

from support.family_models import LONGEST, VOCABULARY, Chat, Ids, Kind, get
from support.random_models import CHAT_TEMPLATE

CHATML = "<|im_start|>{role}\n{content}<|im_end|>\n"
CHATML_BEGIN = "<|im_start|>assistant\n"
CHATML_SPECIAL = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
QWEN_SPECIAL = (
    *CHATML_SPECIAL,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def text_config(ids: Ids, special: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """A decoder of two layers."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "tie_word_embeddings": False,
        "max_position_embeddings": LONGEST,
        "pad_token_id": ids[special[0]],
        "bos_token_id": ids[special[0]],
        "eos_token_id": ids[special[1]],
        **more,
    }


def vision(model_type: str, size: int = 56, patch: int = 14, **more: Any) -> dict[str, Any]:
    """A vision tower of two layers."""
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": size,
        "patch_size": patch,
        **more,
    }


def square(name: str, size: int = 56, **more: Any) -> Any:
    """An image processor that makes squares."""
    return get(name)(size={"height": size, "width": size}, **more)


# --- Qwen, and those with its image processor -------------------------------------------


def qwen_vision(**more: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 64,
        **more,
    }


def qwen_ids(ids: Ids) -> dict[str, Any]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": False,
    }


MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
WOVEN = {**MROPE, "mrope_section": [6, 5, 5], "mrope_interleaved": True}


def qwen2_vl(ids: Ids) -> Any:
    tower = {k: v for k, v in qwen_vision().items() if k not in ("out_hidden_size",)}
    tower.pop("intermediate_size")
    return get("Qwen2VLConfig")(
        text_config=text_config(ids, QWEN_SPECIAL, rope_parameters=MROPE),
        vision_config={**tower, "embed_dim": 32, "hidden_size": 64},
        **qwen_ids(ids),
    )


def qwen2_5_vl(ids: Ids) -> Any:
    return get("Qwen2_5_VLConfig")(
        text_config=text_config(ids, QWEN_SPECIAL, rope_parameters=MROPE),
        vision_config=qwen_vision(window_size=56, fullatt_block_indexes=[1]),
        **qwen_ids(ids),
    )


QWEN3_VISION = qwen_vision(patch_size=16, num_position_embeddings=64)
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def qwen3_vl(ids: Ids) -> Any:
    return get("Qwen3VLConfig")(
        text_config=text_config(ids, QWEN_SPECIAL, rope_parameters=WOVEN),
        vision_config={**QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **qwen_ids(ids),
    )


def qwen3_vl_moe(ids: Ids) -> Any:
    return get("Qwen3VLMoeConfig")(
        text_config=text_config(ids, QWEN_SPECIAL, rope_parameters=WOVEN, **EXPERTS),
        vision_config={**QWEN3_VISION, "deepstack_visual_indexes": [0]},
        **qwen_ids(ids),
    )


LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    },
}


def qwen3_5(ids: Ids) -> Any:
    return get("Qwen3_5Config")(
        text_config=text_config(ids, QWEN_SPECIAL, **LINEAR),
        vision_config=QWEN3_VISION,
        **qwen_ids(ids),
    )


def qwen3_5_moe(ids: Ids) -> Any:
    return get("Qwen3_5MoeConfig")(
        text_config=text_config(
            ids, QWEN_SPECIAL, **LINEAR, **EXPERTS, shared_expert_intermediate_size=32
        ),
        vision_config=QWEN3_VISION,
        **qwen_ids(ids),
    )


def qwen_parts(video: str, patch: int) -> Any:
    def parts(_: Any) -> dict[str, Any]:
        return {
            "image_processor": get("Qwen2VLImageProcessor")(
                patch_size=patch,
                merge_size=2,
                size={"shortest_edge": 4 * 28 * 28, "longest_edge": 16 * 28 * 28},
            ),
            "video_processor": get(video)(patch_size=patch),
        }

    return parts


def qwen(title: str, model: str, processor: str, config: Any, video: str, patch: int) -> Kind:
    return Kind(
        title, model, processor, config, qwen_parts(video, patch), QWEN_SPECIAL, CHAT_TEMPLATE
    )


GLM_SPECIAL = (
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "[gMASK]",
    "<sop>",
)


def glm(config: str, **more: Any) -> Any:
    def made(ids: Ids) -> Any:
        rope = {
            "rope_type": "default",
            "rope_theta": 1e4,
            "mrope_section": [2, 3, 3],
            "partial_rotary_factor": 0.5,
        }
        return get(config)(
            text_config=text_config(ids, GLM_SPECIAL, rope_parameters=rope, **more),
            vision_config=qwen_vision(image_size=56),
            image_token_id=ids["<|image|>"],
            video_token_id=ids["<|video|>"],
            image_start_token_id=ids["<|begin_of_image|>"],
            image_end_token_id=ids["<|end_of_image|>"],
            video_start_token_id=ids["<|begin_of_video|>"],
            video_end_token_id=ids["<|end_of_video|>"],
            tie_word_embeddings=False,
        )

    return made


def glm_parts(images: str, videos: str) -> Any:
    def parts(_: Any) -> dict[str, Any]:
        size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 32 * 28 * 28}
        return {
            "image_processor": get(images)(size=size, patch_size=14),
            "video_processor": get(videos)(size=size, patch_size=14),
        }

    return parts


GLM_CHAT = Chat(
    {
        "system": "<|system|>\n{content}",
        "user": "<|user|>\n{content}",
        "assistant": "<|assistant|>\n{content}",
    },
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|assistant|>\n",
    bos="[gMASK]<sop>",
)
GLM_NAMED = {"image_token": "<|image|>", "video_token": "<|video|>"}
GLM_EXPERTS = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

# --- LLaVA ------------------------------------------------------------------------------

LLAVA_CHAT = Chat(
    {"system": "{content} ", "user": "USER: {content} ", "assistant": "ASSISTANT: {content}</s>"},
    "<image>\n",
    "ASSISTANT:",
    images_first=True,
)
MISTRAL_TURNS = {"user": "[INST]{content}[/INST]", "assistant": "{content}</s>"}
S = ("<pad>", "</s>", "<s>", "<unk>")


def llava(ids: Ids) -> Any:
    return get("LlavaConfig")(
        text_config=text_config(ids, S, model_type="llama"),
        vision_config=vision("clip_vision_model", projection_dim=32),
        image_token_index=ids["<image>"],
    )


def llava_next(ids: Ids) -> Any:
    return get("LlavaNextConfig")(
        text_config=text_config(ids, S, model_type="mistral"),
        vision_config=vision("clip_vision_model", projection_dim=32),
        image_token_index=ids["<image>"],
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
    )


def llava_onevision(ids: Ids) -> Any:
    return get("LlavaOnevisionConfig")(
        text_config=text_config(ids, CHATML_SPECIAL, model_type="qwen2"),
        vision_config=vision("siglip_vision_model", vision_use_head=False),
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def pixtral(ids: Ids) -> Any:
    return get("LlavaConfig")(
        text_config=text_config(ids, S, model_type="mistral"),
        vision_config=vision("pixtral", size=112, head_dim=16),
        image_token_index=ids["[IMG]"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def mistral3(ids: Ids) -> Any:
    return get("Mistral3Config")(
        text_config=text_config(ids, S, model_type="mistral"),
        vision_config=vision("pixtral", size=112, head_dim=16),
        image_token_index=ids["[IMG]"],
        spatial_merge_size=2,
    )


def pixtral_parts(merge: int) -> Any:
    def parts(_: Any) -> dict[str, Any]:
        return {
            "image_processor": get("PixtralImageProcessor")(
                size={"longest_edge": 112}, patch_size={"height": 14 * merge, "width": 14 * merge}
            ),
            "patch_size": 14,
            "spatial_merge_size": merge,
        }

    return parts


def clip_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": get("CLIPImageProcessor")(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }


def llava_next_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": get("LlavaNextImageProcessor")(
            size={"shortest_edge": 56},
            crop_size={"height": 56, "width": 56},
            image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        ),
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }


def llava_onevision_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": square(
            "LlavaOnevisionImageProcessor", image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]]
        ),
        "video_processor": square("LlavaOnevisionVideoProcessor"),
        "num_image_tokens": 16,
        "vision_feature_select_strategy": "full",
    }


# --- others -----------------------------------------------------------------------------


def internvl(ids: Ids) -> Any:
    return get("InternVLConfig")(
        text_config=text_config(ids, CHATML_SPECIAL, model_type="qwen2"),
        vision_config=vision("internvl_vision", size=[56, 56], patch=[14, 14]),
        image_token_id=ids["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
    )


def internvl_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": square("GotOcr2ImageProcessor", crop_to_patches=True, max_patches=4),
        "video_processor": square("InternVLVideoProcessor"),
        "image_seq_length": 4,
    }


IDEFICS_SPECIAL = (
    "<pad>",
    "<end_of_utterance>",
    "<|im_start|>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    *(f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)),
)
IDEFICS_CHAT = Chat(
    {
        "system": "System: {content}<end_of_utterance>\n",
        "user": "User:{content}<end_of_utterance>\n",
        "assistant": "Assistant: {content}<end_of_utterance>\n",
    },
    "<image>",
    "Assistant:",
    bos="<|im_start|>",
)


def idefics(config: str, tower: str, rope: str) -> Any:
    def made(ids: Ids) -> Any:
        return get(config)(
            text_config=text_config(ids, IDEFICS_SPECIAL, model_type="llama"),
            vision_config=vision(tower),
            image_token_id=ids["<image>"],
            scale_factor=2,
            pad_token_id=ids["<pad>"],
        )

    return made


def idefics_parts(images: str, video: str = "") -> Any:
    def parts(_: Any) -> dict[str, Any]:
        made: dict[str, Any] = {
            "image_processor": get(images)(
                size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
            ),
            "image_seq_len": 4,
        }
        if video:
            made["video_processor"] = get(video)(
                size={"longest_edge": 56},
                max_image_size={"longest_edge": 56},
                fps=1,
                num_frames=4,
                video_sampling={"fps": 1, "max_frames": 4, "video_size": {"longest_edge": 56}},
            )
        return made

    return parts


GEMMA_SPECIAL = ("<pad>", "<end_of_turn>", "<start_of_turn>", "<eos>")
GEMMA_TURNS = {
    "user": "<start_of_turn>user\n{content}<end_of_turn>\n",
    "assistant": "<start_of_turn>model\n{content}<end_of_turn>\n",
}


def gemma3(ids: Ids) -> Any:
    return get("Gemma3Config")(
        text_config=text_config(
            ids,
            GEMMA_SPECIAL,
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=64,
            query_pre_attn_scalar=32,
        ),
        vision_config=vision("siglip_vision_model", vision_use_head=False),
        tie_word_embeddings=False,
        mm_tokens_per_image=4,
        image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
    )


LOCATIONS = 1152
"""PaliGemma's words for places and outlines, which its processor adds."""


def paligemma(ids: Ids) -> Any:
    return get("PaliGemmaConfig")(
        text_config=text_config(
            ids, ("<pad>", "<eos>"), model_type="gemma", vocab_size=VOCABULARY + LOCATIONS
        ),
        vision_config=vision("siglip_vision_model", vision_use_head=False, projection_dim=64),
        tie_word_embeddings=False,
        image_token_index=ids["<image>"],
        projection_dim=64,
    )


def paligemma_parts(_: Any) -> dict[str, Any]:
    images = square("SiglipImageProcessor")
    images.image_seq_length = 16
    return {"image_processor": images}


COHERE_TURN = "<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>{content}<|END_OF_TURN_TOKEN|>"
COHERE_CHAT = {
    "system": COHERE_TURN.replace("{role}", "SYSTEM"),
    "user": COHERE_TURN.replace("{role}", "USER"),
    "assistant": COHERE_TURN.replace("{role}", "CHATBOT"),
}
COHERE_SPECIAL = (
    "<PAD>",
    "<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)
AYA_SPECIAL = (
    *COHERE_SPECIAL,
    "<image>",
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    "<|IMG_PATCH|>",
    "<|IMG_LINE_BREAK|>",
    "TILE_GLOBAL",
)
COHERE2 = {"model_type": "cohere2", "layer_types": ["sliding_attention", "full_attention"]}


def aya_vision(ids: Ids) -> Any:
    return get("AyaVisionConfig")(
        text_config=text_config(ids, COHERE_SPECIAL, **COHERE2, sliding_window=64),
        vision_config=vision("siglip_vision_model", vision_use_head=False),
        image_token_index=ids["<|IMG_PATCH|>"],
        downsample_factor=2,
    )


def aya_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": square("GotOcr2ImageProcessor", crop_to_patches=True, max_patches=4),
        "patch_size": 14,
        "img_size": 56,
        "downsample_factor": 2,
    }


def cohere2_vision(ids: Ids) -> Any:
    return get("Cohere2VisionConfig")(
        text_config=text_config(ids, COHERE_SPECIAL, **COHERE2, sliding_window=64),
        vision_config=vision("siglip_vision_model", vision_use_head=False),
        image_token_id=ids["<|IMG_PATCH|>"],
        downsample_factor=2,
        alignment_intermediate_size=64,
    )


def cohere2_parts(_: Any) -> dict[str, Any]:
    # Of this processor, "patch_size" is how many tokens a tile is wide and high.
    return {"image_processor": square("Cohere2VisionImageProcessor", patch_size=2, max_patches=4)}


OVIS_INDICATORS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def ovis2(ids: Ids) -> Any:
    return get("Ovis2Config")(
        text_config=text_config(ids, CHATML_SPECIAL, model_type="qwen2"),
        vision_config=vision("ovis2_vision", vocab_size=64, hidden_stride=2),
        image_token_id=ids["<IMG_ATOM>"],
        visual_indicator_token_ids=[ids[t] for t in OVIS_INDICATORS],
        vocab_size=VOCABULARY,
        hidden_size=64,
    )


def ovis2_parts(_: Any) -> dict[str, Any]:
    images = square("Ovis2ImageProcessor", crop_to_patches=False)
    return {"image_processor": images, "image_seq_length": 4}


LLAMA4_SPECIAL = (
    "<|finetune_right_pad|>",
    "<|eot|>",
    "<|begin_of_text|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|image|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|patch|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
)


def llama4(ids: Ids) -> Any:
    return get("Llama4Config")(
        text_config=text_config(
            ids,
            LLAMA4_SPECIAL,
            intermediate_size_mlp=96,
            num_local_experts=2,
            attention_chunk_size=LONGEST,
        ),
        vision_config=vision(
            "llama4_vision_model",
            intermediate_size=128,
            vision_output_dim=64,
            projector_input_dim=64,
            projector_output_dim=64,
        ),
        image_token_index=ids["<|patch|>"],
        boi_token_index=ids["<|image_start|>"],
        eoi_token_index=ids["<|image_end|>"],
    )


def llama4_parts(_: Any) -> dict[str, Any]:
    return {"image_processor": square("Llama4ImageProcessor", max_patches=4), "patch_size": 14}


MLLAMA_SPECIAL = (
    "<|finetune_right_pad_id|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|image|>",
    "<|python_tag|>",
)


def mllama(ids: Ids) -> Any:
    tower = vision("mllama_vision_model")
    tower["attention_heads"] = tower.pop("num_attention_heads")
    text = text_config(ids, MLLAMA_SPECIAL, cross_attention_layers=[1])
    text.pop("head_dim")
    # Images are no words of its text: the output layer knows none for them.
    return get("MllamaConfig")(
        text_config=text,
        vision_config={
            **tower,
            "num_global_layers": 1,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,
        },
        image_token_index=ids["<|image|>"],
    )


def mllama_parts(_: Any) -> dict[str, Any]:
    return {"image_processor": square("MllamaImageProcessor", max_image_tiles=4)}


KIMI_SPECIAL = (
    "[PAD]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<|media_begin|>",
    "<|media_content|>",
    "<|media_end|>",
)


def kimi(ids: Ids) -> Any:
    text = text_config(
        ids,
        KIMI_SPECIAL,
        model_type="deepseek_v3",
        num_key_value_heads=2,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
    )
    text.pop("head_dim")
    tower = vision("kimi_k25_vision", pos_emb_height=8, pos_emb_width=8)
    tower.pop("image_size")
    return get("Kimi_K25Config")(
        text_config=text,
        vision_config=tower,
        projection_hidden_size=32,
        image_token_id=ids["<|media_pad|>"],
        video_token_id=ids["<|kimi_k25_video_placeholder|>"],
        vision_start_token_id=ids["<|media_begin|>"],
        vision_end_token_id=ids["<|media_end|>"],
        tie_word_embeddings=False,
    )


def kimi_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": get("Kimi_K25ImageProcessor")(
            size={"max_height": 112, "max_width": 112}, patch_size=14
        ),
        "video_processor": get("Kimi_K25VideoProcessor")(),
    }


def minicpm(ids: Ids) -> Any:
    return get("MiniCPMV4_6Config")(
        text_config=text_config(ids, CHATML_SPECIAL, model_type="qwen3_5_text", **LINEAR),
        vision_config=vision("minicpmv4_6_vision", size=112),
        insert_layer_id=0,
        image_size=112,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )


def minicpm_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": get("MiniCPMV4_6ImageProcessor")(scale_resolution=112, max_slice_nums=4),
        "video_processor": get("MiniCPMV4_6VideoProcessor")(),
    }


MINICPM_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def phi4(ids: Ids) -> Any:
    text = text_config(ids, ("<|endoftext|>", "<|end|>"))
    text.pop("head_dim")
    # Its image processor counts 256 tokens a tile, whatever the size: tiles must be of 448 pixels.
    tower = vision("phi4_multimodal_vision", 448, crop_size=448, image_token_id=ids["<|image|>"])
    return get("Phi4MultimodalConfig")(
        **text,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        vision_config=tower,
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_blocks": 1,
            "num_attention_heads": 2,
            "nemo_conv_channels": 16,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "audio_token_id": ids["<|audio|>"],
        },
    )


def phi4_parts(_: Any) -> dict[str, Any]:
    return {
        "image_processor": get("Phi4MultimodalImageProcessor")(dynamic_hd=1),
        "audio_processor": get("Phi4MultimodalFeatureExtractor")(),
    }


LLAMA3 = "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"

KINDS: dict[str, Kind] = {
    "qwen2_vl": qwen(
        "Qwen2-VL",
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLProcessor",
        qwen2_vl,
        "Qwen2VLVideoProcessor",
        14,
    ),
    "qwen2_5_vl": qwen(
        "Qwen2.5-VL",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLProcessor",
        qwen2_5_vl,
        "Qwen2VLVideoProcessor",
        14,
    ),
    "qwen3_vl": qwen(
        "Qwen3-VL",
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLProcessor",
        qwen3_vl,
        "Qwen3VLVideoProcessor",
        16,
    ),
    "qwen3_vl_moe": qwen(
        "Qwen3-VL (mixture of experts)",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3VLProcessor",
        qwen3_vl_moe,
        "Qwen3VLVideoProcessor",
        16,
    ),
    "qwen3_5": qwen(
        "Qwen3.5",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3VLProcessor",
        qwen3_5,
        "Qwen3VLVideoProcessor",
        16,
    ),
    "qwen3_5_moe": qwen(
        "Qwen3.5 (mixture of experts)",
        "Qwen3_5MoeForConditionalGeneration",
        "Qwen3VLProcessor",
        qwen3_5_moe,
        "Qwen3VLVideoProcessor",
        16,
    ),
    "internvl": Kind(
        "InternVL (HF)",
        "InternVLForConditionalGeneration",
        "InternVLProcessor",
        internvl,
        internvl_parts,
        CHATML_SPECIAL,
        Chat(CHATML, "<IMG_CONTEXT>\n", CHATML_BEGIN),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "llava": Kind(
        "LLaVA 1.5",
        "LlavaForConditionalGeneration",
        "LlavaProcessor",
        llava,
        clip_parts,
        (*S, "<image>"),
        LLAVA_CHAT,
        bos="<s>",
        note="trained on one image a question",
    ),
    "llava_next": Kind(
        "LLaVA-NeXT (1.6)",
        "LlavaNextForConditionalGeneration",
        "LlavaNextProcessor",
        llava_next,
        llava_next_parts,
        (*S, "<image>"),
        Chat(
            {
                "system": "<<SYS>>\n{content}\n<</SYS>>\n\n",
                "user": "[INST] {content} [/INST]",
                "assistant": " {content}</s>",
            },
            "<image>\n",
            "",
            images_first=True,
        ),
        bos="<s>",
    ),
    "llava_onevision": Kind(
        "LLaVA-OneVision",
        "LlavaOnevisionForConditionalGeneration",
        "LlavaOnevisionProcessor",
        llava_onevision,
        llava_onevision_parts,
        (*CHATML_SPECIAL, "<image>", "<video>"),
        Chat(CHATML, "<image>\n", CHATML_BEGIN, images_first=True),
    ),
    "idefics3": Kind(
        "Idefics3",
        "Idefics3ForConditionalGeneration",
        "Idefics3Processor",
        idefics("Idefics3Config", "idefics3_vision", "llama"),
        idefics_parts("Idefics3ImageProcessor"),
        IDEFICS_SPECIAL,
        IDEFICS_CHAT,
        bos="<|im_start|>",
    ),
    "smolvlm": Kind(
        "SmolVLM",
        "SmolVLMForConditionalGeneration",
        "SmolVLMProcessor",
        idefics("SmolVLMConfig", "smolvlm_vision", "llama"),
        idefics_parts("SmolVLMImageProcessor", "SmolVLMVideoProcessor"),
        IDEFICS_SPECIAL,
        IDEFICS_CHAT,
        bos="<|im_start|>",
        note="transformers needs the package num2words for its processor",
    ),
    "gemma3": Kind(
        "Gemma 3",
        "Gemma3ForConditionalGeneration",
        "Gemma3Processor",
        gemma3,
        lambda _: {"image_processor": square("Gemma3ImageProcessor"), "image_seq_length": 4},
        GEMMA_SPECIAL,
        Chat(
            GEMMA_TURNS,
            "<start_of_image>",
            "<start_of_turn>model\n",
            bos="<bos>",
            alternate=True,
            merge_system=True,
        ),
        named={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        bos="<bos>",
        embeddings=0.06,
    ),
    "mistral3": Kind(
        "Mistral 3",
        "Mistral3ForConditionalGeneration",
        "PixtralProcessor",
        mistral3,
        pixtral_parts(2),
        (*S, "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
        Chat(
            {"system": "[SYSTEM_PROMPT]{content}[/SYSTEM_PROMPT]", **MISTRAL_TURNS},
            "[IMG]",
            "",
            bos="<s>",
            alternate=True,
        ),
        bos="<s>",
    ),
    "pixtral": Kind(
        "Pixtral",
        "LlavaForConditionalGeneration",
        "PixtralProcessor",
        pixtral,
        pixtral_parts(1),
        (*S, "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
        Chat(MISTRAL_TURNS, "[IMG]", "", bos="<s>", alternate=True),
        bos="<s>",
        note="its template may refuse a system message",
    ),
    "paligemma": Kind(
        "PaliGemma",
        "PaliGemmaForConditionalGeneration",
        "PaliGemmaProcessor",
        paligemma,
        paligemma_parts,
        ("<pad>", "<eos>"),
        None,
        named={"image_token": "<image>"},
        bos="<bos>",
        embeddings=0.06,
        note="no chat template: see below; needs an image in every query",
    ),
    "glm4v": Kind(
        "GLM-4.1V",
        "Glm4vForConditionalGeneration",
        "Glm4vProcessor",
        glm("Glm4vConfig"),
        glm_parts("Glm4vImageProcessor", "Glm4vVideoProcessor"),
        GLM_SPECIAL,
        GLM_CHAT,
        named=GLM_NAMED,
    ),
    "glm4v_moe": Kind(
        "GLM-4.5V",
        "Glm4vMoeForConditionalGeneration",
        "Glm4vProcessor",
        glm("Glm4vMoeConfig", **GLM_EXPERTS),
        glm_parts("Glm4vImageProcessor", "Glm4vVideoProcessor"),
        GLM_SPECIAL,
        GLM_CHAT,
        named=GLM_NAMED,
    ),
    "glm46v": Kind(
        "GLM-4.6V",
        "Glm46VForConditionalGeneration",
        "Glm46VProcessor",
        glm("Glm46VConfig"),
        glm_parts("Glm46VImageProcessor", "Glm46VVideoProcessor"),
        GLM_SPECIAL,
        GLM_CHAT,
        named=GLM_NAMED,
    ),
    "minicpmv": Kind(
        "MiniCPM-V 4.6",
        "MiniCPMV4_6ForConditionalGeneration",
        "MiniCPMV4_6Processor",
        minicpm,
        minicpm_parts,
        CHATML_SPECIAL,
        Chat(CHATML, "<|image_pad|>", CHATML_BEGIN),
        named=MINICPM_NAMED,
    ),
    "phi4": Kind(
        "Phi-4-multimodal",
        "Phi4MultimodalForCausalLM",
        "Phi4MultimodalProcessor",
        phi4,
        phi4_parts,
        ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        named={"image_token": "<|image|>", "audio_token": "<|audio|>"},
        strings=True,
        note="a conversation of several turns may differ in a batch: `max_batch=1` runs each alone",
    ),
    "aya_vision": Kind(
        "Aya Vision",
        "AyaVisionForConditionalGeneration",
        "AyaVisionProcessor",
        aya_vision,
        aya_parts,
        AYA_SPECIAL,
        Chat(
            COHERE_CHAT,
            "<image>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            bos="<BOS_TOKEN>",
        ),
        bos="<BOS_TOKEN>",
    ),
    "cohere2_vision": Kind(
        "Command A Vision (Cohere 2)",
        "Cohere2VisionForConditionalGeneration",
        "Cohere2VisionProcessor",
        cohere2_vision,
        cohere2_parts,
        COHERE_SPECIAL,
        Chat(
            COHERE_CHAT,
            "<|IMG_PATCH|>",
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            bos="<BOS_TOKEN>",
        ),
        named={
            "image_token": "<|IMG_PATCH|>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        bos="<BOS_TOKEN>",
    ),
    "kimi": Kind(
        "Kimi K2.5",
        "Kimi_K25ForConditionalGeneration",
        "Kimi_K25Processor",
        kimi,
        kimi_parts,
        KIMI_SPECIAL,
        Chat(
            "<|im_{role}|>{role}<|im_middle|>{content}<|im_end|>",
            "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
            "<|im_assistant|>assistant<|im_middle|>",
        ),
        named={"image_token": "<|media_pad|>", "video_token": "<|kimi_k25_video_placeholder|>"},
    ),
    "ovis2": Kind(
        "Ovis2",
        "Ovis2ForConditionalGeneration",
        "Ovis2Processor",
        ovis2,
        ovis2_parts,
        (*CHATML_SPECIAL, "<image>", "<IMG_ATOM>", *OVIS_INDICATORS),
        Chat(CHATML, "<image>\n", CHATML_BEGIN),
    ),
    "llama4": Kind(
        "Llama 4",
        "Llama4ForConditionalGeneration",
        "Llama4Processor",
        llama4,
        llama4_parts,
        LLAMA4_SPECIAL,
        Chat(
            "<|header_start|>{role}<|header_end|>\n\n{content}<|eot|>",
            "<|image|>",
            "<|header_start|>assistant<|header_end|>\n\n",
            bos="<|begin_of_text|>",
        ),
        bos="<|begin_of_text|>",
    ),
    "mllama": Kind(
        "Llama 3.2 Vision",
        "MllamaForConditionalGeneration",
        "MllamaProcessor",
        mllama,
        mllama_parts,
        MLLAMA_SPECIAL,
        Chat(
            LLAMA3,
            "<|image|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            bos="<|begin_of_text|>",
        ),
        bos="<|begin_of_text|>",
        note="trained on one image a question",
    ),
}
