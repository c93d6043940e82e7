"""Each dialect held against its agent's published format: transcripts in that format, as data.

`python tests/support/conformance.py` writes the table of docs/conformance.md, that of profiles in
docs/dialects.md, and docs/transcripts.md.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from speceyes.dialects import NAMES, dialect, profile_of
from speceyes.tools import Tools
from speceyes.types import Message, Observation, Query

SIZE = (1000, 800)
"""Of the question's image; the model sees it as it is, or at the part that a profile shows."""

ZOOM = "image_zoom_in_tool"
BOX = [100, 200, 150, 250]


@dataclass(frozen=True)
class Format:
    """An agent's format, in the words of its repository's code.

    Args:
        source: Where it stands.
        call: A turn that asks for the 50x50 pixels at (100, 200) of the image, or runs a program.
        tool: The tool that is called for it.
        arguments: What that tool gets: boxes in pixels of the image.
        result: What the model is shown for a 50x50 picture, sizes in brackets; {again} is the
            dialect's text behind results.
        error: The same for the error "no".
        answer: A turn with the answer "red".
        role: Of the turn that shows a result.
        steps: Turns.
        tokens: New tokens of a turn.
        sampling: temperature, top_p, top_k, presence penalty.
        unverified: What is not known from the source.
    """

    source: str
    call: str
    tool: str
    arguments: Mapping[str, Any]
    result: str
    error: str
    answer: str = "<think>so</think><answer>red</answer>"
    role: str = "user"
    steps: int = 6
    tokens: int = 512
    sampling: tuple[float, float, int, float] = (0.0, 1.0, 0, 0.0)
    unverified: str = ""


def tagged(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def code(text: str) -> str:
    return f"<code>\n```python\n{text}\n```\n</code>"


QWEN = (0.7, 0.8, 20, 1.5)
HALF = tagged("request_local_region", '{"bbox_2d": [50, 100, 75, 125]}')
FORMATS: Mapping[str, Format] = {
    "adaptvision": Format(
        "AdaptVision/AdaptVision, scripts/vllm_adaptvision.py",
        HALF,
        ZOOM,
        {"bbox_2d": BOX},
        "<tool_response>\nThe region that you asked for:\n[56x56]\n</tool_response>\n{again}",
        "Error: no",
        "<think>so</think><answer>\\boxed{red}</answer>",
        steps=2,
        tokens=1_600,
    ),
    "chainoffocus": Format(
        "xtong-zhang/Chain-of-Focus, eval/vstar/vllm_inference.py",
        tagged(ZOOM, '{"bbox_2d": [100, 200, 150, 250], "label": "cup"}'),
        ZOOM,
        {"bbox_2d": [87, 187, 162, 262], "label": "cup"},
        "[112x112]{again}",  # a 50x50 picture, doubled
        "Error: no\n{again}",
    ),
    "deepeyes": Format(
        "Visual-Agent/DeepEyes, eval/ and verl/workers/agent/envs",
        tagged(ZOOM, '{"bbox_2d": [100, 200, 150, 250], "label": "cup"}'),
        ZOOM,
        {"bbox_2d": BOX, "label": "cup"},
        "<tool_response>[50x50]{again}</tool_response>",
        "Error: no",
        steps=11,
        tokens=10_240,
    ),
    "deepeyesv2": Format(
        "Visual-Agent/DeepEyesV2, evaluation/VLMEvalKit/vlmeval/api/agent_utils.py",
        code("image_1.crop((100, 200, 150, 250))"),
        "python",
        {"code": "image_1.crop((100, 200, 150, 250))"},
        "Code execution result:\nstdout:\n```\n\n```\n\nstderr:\n```\n\n```\n\nImages:\n[56x56]",
        "Code execution result:\nstdout:\n```\n\n```\n\nstderr:\n```\nno\n```",
        steps=11,
        tokens=20_480,
    ),
    "gemma": Format(
        "the chat template of Gemma 4",
        "<|channel>thought\nCloser.\n<channel|><|tool_call>call:image_zoom_in_tool"
        "{bbox_2d:[100,250,150,312.5]}<tool_call|>",
        ZOOM,
        {"bbox_2d": BOX},
        "[50x50]",
        "Error: no",
        "<|channel>thought\nso\n<channel|>red",
        steps=12,
        tokens=16_384,
        sampling=(1.0, 0.95, 64, 0.0),
        unverified="coordinates, turns, tokens, and where pictures of results stand: its template "
        "writes results as texts alone",
    ),
    "glm": Format(
        "zai-org/GLM-V, README; the chat template of GLM-4.6V",
        "<tool_call>image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n"
        "<arg_value>[100, 250, 150, 312.5]</arg_value>\n</tool_call>",
        ZOOM,
        {"bbox_2d": BOX},
        "[50x50]",
        "Error: no",
        "so</think>It is <|begin_of_box|>red<|end_of_box|>.",
        role="tool",
        steps=12,
        tokens=16_384,
        sampling=(0.8, 0.6, 2, 0.0),
        unverified="turns",
    ),
    "kimi": Format(
        "the chat templates of Kimi K2-Thinking and K2.5; MoonshotAI/Kimi-K2.5, README.md",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.image_zoom_in_tool:0"
        '<|tool_call_argument_begin|>{"bbox_2d": [100, 250, 150, 312.5]}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
        ZOOM,
        {"bbox_2d": BOX},
        "[50x50]",
        "Error: no",
        "so</think>red",
        role="tool",
        steps=30,
        tokens=24_576,
        sampling=(1.0, 0.95, 0, 0.0),
        unverified="coordinates",
    ),
    "minio3": Format(
        "Mini-o3, vllm_async_engine.py and verl/trainer/constants.py",
        '<grounding>{"bbox_2d": [0.1, 0.25, 0.15, 0.3125], "source": "original_image"}</grounding>',
        ZOOM,
        {"bbox_2d": BOX, "img_idx": 0},
        "After the above Action 0, the zoom-in image (Observation 1):\n[224x224]\n{again}",
        "Error: no\n{again}",
        steps=12,
        tokens=8_192,
    ),
    "openthinkimg": Format(
        "zhaochen0110/OpenThinkIMG, r1_v/open_r1/tool_grpo.py and "
        "tool_server/tf_eval/models/qwen2vl.py",
        '{"thought": "closer", "actions": [{"name": "OCR", "arguments": {"image": "img_1"}}]}',
        "OCR",
        {"img_idx": 0},
        "OBSERVATION:\n[50x50]\n{again}",
        "OBSERVATION:\nError: no\n{again}",
        '{"thought": "so", "actions": [{"name": "Terminate", "arguments": {"ans": "red"}}]}',
        steps=3,
        tokens=2_048,
    ),
    "pixelreasoner": Format(
        "TIGER-AI-Lab/Pixel-Reasoner, experience_maker.py",
        tagged(
            "crop_image_normalized", '{"bbox_2d": [0.1, 0.25, 0.15, 0.3125], "target_image": 1}'
        ),
        ZOOM,
        {"bbox_2d": [0, 120, 250, 330], "img_idx": 0},
        "Here is the cropped image (Image Size: 448x448):[448x448]",
        "Error: no",
        "so it is \\boxed{red}.",
        steps=5,
        tokens=2_048,
    ),
    "pyvision": Format(
        "agents-x-project/PyVision-RL, verl_agents/verl/workers/agent/envs/agents_x",
        code("plt.show()"),
        "python",
        {"code": "plt.show()", "variables": "image_clue_{index}"},
        "<tool_response>\n<interpreter>Text Result:\n\nImage Result:\n"
        "<image_clue_1>[50x50]</image_clue_1></interpreter>\n\n</tool_response>",
        "<tool_response>\n<interpreter>Execution error: no</interpreter>\n\n</tool_response>",
        "<think>so</think><answer>\\boxed{red}</answer>",
        steps=30,
        tokens=10_240,
    ),
    "qwen3vl": Format(
        "QwenLM/Qwen-Agent, qwen_agent/tools/image_zoom_in_qwen3vl.py and settings.py; "
        "QwenLM/Qwen3-VL, cookbooks/think_with_images.ipynb",
        tagged(ZOOM, '{"bbox_2d": [100, 250, 150, 312.5], "label": "cup", "img_idx": 0}'),
        ZOOM,
        {"bbox_2d": BOX, "label": "cup", "img_idx": 0},
        "<tool_response>\n[512x512]\n</tool_response>",
        "<tool_response>\nError: no\n</tool_response>",
        "so</think>red",
        steps=20,
        tokens=32_768,
        sampling=QWEN,
    ),
    "sensenova": Format(
        "OpenSenseNova/SenseNova-MARS, config/tool_config/tools_val.yaml",
        tagged(ZOOM, '{"bbox_2d": [100, 250, 150, 312.5], "label": "cup", "img_idx": 0}'),
        ZOOM,
        {"bbox_2d": BOX, "label": "cup", "img_idx": 0},
        "<tool_response>\n[256x256]\n</tool_response>",
        "<tool_response>\nError: no\n</tool_response>",
        steps=10,
        tokens=8_192,
        sampling=(1.0, 1.0, 20, 1.5),
    ),
    "thyme": Format(
        "yfzhang114/Thyme, eval/utils.py and eval/VLMEvalKit/vlmeval/vlm/thyme/sandbox.py",
        "<think>Closer. " + code("print(processed_path)"),
        "python",
        {"code": "print(processed_path)", "clamp": True},
        "<sandbox_output>[50x50]</sandbox_output>",
        "<sandbox_output>Error: no</sandbox_output>",
        role="assistant",
        steps=5,
        tokens=2_048,
    ),
    "vilasr": Format(
        "AntResearchNLP/ViLaSR, eval/infer.py and utils/edit_image.py",
        "<think>I draw.</think> Action: Object Mapper\n```json\n"
        '[{"index": 1, "bbox_2d": [100, 200, 150, 250], "label": "cup"}]\n```',
        "object_mapper",
        {"img_idx": 0, "objects": [{"bbox_2d": BOX, "label": "cup"}]},
        "[50x50]The index of the given image is 2 (width: 50, height: 50).\n{again}",
        "Error: no\n{again}",
        "<think>so</think> Action: Answer\n<answer>red</answer>",
        steps=10,
        tokens=16_384,
        sampling=(0.75, 0.9, 0, 0.0),
    ),
    "visionthink": Format(
        "dvlab-research/VisionThink, scripts/vllm_tool.py",
        tagged("resize_image", '{"action": "resize"}'),
        "resize_image",
        {"action": "resize"},
        "<tool_response>\nThe image at its full resolution:\n[50x50]\n</tool_response>\n{again}",
        "Error: no",
        "<think>so</think><answer>\\boxed{red}</answer>",
        steps=2,
        tokens=8_192,
    ),
    "vthinker": Format(
        "We-Math/V-Thinker, eval/vtbench_IR/utils.py",
        "<think>I draw. '''python\nprint(processed_path)\n'''",
        "python",
        {"code": "print(processed_path)", "clamp": True},
        "<sandbox_output>[50x50]</sandbox_output>",
        "<sandbox_output>Error: no</sandbox_output>",
        role="assistant",
        steps=5,
        tokens=16_384,
    ),
    "xml": Format(
        "the chat templates of Qwen3.5, Qwen3.6 and Step-3.7-Flash; Qwen3.5's model cards; "
        "modelscope/ms-swift, swift/template/templates/qwen.py",
        "<tool_call>\n<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n"
        "[100, 250, 150, 312.5]\n</parameter>\n<parameter=label>\ncup\n</parameter>\n</function>\n"
        "</tool_call>",
        ZOOM,
        {"bbox_2d": BOX, "label": "cup"},
        "[512x512]",
        "Error: no",
        "so</think>red",
        role="tool",
        steps=20,
        tokens=32_768,
        sampling=(1.0, 0.95, 20, 1.5),
        unverified="crop sizes; of Step-3.7 all but its calls",
    ),
}


def table() -> str:
    """The table in Markdown."""

    def cell(text: str) -> str:
        text = text.replace("|", "\\|").replace("\n", "\u23ce")
        return f"`{text}`" if text else ""

    lines = [
        "| dialect | published in | a call | a result (picture 50x50) | an error | turns, tokens | "
        "temperature, top_p, top_k, presence | not verified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in FORMATS.items():
        cells = (
            f"`{name}`",
            one.source,
            cell(one.call),
            cell(one.result),
            cell(one.error),
            f"{one.steps}, {one.tokens:,}",
            ", ".join(f"{value:g}" for value in one.sampling),
            one.unverified,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profiles() -> str:
    """The table of profiles in Markdown."""

    def pixels(limits: tuple[int, int] | None, otherwise: str) -> str:
        return otherwise if limits is None else f"{limits[0]:,} to {limits[1]:,}"

    lines = [
        "| name | turns | tokens a turn | images shown at (pixels) | crops shown at | sides | "
        "temperature |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        one = profile_of(dialect(name))
        part = "" if one.image_scale == 1 else f"at {one.image_scale:g} of their sides, "
        cells = (
            f"`{name}`",
            str(one.max_steps),
            f"{one.max_tokens:,}",
            part + pixels(one.image_pixels, "the model's own limits"),
            pixels(one.crop_pixels, "as images"),
            f"multiples of {one.factor}" if one.crop_pixels or one.image_pixels else "",
            f"{one.temperature:g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def transcripts() -> str:
    """A trajectory in each dialect, turn by turn, in Markdown."""
    photo = Image.effect_noise(SIZE, 60).convert("RGB")
    picture = photo.crop((100, 200, 150, 250))
    parts: list[str] = []
    for name, one in FORMATS.items():
        speaks: Any = dialect(name)
        tools = Tools([tool for tool in profile_of(speaks).tools if tool != "python"])
        query = Query("Which colour is the cup?", (photo,), choices=("red", "blue"))
        way = speaks.open(query, tuple(tools))
        for seen, last in ((Observation((picture,)), False), (Observation(error="no"), True)):
            way = speaks.observe(way, one.call, [seen], last=last)
        told = list(way.messages)
        told.append(Message("assistant", (*way.begun, one.answer)))
        asked = speaks.ask_judge(query, tuple(tools)).messages[-1]
        lines = []
        if way.tools:
            names = ", ".join(tool.name for tool in tools)
            lines += [f"[tools, through the chat template] {names}"]
        lines += [f"[{message.role}] {_words(message)}" for message in told]
        lines += ["", f"[the judge is asked] {_words(asked)}"]
        parts.append(f"## {name}\n\n" + textwrap.indent("\n".join(lines), "    "))
    return "\n\n".join(parts)


def _words(message: Message) -> str:
    said = "".join(
        part if isinstance(part, str) else f"[image {part.width}x{part.height}]"
        for part in message.content
    )
    for call in message.calls:
        said += f"[call {call.id}: {call.name} {json.dumps(dict(call.arguments))}]"
    return "\n".join(line.rstrip() for line in said.strip().splitlines())


BEGIN, END = "<!-- table -->", "<!-- end of table -->"
PAGES: Mapping[str, Callable[[], str]] = {
    "conformance.md": table,
    "dialects.md": profiles,
    "transcripts.md": transcripts,
}


def page(text: str, made: str) -> str:
    """A page with what is made for it in its place."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for name, make in PAGES.items():
        place = Path(__file__).parents[2] / "docs" / name
        place.write_text(page(place.read_text(encoding="utf-8"), make()), encoding="utf-8")
        sys.stdout.write(f"{place} is up to date\n")
