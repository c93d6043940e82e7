"""What is found when a family is run, and the table in docs/backbones.md that says it.

Run as a script, it examines every family and writes the table anew:
`python tests/support_table.py` from the checkout, with the package installed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

from speceyes import Query, SpecPipeline
from speceyes.dialects import dialect
from speceyes.gate import SeparabilityGate
from speceyes.models.hf import HFModel
from speceyes.models.hf.pixels import QwenPixels, pixels_of
from speceyes.pipeline import AgentConfig, DraftConfig, JudgeConfig
from speceyes.types import Completion, Conversation, Message, Result, Sampling, ToolCall, Turn
from support.families import KINDS
from support.family_models import Kind, build_kind

_OTHER = "its image processor is not that of the Qwen-VL families"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "backbones.md"
BEGIN, END = "<!-- the table: written by tests/support_table.py -->", "<!-- end of the table -->"
HEAD = (
    "| family | model type | judge | draft | agent | several images | batch = single "
    "| reuse of prefixes | remarks |\n|---|---|---|---|---|---|---|---|---|"
)
GREEDY = Sampling(max_tokens=8, top_k=8)
WORDS = "Is there a yellow triangle above the cup?"


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Blocks of random colours, which look different to a model with random weights."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


ONE = Conversation((Message("user", (picture(0, 120, 90), WORDS)),))
TWO = Conversation((Message("user", (picture(1, 40, 100), picture(2, 90, 60), "Which is red?")),))
CHANGED = tuple(
    Conversation((Message("user", (first, second, "Which is red?")),))
    for first, second in (
        (picture(9, 40, 100), TWO.images[1]),
        (TWO.images[0], picture(9, 90, 60)),
    )
)
LONG = Conversation(
    (
        Message("system", ("You are a helpful assistant.",)),
        Message("user", (picture(3, 100, 100), "Where is the cup?")),
        Message("assistant", ("I look closer.",)),
        Message("user", ("This is what it looks like.", picture(4, 60, 60), "Answer.")),
    )
)


class AlwaysZoom:
    """DeepEyes' dialect, to which any babble is a call: random weights never write one."""

    def __init__(self) -> None:
        self._inner = dialect("deepeyes")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def parse(self, text: str) -> Turn:
        call = ToolCall("image_zoom_in_tool", {"bbox_2d": [len(text) % 2]}, text)
        return Turn(calls=(call,))

    def locate(self, call: ToolCall, images: Any, seen: Any) -> ToolCall:
        """The upper or the lower three quarters of the first image: its own pixels, whatever size
        a family's processor claims to show it in.
        """
        width, height = images[0].size
        top = call.arguments["bbox_2d"][0] * height // 4
        return replace(call, arguments={"bbox_2d": [0, top, width, top + height * 3 // 4]})


@dataclass(frozen=True)
class Findings:
    """What a family was seen to do.

    Args:
        judge: Every query was judged by a probability.
        draft: Every query was drafted, with its log-probabilities.
        agent: Every query's agent zoomed twice and was shown the crops.
        several: Two images, and images in two turns, were read, and each of two counted.
        batch: The largest difference between a row in a batch and the same row alone, nats;
            infinite where texts, or the funnel's results, differ.
        forward: The largest difference of the top-K log-probabilities from `model(...).logits`
            on what the processor itself makes of the same conversation, nats.
        saved: The checkpoint that was saved and loaded answered as the model in memory.
        reuse: "" where the model is driven by tokens, else why not.
    """

    judge: bool
    draft: bool
    agent: bool
    several: bool
    batch: float
    forward: float
    saved: bool
    reuse: str


def apart(one: Completion, other: Completion) -> float:
    """The largest difference of log-probabilities in nats; infinite where tokens differ."""
    assert one.error is None and other.error is None, one.error or other.error
    if (one.text, one.token_ids, one.finish) != (other.text, other.token_ids, other.finish):
        return float("inf")
    return float(np.abs(one.top_logprobs - other.top_logprobs).max(initial=0.0))


def _inputs(kind: Kind, processor: Any, conversation: Conversation, model: HFModel) -> Any:
    """What the processor itself makes of a conversation of one user turn."""
    [message] = conversation.messages
    images = list(message.images)
    # Resized by the same rule, with other rounding.
    if isinstance(pixels_of(processor.image_processor), QwenPixels):
        images = [image.resize(model.seen_size(image)) for image in images]
    if kind.chat is not None and not kind.strings:
        shown = iter(images)
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": next(shown)}
            for part in message.content
        ]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    marks = processor.image_token * len(images)
    text = f"<|user|>{marks}{message.text}<|end|><|assistant|>"
    if kind.chat is None:
        text = f"{marks}{kind.bos}{message.text}\n"
    return processor(text=[text], images=[images], return_tensors="pt")


def full_forward(
    kind: Kind, model: HFModel, net: Any, processor: Any, conversation: Conversation
) -> tuple[Completion, npt.NDArray[np.float32]]:
    """A completion, and float32[n, K] of it by one pass over prompt and answer."""
    [completion] = model.generate([conversation], GREEDY)
    assert completion.error is None, completion.error
    made = dict(_inputs(kind, processor, conversation, model))
    made.pop("labels", None)
    inputs = {key: torch.as_tensor(value) for key, value in made.items()}
    answer = torch.tensor([completion.token_ids])
    n = answer.shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in inputs.items()}
    # PaliGemma reads its whole prompt in both directions; 1 marks what comes after it.
    for key, filling in (("mm_token_type_ids", 0), ("token_type_ids", int(kind.chat is None))):
        if key in inputs:
            inputs[key] = torch.cat([inputs[key], torch.full_like(answer, filling)], dim=1)
    if "cross_attention_mask" in inputs:
        seen = inputs["cross_attention_mask"]
        inputs["cross_attention_mask"] = torch.cat([seen, *[seen[:, -1:]] * n], dim=1)
    if hasattr(getattr(net, "model", None), "rope_deltas"):
        net.model.rope_deltas = None  # kept from the last call
    with torch.no_grad():
        logits = net(**inputs).logits[0, -n - 1 : -1]
    top = logits.float().log_softmax(dim=-1).topk(GREEDY.top_k, dim=-1).values
    return completion, top.numpy()


def _queries() -> list[Query]:
    shown = [(picture(5, 96, 64),), (picture(6, 57, 100), picture(7, 70, 70))]
    return [Query(f"{WORDS} {i}", images, id=f"q{i}") for i, images in enumerate(shown)]


def _told(result: Result) -> tuple[Any, ...]:
    """What must be the same for a query alone as among others."""
    way, judgement = result.trajectory, result.judgement
    steps = [(s.text, s.calls, [o.box for o in s.observations]) for s in way.steps] if way else None
    needs = judgement.needs_tools if judgement else None
    return result.route, result.answer, needs, result.draft and result.draft.text, steps


def examine(kind: Kind, directory: Path) -> Findings:
    """Runs a family: in memory, from disk, in batches, alone, and through the funnel."""
    net, processor = build_kind(kind)
    net.save_pretrained(directory)
    processor.save_pretrained(directory)
    loaded = HFModel.from_pretrained(directory, device="cpu")
    held = HFModel(net, processor)
    rows = (ONE, TWO, LONG)
    together = loaded.generate(rows, GREEDY)
    alone = [loaded.generate([row], GREEDY)[0] for row in rows]
    batch = max(map(apart, together, alone))
    saved = max(map(apart, together, held.generate(rows, GREEDY))) < 1e-4
    several = all(
        np.abs(other.top_logprobs[0] - alone[1].top_logprobs[0]).max() > 1e-3
        for other in held.generate(CHANGED, GREEDY)
    )
    forward = 0.0
    for row in (ONE, TWO):
        completion, expected = full_forward(kind, held, net, processor, row)
        forward = max(forward, float(np.abs(completion.top_logprobs - expected).max()))

    talk: Any = AlwaysZoom()
    shared: dict[str, Any] = {"agent": AgentConfig(3, 6), "draft": DraftConfig(6), "dialect": talk}
    agent = SpecPipeline.from_pretrained(
        loaded, None, gate=SeparabilityGate(0.5, top_k=8), **shared
    )
    drafter = SpecPipeline.from_pretrained(
        loaded,
        loaded,
        gate=SeparabilityGate(0.0, top_k=8),
        judge=JudgeConfig(threshold=1.0),
        **shared,
    )
    queries = _queries()
    ways, drafts = agent(queries), drafter(queries)
    same = all(
        _told(pipe(query)) == _told(result)
        for pipe, results in ((agent, ways), (drafter, drafts))
        for query, result in zip(queries, results, strict=True)
    )
    return Findings(
        judge=all(
            r.judgement is not None
            and r.judgement.completion is not None
            and r.judgement.completion.error is None
            and (r.judgement.p_tools is not None or r.judgement.needs_tools)
            for r in drafts
        ),
        draft=all(
            r.draft is not None and r.draft.error is None and len(r.draft.top_logprobs) > 0
            for r in drafts
            if r.judgement is not None and not r.judgement.needs_tools
        ),
        agent=all(_zoomed(r) for r in ways),
        several=several,
        batch=batch if same else float("inf"),
        forward=forward,
        saved=saved,
        reuse=held.driver.reason,
    )


def _zoomed(result: Result) -> bool:
    way = result.trajectory
    if way is None or len(way.steps) != 3 or any(step.error for step in way.steps):
        return False
    seen = [len(step.observations) == 1 and step.observations[0].images for step in way.steps[:2]]
    read = [step.prompt_tokens for step in way.steps]
    return all(seen) and read[0] < read[1] < read[2]


def _reuse(why: str) -> str:
    """A cell of the table; what holds for most families is said above it."""
    return "no" if why == _OTHER else f"no: {why}" if why else "yes"


def row_of(name: str, kind: Kind, found: Findings) -> str:
    """The family's line of the table."""
    said = ["yes" if fact else "no" for fact in (found.judge, found.draft, found.agent)]
    said += ["yes" if found.several else "no", "yes" if found.batch < 1e-4 else "no"]
    said.append(_reuse(found.reuse))
    kind_name = f"`{name}`"
    return f"| {kind.title} | {kind_name} | {' | '.join(said)} | {kind.note} |"


def documented() -> dict[str, str]:
    """The table's lines, by model type."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in table.strip().splitlines() if line.startswith("| ")][1:]
    return {row.split("|")[2].strip(" `"): row for row in rows}


def main() -> None:
    transformers.logging.set_verbosity_error()
    rows = []
    for name, kind in KINDS.items():
        if kind.missing:
            sys.exit(f"transformers {transformers.__version__} lacks {', '.join(kind.missing)}")
        with tempfile.TemporaryDirectory() as directory:
            found = examine(kind, Path(directory))
        sys.stderr.write(f"{name}: {found}\n")
        rows.append(row_of(name, kind, found))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    table = "\n".join([BEGIN, "", HEAD, *rows, "", END])
    PAGE.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
