"""JPEGs of which judge and drafts see smaller views: decoded small, in full when needed."""

from __future__ import annotations

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, JpegImagePlugin

from speceyes.bench import jpegs
from speceyes.errors import ImageError
from speceyes.gate import SeparabilityGate
from speceyes.images import ImageLimits, load_image
from speceyes.images.deferred import DeferredImage
from speceyes.images.pixel_cache import frozen, pixel_key
from speceyes.images.reduced import reduced, reduced_size
from speceyes.pipeline import DraftConfig, JudgeConfig, SpecPipeline
from speceyes.types import Query
from support.models import FakeModel

MANY, FEW = 120_000, 20_000


def photo(width: int = 1600, height: int = 1000) -> Image.Image:
    """Smooth and edged parts, as photographs have them."""
    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y, r = (int(rng.integers(n)) for n in (width, height, 90))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}), **more)
    return buffer.getvalue()


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Sizes at which JPEGs were decoded, in order."""
    found: list[tuple[int, int]] = []
    load = JpegImagePlugin.JpegImageFile.load

    def counted(self: Any) -> Any:
        if self.tile:
            found.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", counted)
    return found


def test_views_come_from_one_decode_at_the_scale_that_serves_the_largest(
    decodes: list[tuple[int, int]],
) -> None:
    data = encoded(photo())
    image = load_image(data, views=(FEW, MANY))
    assert isinstance(image, DeferredImage) and image.undecoded
    assert image.size == (1600, 1000) and image.mode == "RGB"
    query = Query("?", (image,))
    for most in (MANY, FEW, MANY):
        [view] = reduced(query, most).images
        assert view.size == reduced_size(1600, 1000, most)
    assert decodes == [(800, 500)]
    whole = load_image(data)
    assert np.array_equal(np.asarray(image), np.asarray(whole))
    assert not image.undecoded and decodes == [(800, 500), (1600, 1000), (1600, 1000)]
    assert pixel_key(image) == pixel_key(whole)
    [again] = reduced(query, MANY).images  # what was seen small doesn't change by it
    assert again is reduced(query, MANY).images[0] and len(decodes) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_view_is_what_reading_and_shrinking_gives_but_for_a_few_levels(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), exif=exif)
    quick, whole = load_image(data, views=(FEW,)), load_image(data)
    assert quick.size == whole.size
    [view], [wanted] = (reduced(Query("?", (im,)), FEW).images for im in (quick, frozen(whole)))
    assert view.size == wanted.size
    apart = np.abs(np.asarray(view, np.int16) - np.asarray(wanted, np.int16))
    assert apart.mean() < 1.0 and np.percentile(apart, 99) <= 12
    assert np.array_equal(np.asarray(quick), np.asarray(whole))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_read_as_ever(mode: str) -> None:
    data = encoded(photo().convert(mode))
    quick, whole = load_image(data, views=(FEW,)), load_image(data)
    assert isinstance(quick, DeferredImage)
    assert np.array_equal(np.asarray(quick), np.asarray(whole))
    assert reduced(Query("?", (quick,)), FEW).images[0].mode == "RGB"


@pytest.mark.parametrize(
    ("data", "views"),
    [
        (encoded(photo(), "PNG"), (FEW,)),  # no scales
        (encoded(photo(300, 200)), (60_000,)),  # small enough as it is
        (encoded(photo(300, 200)), (FEW,)),  # no scale that serves 173 x 115
        (encoded(photo()), ()),
        (encoded(photo()), (FEW, 1_600_000)),  # one looks at all of it
    ],
)
def test_what_gains_nothing_is_decoded_at_once(data: bytes, views: tuple[int, ...]) -> None:
    image = load_image(data, views=views)
    assert type(image) is Image.Image
    assert np.array_equal(np.asarray(image), np.asarray(load_image(data)))


def test_a_broken_file_is_refused_when_it_is_loaded() -> None:
    data = encoded(photo())
    for broken in (data[: len(data) // 2], data[:300]):
        with pytest.raises(ImageError):
            load_image(broken, views=(FEW,))
    with pytest.raises(ImageError, match="max_pixels"):
        load_image(data, views=(FEW,), limits=ImageLimits(max_pixels=1_000_000))


def test_it_can_be_copied_written_to_pickled_and_cropped_as_any_image() -> None:
    data = encoded(photo())
    pixels = np.asarray(load_image(data))

    def fresh() -> Image.Image:
        return load_image(data, views=(FEW,))

    for made in (
        fresh().copy(),
        copy.copy(fresh()),
        copy.deepcopy(fresh()),
        pickle.loads(pickle.dumps(fresh())),
        fresh().convert("RGB"),
        fresh().crop((0, 0, 1600, 1000)),
    ):
        assert np.array_equal(np.asarray(made), pixels)
    image = fresh()
    before = pixel_key(image)
    image.paste((0, 0, 0), (0, 0, 50, 50))
    assert np.asarray(image)[:50, :50].max() == 0 and pixel_key(image) != before
    image = fresh()
    ImageDraw.Draw(image).rectangle((0, 0, 40, 40), fill="red")
    assert image.getpixel((10, 10)) == (255, 0, 0)


def test_threads_that_ask_at_once_decode_once(decodes: list[tuple[int, int]]) -> None:
    image = load_image(encoded(photo()), views=(FEW,))
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: pixel_key(image), range(32)))
    assert len(keys) == 1 and decodes.count((1600, 1000)) == 1


def test_the_measurement_compares_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jpegs, "SIZES", {"small": (640, 480)})
    monkeypatch.setattr(jpegs, "VIEWS", (FEW,))
    jpegs.main(["--repeats", "1", "--queries", "2", "--side", "256"])
    printed = capsys.readouterr().out
    assert printed.count("ms CPU") == 2
    assert "| small, 640 x 480 |" in printed and "megapixels/s" in printed
    data = jpegs.picture((640, 480))
    assert load_image(data).size == (640, 480)
    assert jpegs.signal(photo(), photo()) > 100 > 40 > jpegs.signal(photo(), photo().rotate(90))


# --- in a pipeline -------------------------------------------------------------------------------


def pipe(judge: Any, threshold: float = 0.5, **draft: Any) -> SpecPipeline:
    return SpecPipeline.from_pretrained(
        FakeModel({"one word": "no", "": "<answer>agent</answer>"}),
        FakeModel({"one word": "no", "far": "blur", "": "seen"}),
        gate=SeparabilityGate(threshold, top_k=20),
        judge=judge,
        draft=DraftConfig(**draft),
        dialect="deepeyes",
    )


def test_only_what_the_agent_takes_is_decoded_in_full(
    decodes: list[tuple[int, int]], tmp_path: Path
) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(encoded(photo()))
    made = pipe(JudgeConfig("small"), ladder=(FEW,), max_pixels=MANY)
    small, large = made.answerer.model, made.fallback.model  # type: ignore[union-attr]
    results = made([(file, "near?"), (file, "near too?")])
    assert [r.answer for r in results] == ["seen", "seen"]
    assert decodes == [(800, 500)] * 2
    sizes = {image.size for one in small.asked for image in one.images}
    assert sizes == {reduced_size(1600, 1000, FEW), reduced_size(1600, 1000, MANY)}
    strict = pipe(None, 1.0, max_pixels=MANY)
    result = strict(file, "far?")
    agent = strict.fallback.model  # type: ignore[union-attr]
    assert result.answer == "agent" and [im.size for im in agent.asked[0].images] == [(1600, 1000)]
    np.asarray(agent.asked[0].images[0])
    assert decodes[2:] == [(800, 500), (1600, 1000)]
    assert not large.asked


@pytest.mark.parametrize(
    ("judge", "draft", "wanted"),
    [
        (None, {"max_pixels": MANY}, (MANY,)),
        (None, {"max_pixels": MANY, "ladder": (FEW,)}, (FEW, MANY)),
        ("small", {"max_pixels": MANY}, (MANY,)),
        ("draft", {"max_pixels": MANY}, (MANY,)),
        (JudgeConfig("large", max_pixels=FEW), {"max_pixels": MANY}, (FEW, MANY)),
        ("large", {"max_pixels": MANY}, ()),
        (None, {}, ()),
        (None, {"ladder": (FEW,)}, ()),
    ],
)
def test_views_are_made_where_judge_and_drafts_all_look_at_less(
    judge: Any, draft: dict[str, Any], wanted: tuple[int, ...]
) -> None:
    assert pipe(judge, **draft).parts.views == wanted


def test_neighbours_of_a_broken_file_are_answered(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    data = encoded(photo())
    good.write_bytes(data), bad.write_bytes(data[: len(data) // 2])
    results = pipe(None, max_pixels=MANY)([(good, "a?"), (bad, "b?"), (good, "c?")])
    assert [r.answer for r in results] == ["seen", None, "seen"]
    assert "can't be decoded" in (results[1].error or "")
