"""Reading of large JPEGs in full and at the scale needed: `python -m speceyes.bench.jpegs`.

For pictures of the sizes of HR-Bench 4K and 8K it times what a query costs before any model sees
it, where judge and drafts look at no more than so many pixels: decoding in full and shrinking,
against decoding at a reduced scale; and says how far both views are apart.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from speceyes.images import load_image
from speceyes.images.deferred import DeferredImage
from speceyes.images.pixel_cache import frozen, pixel_key
from speceyes.images.reduced import reduced
from speceyes.tiny.scenes import draw, render
from speceyes.types import Image, Query

SIZES = {"4K": (4032, 3024), "8K": (7680, 5120)}
VIEWS = (1024 * 1024, 256 * 256)
"""Most pixels of a view: 1,024 and 64 image tokens of Qwen3-VL."""


def picture(size: tuple[int, int], seed: int = 1) -> bytes:
    """A JPEG of quality 90 and (width, height): a scene under light and grain, as photographs have
    them.
    """
    width, height = size
    scene, _, _ = draw("heldout", seed)
    flat = render(scene, max(size)).crop((0, 0, width, height))
    rng = np.random.default_rng(seed)
    light = PILImage.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
    image = PILImage.blend(flat, light.resize(size, PILImage.Resampling.BICUBIC), 0.3)
    grain = PILImage.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    PILImage.blend(image, grain, 0.08).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def signal(one: Image, other: Image) -> float:
    """Peak signal over noise between two images of one size, decibels."""
    apart = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return float(10 * np.log10(255**2 / max(float(np.mean(apart**2)), 1e-9)))


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of this thread, which other programs on the machine don't lengthen."""
    found = []
    for _ in range(repeats):
        start = time.thread_time()
        work()
        found.append(time.thread_time() - start)
    return statistics.median(found)


def _view(data: bytes, most: int, views: Sequence[int]) -> Image:
    image = load_image(data, views=views)
    kept = image if isinstance(image, DeferredImage) else frozen(image, ours=True)
    return reduced(Query("?", (kept,)), most).images[0]


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds a query of a funnel on files.

    Args:
        whole: All of it.
        reading: Of these, decoding what is looked at.
        shrinking: Of these, making what each model sees of it, and the key of that.
    """

    whole: float
    reading: float
    shrinking: float

    def __str__(self) -> str:
        pixels = (self.reading + self.shrinking) / self.whole
        return (
            f"{self.whole * 1e3:.0f} ms CPU, {pixels:.0%} of it for pixels: "
            f"{self.reading * 1e3:.0f} ms reading, {self.shrinking * 1e3:.1f} ms shrinking and keys"
        )


def funnel(files: Sequence[tuple[bytes, str]], most: int | None) -> Spent:
    """Cost of a query in the bundled funnel without a judge, after two queries to warm up.

    Args:
        files: A picture's file and a question about it, at least one.
        most: Most pixels that drafts are made from; None for whole images.
    """
    from speceyes import tiny
    from speceyes.models import HFModel
    from speceyes.pipeline import DraftConfig, ScheduleConfig, SpecPipeline

    large, small = HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)
    pipe = SpecPipeline.from_pretrained(
        large, small, gate=tiny.gate(), judge=None, draft=DraftConfig(max_pixels=most)
    )
    pipe(files[:2])
    start = time.process_time()
    results = pipe(files)
    whole = time.process_time() - start
    # The same once more without the models' passes: each file is read as the funnel reads it, and
    # as many images are alive, since fresh memory costs more than used.
    reading = shrinking = 0.0
    alive: deque[Image] = deque(maxlen=ScheduleConfig().batch_size)
    for (data, question), result in zip(files, results, strict=True):
        start = time.process_time()
        image = load_image(data, views=() if most is None else (most,))
        read = time.process_time()
        image = image if isinstance(image, DeferredImage) else frozen(image, ours=True)
        small.prepare(reduced(Query(question, (image,)), most).images)
        shrunk = time.process_time()
        if result.route != "draft":
            image.load()
        later = time.process_time()
        if result.route != "draft":
            large.prepare([image])
        alive.append(image)
        reading += read - start + later - shrunk
        shrinking += shrunk - read + time.process_time() - later
    return Spent(whole / len(files), reading / len(files), shrinking / len(files))


def scenes(n: int, side: int) -> list[tuple[bytes, str]]:
    """Held-out scenes as square JPEGs of quality 90 and so many pixels a side, with questions."""
    found = []
    for index in range(n):
        scene, question, _ = draw("heldout", index)
        buffer = io.BytesIO()
        render(scene, side).save(buffer, "JPEG", quality=90)
        found.append((buffer.getvalue(), question.text))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m speceyes.bench.jpegs", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="the median of so many counts")
    parser.add_argument(
        "--queries",
        type=int,
        default=0,
        help="also run the bundled funnel on so many scenes, and "
        "say which part of it goes into pixels",
    )
    parser.add_argument("--side", type=int, default=4096, help="pixels a side of these scenes")
    options = parser.parse_args(argv)
    rows = [
        "| image | MB | view, pixels | in full, ms | at the scale, ms | saved | PSNR, dB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    rest = []
    for name, size in SIZES.items():
        data = picture(size)
        for most in VIEWS:
            full = _seconds(lambda d=data, m=most: _view(d, m, ()), options.repeats)  # type: ignore[misc]
            quick = _seconds(lambda d=data, m=most: _view(d, m, (m,)), options.repeats)  # type: ignore[misc]
            near = signal(_view(data, most, ()), _view(data, most, (most,)))
            rows.append(
                f"| {name}, {size[0]} x {size[1]} | {len(data) / 1e6:.1f} | {most:,} | "
                f"{full * 1e3:.0f} | {quick * 1e3:.0f} | {full / quick:.1f}x | {near:.1f} |"
            )
        decoded = _seconds(lambda d=data: load_image(d), options.repeats)  # type: ignore[misc]
        image = load_image(data)
        hashed = _seconds(lambda im=image: pixel_key(im.copy()), options.repeats)  # type: ignore[misc]
        rest.append(
            f"{name}: decoding in full {len(data) / 1e6 / decoded:.0f} MB/s of file, "
            f"{size[0] * size[1] / 1e6 / decoded:.0f} megapixels/s; hashing all pixels "
            f"{hashed * 1e3:.0f} ms"
        )
    if options.queries:
        files = scenes(options.queries, options.side)
        for seen in (None, 80 * 80):
            told = "whole images" if seen is None else f"drafts on {seen:,} pixels"
            rest.append(f"funnel without a judge, {told}: {funnel(files, seen)}")
    print("\n".join([*rows, "", *rest]))  # noqa: T201


if __name__ == "__main__":
    main()
