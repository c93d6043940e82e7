"""Checkpoints from folders: limits, placement, and plain words for what can't be loaded or run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from speceyes.errors import ConfigError
from speceyes.models import HFModel
from speceyes.types import Conversation, Message, Sampling
from support.odd_models import blip_2, florence_2, janus, save_odd
from support.random_models import FAMILIES, build, save, tokenizer

GREEDY = Sampling(max_tokens=6, top_k=8)
PICTURE = Image.linear_gradient("L").convert("RGB").resize((300, 200))
ASKED = [Conversation((Message("user", (PICTURE, "What is it?")),))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen3_vl", tmp_path_factory.mktemp("models") / "whole")


def copied(checkpoint: Path, to: Path) -> Path:
    to.mkdir()
    for file in checkpoint.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def load(source: Path | str, **options: Any) -> HFModel:
    return HFModel.from_pretrained(source, device="cpu", local_files_only=True, **options)


def refused(source: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(source: str) -> None:
    assert "there is no folder" in refused(source)


def test_a_folder_without_a_checkpoint_tells_what_it_holds(tmp_path: Path) -> None:
    assert "it holds nothing" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    assert "no config.json (it holds notes.txt)" in refused(tmp_path)


def test_a_model_of_text_alone(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(vocab_size=400, num_attention_heads=2, num_key_value_heads=2, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert "one of text alone" in refused(tmp_path)


def test_weights_that_are_cut_off(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "cut")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert "cut off or damaged" in refused(folder)


def test_weights_that_are_not_there_are_never_made_up(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.0.mlp.up_proj.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found = refused(folder)
    assert "lacks 1 of the model's weights" in found and "mlp.up_proj" in found


def test_an_adapter_without_peft_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speceyes.models.hf.load.find_spec", lambda name: None)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "a/b"}))
    found = refused(tmp_path)
    assert "LoRA adapter for 'a/b'" in found and "pip install peft" in found
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "names no base model" in refused(tmp_path)


def test_an_adapter_is_loaded_upon_its_base(checkpoint: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    net, _ = build("qwen3_vl")
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    tuned = peft.get_peft_model(net, config)
    tuned.peft_config["default"].base_model_name_or_path = str(checkpoint)
    tuned.save_pretrained(tmp_path / "lora")
    plain, model = load(checkpoint), load(tmp_path / "lora")
    assert model.name == "lora"
    [before], [after] = plain.generate(ASKED, GREEDY), model.generate(ASKED, GREEDY)
    assert after.error is None
    assert not np.allclose(before.top_logprobs[0], after.top_logprobs[0], atol=1e-3)


def test_pixels_of_an_image_can_be_limited(checkpoint: Path) -> None:
    def area(**limits: int) -> int:
        width, height = load(checkpoint, **limits).seen_size(PICTURE)
        return width * height

    assert area(max_pixels=4096) <= 4096 < area()
    assert area(min_pixels=2 * area(), max_pixels=1 << 20) >= 2 * area()
    few, many = (load(checkpoint, max_pixels=n).generate(ASKED, GREEDY)[0] for n in (4096, 65536))
    assert few.error is many.error is None and few.prompt_tokens < many.prompt_tokens
    assert "above 0" in refused(checkpoint, max_pixels=-1)
    assert "not above the most" in refused(checkpoint, min_pixels=9000, max_pixels=8000)


def test_a_model_on_several_devices_is_driven_by_generate() -> None:
    net, processor = build(FAMILIES[0])
    wanted = HFModel(net, processor).generate(ASKED, GREEDY)[0]
    net.hf_device_map = {"model.visual": "cuda:0", "model.language_model": "cuda:1"}
    model = HFModel(net, processor)
    assert model.driver.name == "generate"
    assert "several devices (cuda:0, cuda:1)" in model.driver.reason
    assert model.generate(ASKED, GREEDY)[0].token_ids == wanted.token_ids


def test_what_cannot_be_run_is_refused_at_load(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A family whose generate fails on every prompt, as some captioners' does.
    monkeypatch.setattr(
        "speceyes.models.hf.model.unsupported_reason", lambda model: "it is another family"
    )

    def fails(*args: Any, **named: Any) -> None:
        raise IndexError("index 7 is out of bounds for dimension 0")

    from transformers import Qwen3VLForConditionalGeneration

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "generate", fails)
    found = refused(checkpoint)
    assert "can't run" in found and "index 7" in found and "docs/backbones.md" in found
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("source", ["http://localhost:8000/v1#m", "localhost:8000/v1", "gpu-1:80"])
def test_an_engine_s_address_is_told_from_a_checkpoint(source: str) -> None:
    assert "is an engine's address" in refused(source) and "OpenAIModel" in refused(source)


@pytest.mark.parametrize(
    "parts, why",
    [
        (blip_2, "has no chat template"),
        (florence_2, "is an encoder-decoder"),
        (janus, "hands no scores to logits processors"),
    ],
)
def test_families_that_cannot_be_asked_are_refused_at_load(
    tmp_path: Path, parts: Any, why: str
) -> None:
    assert why in refused(save_odd(parts(), tmp_path))


TEXT_ONLY = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    "template, why",
    [
        (TEXT_ONLY, "0 places for images"),
        ("{% for m in messages %}{{ m.content", "TemplateSyntaxError"),
        ("{{ raise_exception('no chats') }}", "no chats"),
    ],
)
def test_a_template_that_cannot_show_a_picture_is_refused_at_load(
    checkpoint: Path, tmp_path: Path, template: str, why: str
) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    found = refused(folder)
    assert "can't be asked about a picture" in found and why in found


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 12345\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_pointer_of_git_lfs_is_no_file(checkpoint: Path, tmp_path: Path, name: str) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    (folder / name).write_text(POINTER)
    found = refused(folder)
    assert f"{name} is a Git LFS pointer" in found and "git lfs pull" in found


@pytest.mark.parametrize(
    "gone, why",
    [
        (("tokenizer.json",), "has no tokenizer"),
        (("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
        (("processor_config.json",), "has no image processor"),
        (("model.safetensors",), "has no weights"),
    ],
)
def test_files_that_are_missing_are_named(
    checkpoint: Path, tmp_path: Path, gone: tuple[str, ...], why: str
) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    for name in gone:
        (folder / name).unlink()
    assert why in refused(folder)


@pytest.mark.parametrize(
    "config, why",
    [
        ("{", "config.json can't be read"),
        ("{}", "names no model_type"),
        ('{"model_type": "vl_of_next_year"}', "knows no family 'vl_of_next_year'"),
        ('{"model_type": "llama"}', "no vision-language model, perhaps one of text alone"),
    ],
)
def test_configurations_that_say_nothing(
    checkpoint: Path, tmp_path: Path, config: str, why: str
) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    (folder / "config.json").write_text(config)
    assert why in refused(folder)


@pytest.mark.parametrize("kept", [0, 5, 40, 0.3, 0.999])
def test_weights_are_cut_off_wherever(checkpoint: Path, tmp_path: Path, kept: float) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    data = (folder / "model.safetensors").read_bytes()
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    (folder / "model.safetensors").write_bytes(data[:end])
    found = refused(folder)
    assert "model.safetensors" in found and "cut off or damaged" in found
    (folder / "model.safetensors").write_text("<!DOCTYPE html><html>" * 40)
    assert "no file of safetensors" in refused(folder)


def test_a_part_of_the_weights_that_was_not_downloaded(checkpoint: Path, tmp_path: Path) -> None:
    folder = copied(checkpoint, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    placed = {name: parts[i % 2] for i, name in enumerate(weights)}
    for part in parts:
        some = {name: weights[name] for name, at in placed.items() if at == part}
        save_file(some, folder / part, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    # What another layout's index names isn't read.
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "gone.bin"}}')
    assert load(folder).generate(ASKED, GREEDY)[0].error is None
    (folder / parts[1]).unlink()
    assert "lacks 1 of the files of weights" in refused(folder)


DISK = ("model.visual", "model.language_model", "lm_head")


@pytest.mark.parametrize("on_disk", [0, 1, 2])
def test_a_part_on_the_disk_answers_as_the_whole_does(
    checkpoint: Path, tmp_path: Path, on_disk: int
) -> None:
    wanted = load(checkpoint).generate(ASKED, GREEDY)[0].token_ids
    placed = {part: "disk" if i == on_disk else "cpu" for i, part in enumerate(DISK)}
    model = load(checkpoint, device_map=placed, offload_folder=str(tmp_path / "disk"))
    assert model.driver.name == "generate" and str(model.device) == "cpu"
    assert model.generate(ASKED, GREEDY)[0].token_ids == wanted


@pytest.mark.parametrize("place", ["disk", "meta"])
def test_a_model_that_is_on_no_device_is_refused(
    checkpoint: Path, tmp_path: Path, place: str
) -> None:
    found = refused(checkpoint, device_map={"": place}, offload_folder=str(tmp_path / "disk"))
    assert "leaves no layer on a device" in found


def test_an_adapter_s_base_is_looked_at_too(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lora = tmp_path / "lora"
    lora.mkdir()
    for base, why in (("/nowhere/base", "there is no folder"), (str(tmp_path), "no config.json")):
        (lora / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        found = refused(lora)
        assert "LoRA adapter whose base model can't be loaded" in found and why in found
    (lora / "adapter_model.safetensors").write_text(POINTER)
    assert "adapter_model.safetensors is a Git LFS pointer" in refused(lora)


def test_an_argument_that_no_model_takes_is_named(checkpoint: Path) -> None:
    assert "takes no argument nonsense" in refused(checkpoint, nonsense=3)
