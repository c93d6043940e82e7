"""Windows of an image that are looked at together: the same features, and how many calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from speceyes.models.hf.qwen_vl_adapter import QwenVLAdapter
from speceyes.models.hf.vision_windows import NAME, windows_at_once
from support.random_models import FAMILIES, build


class Calls(TorchDispatchMode):  # type: ignore[misc]
    """Counts attention calls."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.attention += "scaled_dot_product" in name or "flash_attention" in name
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 8,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 14,
        "out_hidden_size": 32,
        "window_size": 112,
        "fullatt_block_indexes": [3, 7],
    }
    ids = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return Qwen2_5_VLForConditionalGeneration(config).eval()


def pixels(grids: list[tuple[int, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    patches = sum(t * h * w for t, h, w in grids)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(patches, 3 * 2 * 14 * 14, generator=generator), torch.tensor(grids)


def encoded(model: Any, grids: list[tuple[int, int, int]]) -> tuple[list[torch.Tensor], Calls]:
    with torch.inference_mode(), Calls() as calls:
        found = QwenVLAdapter(model).encode_images(*pixels(grids))
    return [one.merged for one in found], calls


@pytest.mark.parametrize(
    "grids",
    [[(1, 16, 16)], [(1, 18, 22)], [(1, 4, 6)], [(1, 10, 14), (1, 32, 24), (1, 6, 40)]],
    ids=["whole windows", "ragged", "one window", "several images"],
)
def test_the_features_are_those_of_one_window_at_a_time(model: Any, grids: Any) -> None:
    with torch.inference_mode():
        plain = model.model.get_image_features(*pixels(grids), return_dict=True).pooler_output
    together, _ = encoded(model, grids)
    assert model.model.visual.config._attn_implementation == "sdpa"
    for one, other in zip(together, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_calls_and_waits_do_not_grow_with_the_image(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"tolist": 0, "item": 0}
    for name in waits:
        plain = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, name: str = name, plain: Any = plain) -> Any:
            waits[name] += 1
            return plain(tensor)

        monkeypatch.setattr(torch.Tensor, name, counted)
    with torch.inference_mode(), Calls() as before:
        model.model.get_image_features(*pixels([(1, 58, 80)]), return_dict=True)
    waited = sum(waits.values())
    waits |= dict.fromkeys(waits, 0)
    _, after = encoded(model, [(1, 58, 80)])
    spared = waited - sum(waits.values())
    _, larger = encoded(model, [(1, 114, 160)])
    assert before.attention > 400  # 6 layers of 80 windows, and two of one
    assert after.attention == larger.attention <= 6 * 4 + 2
    assert spared > 10, (waited, waits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "sides", [[8] * 12, [8, 8, 4, 8, 4, 6], [4]], ids=["one size", "three sizes", "one image"]
)
def test_images_of_one_size_are_looked_at_together(family: Any, sides: list[int]) -> None:
    net = build(family)[0]
    grids = [(1, side, side + 2) for side in sides]
    config = net.model.visual.config
    width = config.patch_size**2 * 3 * config.temporal_patch_size
    values = torch.randn(
        sum(down * across for _, down, across in grids),
        width,
        generator=torch.Generator().manual_seed(2),
    )
    with torch.inference_mode():
        plain = net.model.get_image_features(values, torch.tensor(grids), return_dict=True)
        with Calls() as calls:
            together = QwenVLAdapter(net).encode_images(values, torch.tensor(grids))
    for one, other in zip(together, plain.pooler_output, strict=True):
        torch.testing.assert_close(one.merged, other, atol=2e-5, rtol=1e-4)
    if family == "qwen3_vl":
        assert calls.attention == config.depth * len(set(sides))


def test_what_was_chosen_by_hand_stays(model: Any) -> None:
    config = model.model.visual.config
    config._attn_implementation = "eager"
    try:
        with windows_at_once(model.model.visual):
            assert config._attn_implementation == "eager"
    finally:
        config._attn_implementation = "sdpa"
    with pytest.raises(RuntimeError), windows_at_once(model.model.visual):
        assert config._attn_implementation == NAME
        raise RuntimeError
    assert config._attn_implementation == "sdpa" and "qwen2_5_vl" in FAMILIES
