"""Queries as many as are wanted, each made when it is asked for, and the memory they will need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from speceyes.errors import ConfigError
from speceyes.types import Query

if TYPE_CHECKING:
    from speceyes.bench.planned import RoutePlan
    from speceyes.models.sizes import Shape

VSTAR = (2246, 1582)
"""Width and height in pixels of a typical image of V*."""
_TEXT_TOKENS = 500
"""About what the system text, the tools and a question take."""


def photos(n: int, size: tuple[int, int] = VSTAR, *, seed: int = 0) -> Iterator[Query]:
    """Queries that `PlannedModel` can tell apart, each made when it is asked for.

    Args:
        n: How many.
        size: Width and height of their images in pixels.
        seed: Seed of what the images show: a coarse texture, the same but for one corner.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    texture = PILImage.fromarray(coarse).resize(size, PILImage.Resampling.BICUBIC)
    for number in range(n):
        query = Query(f"What is that? [{number}]", (texture,), id=f"photo-{number:06d}")
        yield unlike(query, number)


def unlike(query: Query, number: int) -> Query:
    """The same query with an image that is known by nobody: one corner differs."""
    image = query.images[0].convert("RGB")
    if image is query.images[0]:
        image = image.copy()
    image.putpixel((0, 0), (number >> 16 & 255, number >> 8 & 255, number & 255))
    return dataclasses.replace(query, images=(image, *query.images[1:]))


def fresh(pool: Sequence[Query], n: int) -> Iterator[Query]:
    """N queries out of a few, no two with the same image, each made when it is asked for."""
    for number in range(n):
        query = pool[number % len(pool)]
        yield dataclasses.replace(unlike(query, number), id=f"fresh-{number:06d}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """About how much memory a model will take, in bytes.

    Args:
        name: The model's shape.
        weights: Its weights.
        row: One query at its longest: its states, and what is computed to read it.
        tokens: Of that query.
    """

    name: str
    weights: int
    row: int
    tokens: int


def estimate(
    name: str, shape: Shape, weights: int, routes: RoutePlan, size: tuple[int, int], width: int
) -> Estimate:
    """About how much memory a model will take; nothing is allocated to tell.

    Args:
        name: The shape's name.
        shape: The shape.
        weights: How many weights it has.
        routes: How long conversations become.
        size: Width and height of images in pixels.
        width: Bytes of a number.
    """
    image = shape.image_tokens(*size)
    crop = shape.image_tokens(size[0] // 3, size[1] // 3)
    tokens = image + _TEXT_TOKENS + routes.depth * (crop + routes.turn_tokens + 60)
    # The widest moment of a layer: the gated halves of its MLP beside a few hidden states.
    layer = 3 * int(shape.text["intermediate_size"]) + 6 * int(shape.text["hidden_size"])
    patch = 3 * int(shape.vision["intermediate_size"]) + 8 * int(shape.vision["hidden_size"])
    scores = int(shape.text["vocab_size"]) * (width + 4)
    row = width * (tokens * (2 * shape.kept_per_token + layer) + 4 * image * patch)
    return Estimate(name, weights * width, row + scores + tokens**2, tokens)


def check_room(needs: Sequence[Estimate], free: int | None, batch: int) -> list[str]:
    """Lines that say what will be needed.

    Raises:
        ConfigError: All weights and one query do not fit.
    """
    gib = 2.0**30
    lines = [
        f"{one.name}: weights {one.weights / gib:.1f} GiB, a query of {one.tokens:,} tokens "
        f"{one.row / gib:.2f} GiB, {batch} at once {batch * one.row / gib:.1f} GiB"
        for one in needs
    ]
    least = sum(one.weights for one in needs) + max(one.row for one in needs)
    if free is None:
        return [*lines, "how much is free is not known here"]
    if least > free:
        raise ConfigError(
            f"{'; '.join(lines)}: about {least / gib:.1f} GiB are needed for the weights and one "
            "query, and "
            f"{free / gib:.1f} GiB are free: use a smaller --dtype, --image or --shapes, or "
            "another --device"
        )
    return [*lines, f"free: {free / gib:.1f} GiB; batches that don't fit are halved"]
