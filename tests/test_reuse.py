"""What is kept between calls and run ahead of them: it must change the time and nothing else."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from speceyes import tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.bounded_cache import BoundedCache
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.gate import SeparabilityGate
from speceyes.images import pixel_cache
from speceyes.images.pixel_cache import frozen, pixel_key, strips
from speceyes.judge import ToolJudge
from speceyes.models import HFModel
from speceyes.models.hf.pixels import QwenPixels, pixels_of
from speceyes.models.hf.prefix_cache import BLOCK, CacheEntry, PrefixCache
from speceyes.models.hf.prompt_encoder import PromptEncoder
from speceyes.models.hf.qwen_vl_adapter import Features, QwenVLAdapter
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import ScheduleConfig, SpecPipeline
from speceyes.pipeline.reference import as_published
from speceyes.tiny.scenes import questions
from speceyes.types import Conversation, Message, Query, Sampling
from support.processes import our_threads
from support.random_models import FAMILIES, Family, build

GREEDY = Sampling(max_tokens=10, top_k=8)


def picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def pixels(image: Image.Image) -> np.ndarray:
    return np.concatenate([strip[..., :3] for strip in strips(image)])


# --- fingerprints -------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [False, True])
def test_a_frozen_image_that_is_changed_is_another_image(ours: bool) -> None:
    image = frozen(picture(0), ours=ours)
    before = pixel_key(image)
    assert pixel_key(image) == before
    image.putpixel((3, 3), (1, 2, 3))
    changed = pixel_key(image)
    assert changed != before
    assert pixels(image)[3, 3].tolist() == [1, 2, 3]
    ImageDraw.Draw(image).rectangle((0, 0, 50, 50), fill="red")
    assert pixel_key(image) not in (before, changed)
    image.paste((0, 0, 0), (0, 0, 120, 90))
    assert pixel_key(image) == pixel_key(Image.new("RGB", (120, 90)))


def test_a_users_brush_does_not_reach_a_frozen_copy() -> None:
    image = picture(1)
    brush = ImageDraw.Draw(image)
    kept = frozen(image)
    before = pixel_key(kept)
    brush.rectangle((0, 0, 120, 90), fill="blue")
    assert pixel_key(kept) == before != pixel_key(image)
    assert frozen(kept) is kept


def made_otherwise(image: Image.Image) -> list[Image.Image]:
    """The same pixels in images that Pillow holds in other ways."""
    wide = Image.new("RGB", (image.width + 9, image.height + 7))
    wide.paste(image, (5, 3))
    return [
        image.copy(),
        Image.merge("RGB", image.split()),
        image.convert("RGBA").convert("RGB"),
        wide.crop((5, 3, 5 + image.width, 3 + image.height)),
        Image.frombuffer("RGB", image.size, image.tobytes(), "raw", "RGB", 0, 1),
        Image.frombytes("RGB", image.size, image.convert("RGBX").tobytes(), "raw", "RGBX"),
    ]


@pytest.mark.parametrize("size", [(1, 1), (120, 90), (70_000, 3), (2100, 2050)])
def test_strips_are_all_pixels_and_the_key_is_theirs_however_pillow_holds_them(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(2, *size)
    for made in made_otherwise(image):
        assert (pixels(made) == np.asarray(image)).all()
        assert pixel_key(made) == pixel_key(image)
    changed = image.copy()
    changed.putpixel((size[0] - 1, size[1] - 1), (1, 2, 3))
    assert pixel_key(changed) != pixel_key(image)
    monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)  # as Pillow 11.0
    assert (pixels(image.copy()) == np.asarray(image)).all()


def test_pixels_outlive_the_image_that_they_are_read_from() -> None:
    found = [list(strips(frozen(picture(seed)))) for seed in range(20)]
    for seed, mine in enumerate(found):
        assert (np.concatenate(mine)[..., :3] == np.asarray(picture(seed))).all()


def test_size_mode_and_palette_count() -> None:
    flat = Image.new("L", (4, 6))
    assert pixel_key(flat) != pixel_key(Image.new("L", (6, 4)))
    assert pixel_key(flat)[:8] != pixel_key(Image.new("L", (6, 4)))[:8], "a prefix's key"
    assert pixel_key(Image.new("RGB", (8, 1))) != pixel_key(Image.new("L", (8, 3)))
    one, other = (Image.new("P", (4, 4)) for _ in range(2))
    one.putpalette([255, 0, 0])
    other.putpalette([0, 255, 0])
    assert pixel_key(one) != pixel_key(other)


@given(
    size=st.tuples(st.integers(8, 700), st.integers(8, 700)),
    to=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_quick_resizing_is_pillows_up_to_a_few_levels(
    size: tuple[int, int], to: tuple[int, int], seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)

    def rule(*args: object, **named: object) -> tuple[int, int]:
        return to[1] * 28, to[0] * 28

    way = QwenPixels(rule, 28, 1, 1 << 30, 3)
    slow, quick = (np.asarray(f(image)).astype(int) for f in (way.ready, way.quick))
    assert quick.shape == slow.shape == (to[1] * 28, to[0] * 28, 3)
    if min(size[0] / slow.shape[1], size[1] / slow.shape[0]) < 2:
        assert (quick == slow).all()
    else:
        assert np.abs(quick - slow).max() <= 6
        assert (quick != slow).mean() < 0.3


def quick(size: tuple[int, int], resample: int = 3) -> QwenPixels:
    """A model that sees everything in this size."""
    return QwenPixels(lambda *_, **__: size[::-1], 28, 1, 1 << 30, resample)


@pytest.mark.parametrize("resample", [2, 3])
def test_strips_are_shrunk_as_one_piece_is(monkeypatch: pytest.MonkeyPatch, resample: int) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (601, 457, 3), dtype=np.uint8)
    image, way = Image.fromarray(noise), quick((84, 56), resample)
    whole = np.asarray(way.quick(image))
    for pixels_a_strip in (1, 10_000, 457 * 300):
        monkeypatch.setattr(pixel_cache, "_STRIP", pixels_a_strip)
        monkeypatch.setattr(pixel_cache, "_PART", pixels_a_strip)
        for made in made_otherwise(image):
            assert (np.asarray(way.quick(made)) == whole).all()
        with monkeypatch.context() as old:
            old.delattr(Image.Image, "__arrow_c_array__", raising=False)
            assert (np.asarray(way.quick(image)) == whole).all()


# --- the caches ---------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=60))
def test_a_bounded_cache_stays_within_its_bytes_and_drops_the_oldest(
    puts: list[tuple[int, int]],
) -> None:
    cache = BoundedCache[int, bytes](20, len)
    model: dict[int, int] = {}
    for key, size in puts:
        cache.put(key, bytes(size))
        model.pop(key, None)
        model[key] = size
        while sum(model.values()) > 20:
            model.pop(next(iter(model)))
        assert cache.used == sum(model.values()) <= 20
        assert {k for k in range(10) if k in cache} == set(model)


class _States:
    """Stands for a tensor of keys and values: only its size is asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def element_size(self) -> int:
        return 1

    def numel(self) -> int:
        return self.size


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=70)


@given(kept=st.lists(tokens, max_size=6), asked=tokens)
def test_the_longest_known_beginning_is_found(kept: list[list[int]], asked: list[int]) -> None:
    cache = PrefixCache(1 << 20)
    for row in kept:
        cache.add(CacheEntry(np.array(row, np.int64), _States(1)))
    found, n = cache.find(np.array(asked, np.int64))

    def common(row: list[int]) -> int:
        same = 0
        while same < min(len(row), len(asked)) and row[same] == asked[same]:
            same += 1
        return same

    longest = max(map(common, kept), default=0)
    # Found up to a block: what goes beyond its last whole block depends on which one is held.
    assert longest // BLOCK * BLOCK <= n <= longest
    if found is not None and n:
        assert found.key[:n].tolist() == asked[:n]


def test_a_continued_conversation_replaces_its_beginning() -> None:
    cache = PrefixCache(1 << 20)
    row = np.arange(64, dtype=np.int64)
    for n in (20, 40, 64):
        cache.add(CacheEntry(row[:n], _States(100)))
        assert len(cache) == 1
    cache.add(CacheEntry(row[:32], _States(100)))
    assert len(cache) == 1
    assert cache.find(row)[1] == 64


def test_a_prefix_cache_stays_within_its_bytes() -> None:
    cache = PrefixCache(5000)
    rows = [np.full(32, i, np.int64) for i in range(20)]
    for row in rows:
        cache.add(CacheEntry(row, _States(1000)))
        assert cache.used <= 5000
    assert [cache.find(row)[1] for row in rows[-3:]] == [32, 32, 32]
    assert cache.find(rows[0])[1] == 0
    cache.clear()
    assert (cache.used, cache.find(rows[-1])[1]) == (0, 0)


# --- the models ---------------------------------------------------------------------------


def turns(seed: int) -> list[Conversation]:
    """A conversation at three of its turns."""
    first = Conversation(
        (
            Message("system", ("You are a helpful assistant that answers questions.",)),
            Message("user", (picture(seed), "What colour is the small square?")),
        )
    )
    second = first.then(
        Message("assistant", ("<think>The object is tiny, so I look closer.</think>",)),
        Message("user", ("<tool_response>", picture(seed + 50, 60, 60), "</tool_response>")),
    )
    third = second.then(
        Message("assistant", ("<think>Closer still.</think>",)),
        Message("user", (picture(seed + 90, 60, 60), "Answer.")),
    )
    return [first, second, third]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_read_before_gives_what_reading_anew_gives(family: Family) -> None:
    net, processor = build(family)
    anew = HFModel(net, processor, cache_bytes=0)
    published = HFModel(net, processor, reference=True)
    kept = HFModel(net, processor)
    for turn in range(3):  # rows of different lengths, images and depths in one batch
        asked = [turns(seed)[(turn + seed) % (turn + 1)] for seed in range(4)]
        known = kept.spent.reused
        rows = [m.generate(asked, GREEDY) for m in (kept, anew, published)]
        for one, two, three in zip(*rows, strict=True):
            assert one.error is two.error is three.error is None
            assert one.token_ids == two.token_ids == three.token_ids
            assert one.text == two.text == three.text
            assert one.prompt_tokens == two.prompt_tokens == three.prompt_tokens
            np.testing.assert_allclose(one.top_logprobs, two.top_logprobs, atol=1e-4)
            np.testing.assert_allclose(one.top_logprobs, three.top_logprobs, atol=1e-4)
    assert kept.spent.reused > known > 0, "or nothing was shown"
    assert anew.spent.reused == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_another_image_is_never_taken_for_one_that_was_read(family: Family) -> None:
    model = HFModel(*build(family))
    one, other = (
        Conversation((Message("user", (picture(seed), "What colour is the small square?")),))
        for seed in (3, 4)
    )
    alone = HFModel(*build(family)).generate([other], GREEDY)[0]
    first, second = (model.generate([c], GREEDY)[0] for c in (one, other))
    np.testing.assert_allclose(second.top_logprobs, alone.top_logprobs, atol=1e-4)
    assert not np.allclose(first.top_logprobs[0], second.top_logprobs[0], atol=1e-3)


def test_a_picture_of_which_little_is_seen_is_known_by_what_is_seen() -> None:
    """Neither is another taken for it: one that is seen otherwise, or one that is what it is seen
    as, which a model may show itself in another size.
    """
    net, processor = build("qwen3_vl")
    features = BoundedCache[bytes, Features](1 << 20, lambda one: one.bytes)
    pixels = pixels_of(processor.image_processor)
    assert isinstance(pixels, QwenPixels)
    encoder = PromptEncoder(QwenVLAdapter(net), processor, pixels, features)
    size = (4000, 3000)
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    image = frozen(Image.fromarray(noise), ours=True)
    assert encoder.pixels.shrinks(image)
    seen, key = encoder.seen(image)
    assert encoder.seen(image)[0] is seen, "or it is shrunk at every turn"
    assert encoder.seen(image.copy())[1] == key
    assert (np.asarray(encoder.pixels.quick(image)) == np.asarray(seen)).all()
    assert pixel_key(seen) != key
    image.paste((9, 9, 9), (0, 0, 1500, 1500))
    other, changed = encoder.seen(image)
    assert changed != key and (np.asarray(other) != np.asarray(seen)).any()


def test_a_funnel_reads_a_large_picture_only_to_shrink_it(
    pair: tuple[HFModel, HFModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    plain = Image.Image.tobytes

    def tobytes(image: Image.Image, *args: object, **named: object) -> bytes:
        read.append(image.size)
        return plain(image, *args, **named)  # type: ignore[arg-type]

    queries = [item.query for item in questions("heldout", 6)]
    monkeypatch.setattr(Image.Image, "tobytes", tobytes)
    results = funnel(pair, "batched")(queries)
    assert {result.route for result in results} == {"draft", "agent"}
    whole = {query.images[0].size for query in queries}
    if hasattr(Image.Image, "__arrow_c_array__"):
        assert not whole & set(read)


@pytest.mark.parametrize("family", FAMILIES)
@given(
    images=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20)), max_size=4
    ),
    behind=st.integers(1, 30),
)
@settings(deadline=None, max_examples=40)
def test_positions_are_the_models_own(
    family: Family, images: list[tuple[int, int, int]], behind: int
) -> None:
    adapter = adapter_of(family)
    config = adapter.model.config
    merge = config.vision_config.spatial_merge_size
    ids: list[int] = []
    for down, across, before in images:
        ids += [1] * before + [config.vision_start_token_id]
        ids += [config.image_token_id] * (down * across) + [config.vision_end_token_id]
    ids += [1] * behind
    grids = [(1, down * merge, across * merge) for down, across, _ in images]
    row = np.array(ids, np.int64)
    positions, following = adapter.rotary_positions(row, grids)
    wanted, after = np.arange(len(row)), len(row)
    if grids:
        wanted, after = adapter.model_positions(row, grids)
    assert (positions == wanted).all() and following == after


@functools.cache
def adapter_of(family: Family) -> QwenVLAdapter:
    return QwenVLAdapter(build(family)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_third_turn_reads_only_what_is_new(family: Family) -> None:
    model = HFModel(*build(family))
    read = []
    for conversation in turns(0):
        before = model.spent.read
        [said] = model.generate([conversation], Sampling(max_tokens=2))
        read.append(((model.spent.read - before), said.prompt_tokens))
    assert read[0][0] == read[0][1]
    assert read[2][0] <= 0.35 * read[2][1]


@pytest.mark.parametrize("family", FAMILIES)
def test_many_questions_on_one_image_encode_it_once(family: Family) -> None:
    model = HFModel(*build(family))
    assert model.driver.reason == ""  # checked, before passes are counted
    seen: list[int] = []
    model.net.model.visual.register_forward_hook(lambda *_: seen.append(1))
    image = picture(7)
    for question in ("What colour is it?", "Is it red?"):
        asked = [Conversation((Message("system", (question,)), Message("user", (image, "?"))))]
        model.generate(asked, GREEDY)
    assert len(seen) == 1
    model.forget()
    model.generate(asked, GREEDY)
    assert len(seen) == 2


def test_memory_is_bounded_over_many_images() -> None:
    net, processor = build("qwen3_vl")
    model = HFModel(net, processor, cache_bytes=200_000)
    for seed in range(12):
        model.generate(
            [Conversation((Message("user", (picture(seed), "Colour?")),))], Sampling(max_tokens=2)
        )
        assert 0 < model.kept_bytes <= 200_000
    with pytest.raises(ConfigError, match="cache_bytes=-1"):
        HFModel(net, processor, cache_bytes=-1)


# --- schedules ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> tuple[HFModel, HFModel]:
    return HFModel.from_pretrained(tiny.LARGE), HFModel.from_pretrained(tiny.SMALL)


def funnel(pair: tuple[HFModel, HFModel], schedule: str, batch: int = 4) -> SpecPipeline:
    large, small = pair
    settings = tiny.settings()
    return SpecPipeline(
        judge=ToolJudge(large, tools=["zoom"]),
        answerer=SpeculativeAnswerer(small, top_k=settings["top_k"]),
        gate=SeparabilityGate(settings["threshold"], top_k=settings["top_k"]),
        fallback=AgenticFallback(large, tools=["zoom"], max_batch=4),
        schedule=ScheduleConfig(batch_size=batch, overlap=schedule == "overlapped"),
    )


def test_a_schedule_changes_the_time_and_nothing_else(pair: tuple[HFModel, HFModel]) -> None:
    queries = [item.query for item in questions("heldout", 8)]
    wanted = as_published(funnel(pair, "batched"))(queries)
    assert {result.route for result in wanted} == {"draft", "agent"}
    for schedule in ("batched", "overlapped"):
        for one, other in zip(funnel(pair, schedule)(queries), wanted, strict=True):
            assert (one.query_id, one.route, one.answer) == (
                other.query_id,
                other.route,
                other.answer,
            )
            # A rejected draft may have ended before its least clear token.
            if one.route == "draft":
                assert one.verdict is not None and other.verdict is not None
                assert one.verdict.separability == pytest.approx(
                    other.verdict.separability, abs=0.05
                )


def scripted(schedule: str) -> SpecPipeline:
    return SpecPipeline(
        answerer=SpeculativeAnswerer(ScriptedModel("red")),
        gate=SeparabilityGate(0.5),
        schedule=ScheduleConfig(batch_size=4, overlap=schedule == "overlapped"),
    )


def test_the_iterable_is_read_in_the_callers_thread_and_no_thread_is_left() -> None:
    readers: set[int] = set()

    def endless() -> Iterator[Query]:
        while True:
            readers.add(threading.get_ident())
            yield Query("Which colour?", (picture(0),))

    before = our_threads()
    stream = scripted("overlapped").stream(endless())
    for _ in range(30):
        assert next(stream).error is None
    stream.close()
    assert readers == {threading.get_ident()}
    assert our_threads() <= before


def test_an_exception_of_the_iterable_comes_after_what_was_pulled() -> None:
    def broken() -> Iterator[Query]:
        for _ in range(9):
            yield Query("Which colour?", (picture(0),))
        raise OSError("the disk is gone")

    got = []
    before = our_threads()
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(scripted("overlapped").stream(broken()))
    assert our_threads() <= before
    assert len(list(_until_error(scripted("overlapped"), broken()))) == 9


def _until_error(pipe: SpecPipeline, queries: Iterator[Query]) -> Iterator[str | None]:
    try:
        for result in pipe.stream(queries):
            yield result.answer
    except OSError:
        return


def test_a_query_that_cannot_be_loaded_ahead_is_its_own() -> None:
    asked = [(picture(i), "Which colour?") if i % 5 else ("missing.png", "?") for i in range(20)]
    results = scripted("overlapped")(asked)
    assert [r.error is None for r in results] == [bool(i % 5) for i in range(20)]
