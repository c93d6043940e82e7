"""Costs of the phases on an accelerator, worked out from sizes alone (a roofline model).

A step takes as long as the slower of its arithmetic at a share of the peak rate and its memory
traffic at a share of the peak bandwidth (Williams, Waterman and Patterson, "Roofline", 2009).
Prefill and image encoding are bound by arithmetic, decoding by reading the weights, which a batch
shares, and each query's keys and values. Published serving figures are met within about a third;
use it to compare settings, and measure before you rely on a figure.

`python -m speceyes.tuning.roofline` prints the table of docs/engines.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from speceyes.checks import checked_number, checked_whole
from speceyes.errors import ConfigError
from speceyes.models.sizes import Shape, named
from speceyes.tuning.worth import PhaseCosts, worth

_BYTES: Final = 2
"""Of a weight, and of a number in the cache (bfloat16)."""
PREFILL, ENCODE, DECODE, READ = 0.5, 0.4, 0.6, 0.7
"""Shares of the peak that prefill, image encoding and decoding reach in arithmetic, and of the
peak bandwidth that decoding reaches: round figures in the range that engines report."""


@final
@dataclass(frozen=True, slots=True)
class Accelerator:
    """Peak rates of a device.

    Args:
        flops: Operations a second in bfloat16, dense.
        bandwidth: Bytes a second of its memory.
    """

    flops: float
    bandwidth: float


ACCELERATORS: Final[Mapping[str, Accelerator]] = {
    "A100-40": Accelerator(312e12, 1.555e12),
    "H100": Accelerator(989e12, 3.35e12),
    "H200": Accelerator(989e12, 4.8e12),
}
"""From the makers' data sheets (A100 40 GB PCIe and SXM, H100 SXM, H200 SXM)."""


@final
@dataclass(frozen=True, slots=True)
class Workload:
    """Queries as an engine sees them.

    Args:
        width: Of the image, pixels.
        height: Of the image, pixels.
        text_tokens: Tokens of a prompt besides the image.
        turns: Turns of the agent; each but the last looks at a crop.
        agent_tokens: New tokens of the agent on one query, all turns together.
        crop_tokens: Tokens of a crop.
        draft_tokens: New tokens of a draft.
        batch: Sequences that a decoding step serves.
        draft_image_tokens: Most tokens of the image in the small model (its `max_pixels`); None
            for the model's own limit.
        harder: See `PhaseCosts`.

    Raises:
        ConfigError: A number that is out of range.
    """

    width: int
    height: int
    text_tokens: int = 60
    turns: int = 2
    agent_tokens: int = 200
    crop_tokens: int = 400
    draft_tokens: int = 6
    batch: int = 64
    draft_image_tokens: int | None = None
    harder: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "harder":
                checked_number(field.name, value, 0)
            elif value is not None:
                least = 0 if field.name in ("text_tokens", "crop_tokens") else 1
                checked_whole(field.name, value, least)


@final
@dataclass(frozen=True, slots=True)
class ModelCounts:
    """Counts of weights and operations of a vision-language model.

    Args:
        shape: Its size.
    """

    shape: Shape

    def image_tokens(self, width: int, height: int, most: int | None) -> int:
        """Tokens of an image of that size in pixels, at most so many."""
        tokens = self.shape.image_tokens(width, height)
        return tokens if most is None else min(tokens, most)

    @property
    def weights(self) -> float:
        """Weights of the language model's layers."""
        text, kept = self.shape.text, self.shape.kept_per_token / 2
        width, layers = text["hidden_size"], text["num_hidden_layers"]
        head = text.get("head_dim") or width // text["num_attention_heads"]
        attention = 2 * width * text["num_attention_heads"] * head
        return float(
            layers * (attention + 3 * width * text["intermediate_size"]) + width * kept * 2
        )

    @property
    def decoder_bytes(self) -> float:
        """Bytes that a decoding step reads: the layers' weights and the output layer's."""
        output = self.shape.text["vocab_size"] * self.shape.text["hidden_size"]
        return float(_BYTES * (self.weights + output))

    def encode(self, tokens: float) -> float:
        """Operations of the vision tower; each token comes of 2 x 2 patches."""
        vision, patches = self.shape.vision, 4 * tokens
        width, depth = vision["hidden_size"], vision["depth"]
        gated = 3 if "fullatt_block_indexes" in vision else 2
        weights = depth * (4 * width**2 + gated * width * vision["intermediate_size"])
        # Qwen2.5-VL looks at windows of 64 patches in all but a few layers.
        whole = len(vision.get("fullatt_block_indexes", range(depth)))
        seen = whole * patches + (depth - whole) * min(patches, 64)
        return float(2 * weights * patches + 4 * patches * seen * width)

    def prefill(self, new: float, past: float = 0.0) -> float:
        """Operations of reading `new` tokens behind `past` others."""
        text = self.shape.text
        head = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
        across = text["num_hidden_layers"] * text["num_attention_heads"] * head
        return float(2 * self.weights * new + 4 * across * (new * past + new**2 / 2))

    def decode_s(self, device: Accelerator, tokens: int, context: float, batch: int) -> float:
        """Seconds a query of writing tokens, its share of steps that serve a whole batch."""
        kept = _BYTES * self.shape.kept_per_token * context
        read = (self.decoder_bytes + batch * kept) / device.bandwidth / READ
        computed = batch * 2 * self.weights / device.flops / DECODE
        return tokens * max(read, computed) / batch


def phase_costs(
    workload: Workload,
    *,
    accelerator: Accelerator | str = "H100",
    large: Shape | str = "qwen2.5-vl-7b",
    small: Shape | str = "qwen3-vl-2b",
) -> PhaseCosts:
    """Seconds of the accelerator that each phase takes a query.

    Args:
        workload: The queries.
        accelerator: A device, or a name among `ACCELERATORS`.
        large: Size of the agent, or a name among `speceyes.models.sizes.SHAPES`.
        small: Size of the drafter.

    Raises:
        ConfigError: A name that isn't known.

    Example:
        >>> costs = phase_costs(Workload(2246, 1582))
        >>> 0.2 < costs.agent < 0.35 and costs.judge > 0.5 * costs.agent
        True
    """
    device = _device(accelerator)
    agent, drafter = (ModelCounts(named(s) if isinstance(s, str) else s) for s in (large, small))
    flops, batch = device.flops, workload.batch

    image = agent.image_tokens(workload.width, workload.height, None)
    prompt = image + workload.text_tokens
    encoded = agent.encode(image) / flops / ENCODE
    read = encoded + agent.prefill(prompt) / flops / PREFILL
    crop = workload.crop_tokens
    looks = (workload.turns - 1) * (
        agent.encode(crop) / flops / ENCODE
        + agent.prefill(crop, prompt + workload.agent_tokens) / flops / PREFILL
    )
    halfway = prompt + crop + workload.agent_tokens / 2
    written = agent.decode_s(device, workload.agent_tokens, halfway, batch)

    seen = drafter.image_tokens(workload.width, workload.height, workload.draft_image_tokens)
    asked = seen + workload.text_tokens
    draft = (
        drafter.encode(seen) / flops / ENCODE
        + drafter.prefill(asked) / flops / PREFILL
        + drafter.decode_s(device, workload.draft_tokens, asked, batch)
    )
    return PhaseCosts(
        agent=read + looks + written,
        judge=read + agent.decode_s(device, 1, prompt, batch),
        draft=draft,
        shared=read,
        harder=workload.harder,
    )


def _device(accelerator: Accelerator | str) -> Accelerator:
    if isinstance(accelerator, Accelerator):
        return accelerator
    if accelerator not in ACCELERATORS:
        raise ConfigError(
            f"accelerator={accelerator!r} is not known; there are {', '.join(ACCELERATORS)}, or "
            "pass an Accelerator"
        )
    return ACCELERATORS[accelerator]


IMAGES: Final[Mapping[str, tuple[int, int]]] = {
    "POPE, 640 x 480": (640, 480),
    "V*, 2246 x 1582": (2246, 1582),
    "HR-Bench 4K, 4032 x 3024": (4032, 3024),
}
"""Usual sizes of images in three benchmarks, pixels."""


def table(
    *,
    accelerator: str = "H100",
    beta: float = 0.8,
    alpha: float = 0.7,
    draft_image_tokens: int = 1024,
    agent_tokens: int = 200,
    turns: int = 2,
    batch: int = 64,
) -> str:
    """Markdown table of gains over the batched agent, by image size and choice of judge.

    Args:
        accelerator: A name among `ACCELERATORS`.
        beta: Share of queries that the judge lets through.
        alpha: Share of their drafts that is accepted.
        draft_image_tokens: Limit of the small model in the last two columns.
        agent_tokens: See `Workload`.
        turns: See `Workload`.
        batch: See `Workload`.
    """
    head = [
        "image",
        "agent, ms",
        "large judge",
        "large judge, image kept",
        "small judge",
        "break-even alpha",
        f"small judge, {draft_image_tokens} image tokens",
        "break-even alpha",
    ]
    lines = [f"| {' | '.join(head)} |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name, (width, height) in IMAGES.items():
        cells = []
        for most in (None, draft_image_tokens):
            costs = phase_costs(
                Workload(
                    width,
                    height,
                    turns=turns,
                    agent_tokens=agent_tokens,
                    batch=batch,
                    draft_image_tokens=most,
                ),
                accelerator=accelerator,
            )
            found = {one.judge: one for one in worth(costs, beta=beta, alpha=alpha)}
            if most is None:
                cells.append(f"{1000 * costs.agent:.0f}")
                cells += [f"{found[j].gain:.2f}x" for j in ("large", "large, image kept")]
            least = found["small"].break_even
            cells += [
                f"{found['small'].gain:.2f}x",
                "none" if least is None else f"{least:.2f}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Prints `table`."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tuning.roofline",
        description="Works out from sizes alone whether speculation pays, and with which judge.",
    )
    parser.add_argument("--accelerator", default="H100", choices=list(ACCELERATORS))
    parser.add_argument("--beta", type=float, default=0.8, help="default: %(default)s")
    parser.add_argument("--alpha", type=float, default=0.7, help="default: %(default)s")
    parser.add_argument("--draft-image-tokens", type=int, default=1024, metavar="N")
    parser.add_argument("--agent-tokens", type=int, default=200, metavar="N")
    parser.add_argument("--turns", type=int, default=2, metavar="N")
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    try:
        sys.stdout.write(table(**vars(parser.parse_args(argv))) + "\n")
    except ConfigError as exc:
        parser.error(str(exc))
    return 0


if __name__ == "__main__":
    sys.exit(main())
