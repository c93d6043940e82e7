"""The whole funnel on random-weight models of every family, from real classes and from disk."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torchvision
import transformers
from packaging.version import Version
from PIL import Image

from speceyes.errors import ConfigError
from speceyes.models.hf import HFModel
from speceyes.types import Conversation, Message, Sampling
from support.families import KINDS
from support.family_models import Chat, Kind, build_kind
from support_table import ONE, documented, examine, row_of

QUICK = ("qwen2_5_vl", "qwen3_vl", "mistral3", "mllama", "ovis2", "paligemma")
"""One of each way: driven by tokens, by the processor, cross-attention, visual words, no chat."""


DEFECTS = {
    "llama4": ("5.24", "5.25", "its outputs have no image_outputs"),
}
"""Families that some releases of transformers can't run: from, up to but without, and why."""
RESIZED_OTHERWISE = ("idefics3", "smolvlm")
"""Families that resize by Lanczos. Below torchvision 0.27 transformers' torchvision processors, as
the one in memory, take bicubic instead, and say so; the one that is loaded from a folder resizes
with Pillow then, as the checkpoint was trained.
"""


# PaliGemma's processor, of transformers 5.23, copies a tensor as numpy 2 would rather not.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.exhaustive) for n in KINDS]
)
def test_the_family_does_what_the_table_says(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    if kind.missing:
        pytest.skip(f"the installed transformers has no {', '.join(kind.missing)}")
    if name == "smolvlm" and importlib.util.find_spec("num2words") is None:
        pytest.skip("num2words, which SmolVLM's processor needs, is not installed")
    first, last, why = DEFECTS.get(name, ("0", "0", ""))
    if Version(first) <= Version(transformers.__version__) < Version(last):
        pytest.skip(f"transformers {transformers.__version__} itself can't run it: {why}")
    found = examine(kind, tmp_path)
    assert found.forward < 1e-4
    if name not in RESIZED_OTHERWISE or Version(torchvision.__version__) >= Version("0.27"):
        assert found.saved
    assert row_of(name, kind, found) == documented().get(name), (
        "docs/backbones.md is out of date: run python tests/support_table.py"
    )


def test_the_table_lists_every_family() -> None:
    assert list(documented()) == list(KINDS)


# --- templates ------------------------------------------------------------------------------

CHAT = "{%- for m in messages %}<{{ m.role }}>{%- for p in m.content %}{%- if p.type == 'image' %}"
CHAT += "<image>{%- else %}{{ p.text }}{%- endif %}{%- endfor %}{%- endfor %}"
STRINGS = "{%- for m in messages %}{{ '<' + m.role + '>' + m.content }}{%- endfor %}"
REPR = "{%- for m in messages %}<{{ m.role }}>{{ m.content }}{%- endfor %}"
NO_SYSTEM = "{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
DROPS_SYSTEM = CHAT.replace(
    "for m in messages", "for m in messages | rejectattr('role', 'equalto', 'system')"
)
PHOTO = Image.new("RGB", (60, 60), "teal")
SHORT = Sampling(max_tokens=2, top_k=4)


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    return build_kind(KINDS["llava"])


def _model(parts: tuple[Any, Any], template: str | None) -> HFModel:
    net, processor = parts
    processor.chat_template = template
    return HFModel(net, processor)


def _written(model: HFModel, *messages: Message, **more: Any) -> str:
    return model.prompt(Conversation(messages, **more)).text


SYSTEM = Message("system", ("Be brief.",))
USER = Message("user", (PHOTO, "What is it?"))


@pytest.mark.parametrize("template", [NO_SYSTEM + CHAT, DROPS_SYSTEM])
def test_a_system_message_without_a_place_begins_the_users_turn(
    parts: tuple[Any, Any], template: str
) -> None:
    model = _model(parts, template)
    assert _written(model, SYSTEM, USER) == "<user>Be brief.\n\n<image>What is it?"
    assert _written(model, USER) == "<user><image>What is it?"


def test_a_system_message_with_a_place_stays_there(parts: tuple[Any, Any]) -> None:
    assert _written(_model(parts, CHAT), SYSTEM, USER).startswith("<system>Be brief.<user>")


@pytest.mark.parametrize(
    "opened, closed",
    [
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("\u25c1think\u25b7", "\u25c1think\u25b7\u25c1/think\u25b7"),
        ("[THINK]", "[THINK][/THINK]"),
        ("<|channel>thought\n", "<|channel>thought\n<channel|>"),
    ],
)
def test_a_reasoning_block_that_the_template_opens_is_closed_for_judge_and_draft(
    parts: tuple[Any, Any], opened: str, closed: str
) -> None:
    template = CHAT + "{%- if add_generation_prompt %}{{- '<assistant>' }}{%- endif %}"
    template += "{{- " + repr(opened) + " }}"
    model = _model(parts, template)
    assert _written(model, USER).endswith(f"<assistant>{opened}")
    assert _written(model, USER, thinking=False).endswith(f"<assistant>{closed}")
    assert _written(model, USER, thinking=True).endswith(f"<assistant>{opened}")


def test_turns_of_one_role_become_one_where_they_must_alternate(parts: tuple[Any, Any]) -> None:
    turns = {"user": "<user>{content}", "assistant": "<assistant>{content}"}
    model = _model(parts, Chat(turns, "<image>", "", alternate=True).jinja())
    again = Message("user", ("And now?",))
    assert _written(model, USER, again) == "<user><image>What is it?\n\nAnd now?"
    said = Message("assistant", ("A cup.",))
    assert _written(model, USER, said, again).endswith("<assistant>A cup.<user>And now?")


@pytest.mark.parametrize("template", [STRINGS, REPR])
def test_a_template_that_takes_strings_gets_them(parts: tuple[Any, Any], template: str) -> None:
    model = _model(parts, template)
    assert _written(model, SYSTEM, USER) == "<system>Be brief.<user><image>What is it?"


def test_a_template_that_takes_nothing_says_why_and_neighbours_go_on(
    parts: tuple[Any, Any],
) -> None:
    template = "{%- if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
    model = _model(parts, template + CHAT)
    long = Conversation((USER, Message("assistant", ("A cup.",)), USER))
    bad, good = model.generate([long, Conversation((USER,))], SHORT)
    assert "one turn only" in (bad.error or "")
    assert good.error is None and len(good.token_ids) > 0


def test_tools_that_the_template_leaves_out_are_an_error(parts: tuple[Any, Any]) -> None:
    tool = {"type": "function", "function": {"name": "zoom_in", "parameters": {}}}
    conversation = Conversation((USER,), tools=(tool,))
    [completion] = _model(parts, CHAT).generate([conversation], SHORT)
    assert "zoom_in left out" in (completion.error or "")
    assert 'dialect="deepeyes"' in (completion.error or "")
    told = _model(parts, CHAT + "{%- for t in tools %}{{ t | tojson }}{%- endfor %}")
    assert "zoom_in" in _written(told, USER, tools=(tool,))


def test_an_argument_that_the_template_does_not_read_is_told_once(
    parts: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    net, processor = parts
    processor.chat_template = "{{ mood }}" + CHAT
    model = HFModel(net, processor, template_kwargs={"mood": "calm", "moood": "sad"})
    transformers_log = logging.getLogger("transformers")
    transformers_log.addHandler(caplog.handler)
    try:
        assert [_written(model, USER) for _ in range(2)] == ["calm<user><image>What is it?"] * 2
        assert all(one.error is None for one in model.generate([Conversation((USER,))] * 2, SHORT))
    finally:
        transformers_log.removeHandler(caplog.handler)
    told = [one.getMessage() for one in caplog.records]
    assert told == ["the chat template reads no moood of template_kwargs"]


def test_a_placeholder_in_a_text_ends_its_own_row_only(parts: tuple[Any, Any]) -> None:
    model = _model(parts, CHAT)
    fine = Conversation((USER,))
    [expected] = model.generate([fine], SHORT)
    # One image too many in the text, one too few: together they would count right.
    sly = Conversation((Message("user", ("<image> What is it?",)),))
    bad, good = model.generate([sly, fine], SHORT)
    assert "<image> must not be written" in (bad.error or "")
    assert (good.error, good.text) == (None, expected.text)


def test_no_chat_template_is_refused_but_for_paligemma(parts: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match=r"no chat template: set processor\.chat_template"):
        _model(parts, None)
    net, processor = build_kind(KINDS["paligemma"])
    two = Message("user", (PHOTO, "Left?", PHOTO, "Right?"))
    text = _written(HFModel(net, processor), SYSTEM, two)
    assert text == "<image><image><bos>Be brief.\nLeft?Right?\n"


def test_a_tokenizer_that_names_no_padding_pads_with_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind: Kind = KINDS["mistral3"]
    net, processor = build_kind(kind)
    padded = HFModel(net, processor).generate([ONE, Conversation((USER,))], SHORT)
    processor.tokenizer.pad_token = None
    with pytest.raises(ConfigError, match=r"no padding token.*eos_token"):
        HFModel(net, processor)
    net.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="speceyes"):
        model = HFModel.from_pretrained(tmp_path, device="cpu")
    assert "it is padded with </s>" in caplog.text
    done = model.generate([ONE, Conversation((USER,))], SHORT)
    assert [c.error for c in done] == [None, None]
    assert [c.text for c in done] == [c.text for c in padded]
