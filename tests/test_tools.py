"""Zoom and rotate, the registry that runs tools, and `@tool`."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Optional, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL.Image import Image

from speceyes.errors import ConfigError, ToolError
from speceyes.protocols import Tool
from speceyes.tools import MAX_OVERDUE, FunctionTool, Rotate, Tools, Zoom, tool
from speceyes.tools._cache import ObservationCache
from speceyes.tools._schema import check
from speceyes.types import Observation, ToolCall
from support.processes import our_threads, until

GREY = PILImage.new("RGB", (100, 80), "grey")


def call(name: str = "image_zoom_in_tool", **arguments: Any) -> ToolCall:
    return ToolCall(name, arguments)


@dataclass(frozen=True)
class Plain:
    """A tool as a class, whose work is a function."""

    work: Any
    name: str = "plain"
    description: str = "Does what the test says."
    parameters: Mapping[str, Any] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.parameters is None:
            object.__setattr__(self, "parameters", {"type": "object", "properties": {}})

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        returned: Observation = self.work(images, arguments)
        return returned


# --- zoom ----------------------------------------------------------------------------------

side = st.integers(1, 300)
coordinate = st.floats(-1e6, 1e6) | st.integers(-400, 400) | st.sampled_from([0, -1, 1e300, -1e300])


@given(side, side, st.integers(1, 60), st.tuples(*[coordinate] * 4))
def test_a_crop_lies_in_the_image_and_is_large_enough(
    width: int, height: int, min_side: int, box: tuple[float, ...]
) -> None:
    image = PILImage.new("L", (width, height))
    try:
        seen = Zoom(min_side)([image], {"bbox_2d": list(box)})
    except ToolError as exc:
        assert "outside the image" in str(exc)
        xs, ys = sorted(box[0::2]), sorted(box[1::2])
        assert xs[1] <= 0 or xs[0] >= width or ys[1] <= 0 or ys[0] >= height
        return
    assert seen.box is not None and seen.source == 0
    left, top, right, bottom = seen.box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left >= min(min_side, width) and bottom - top >= min(min_side, height)
    assert seen.images[0].size == (right - left, bottom - top)
    for start, end, (a, b), size in (
        (left, right, sorted(box[0::2]), width),
        (top, bottom, sorted(box[1::2]), height),
    ):
        inside = max(a, 0), min(b, size)  # what of the box there is to be seen
        assert start <= inside[0] + 0.5 and end >= inside[1] - 0.5
        grown = end - start > min(min_side, size)
        if grown:  # no more than asked for
            assert start >= inside[0] - 0.5 and end <= inside[1] + 0.5


@given(st.permutations([10, 60]), st.permutations([20, 70]))
def test_corners_in_any_order(xs: list[int], ys: list[int]) -> None:
    seen = Zoom()([GREY], {"bbox_2d": [xs[0], ys[0], xs[1], ys[1]]})
    assert seen.box == (10, 20, 60, 70)


def test_a_crop_is_the_pixels_themselves() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    seen = Zoom()([PILImage.fromarray(noise)], {"bbox_2d": [30, 10, 80, 60]})
    assert np.array_equal(np.asarray(seen.images[0]), noise[10:60, 30:80])


def test_a_small_box_grows_around_its_centre_and_stays_in_the_image() -> None:
    big = PILImage.new("RGB", (1000, 1000))
    assert Zoom(28)([big], {"bbox_2d": [500, 500, 502, 504]}).box == (487, 488, 515, 516)
    assert Zoom(28)([big], {"bbox_2d": [0, 998, 1, 1000]}).box == (0, 972, 28, 1000)
    assert Zoom(28)([big], {"bbox_2d": [500, 500, 500, 500]}).box == (486, 486, 514, 514)
    tiny = PILImage.new("RGB", (10, 1000))
    assert Zoom(28)([tiny], {"bbox_2d": [4, 4, 5, 5]}).box == (0, 0, 10, 28)


@pytest.mark.parametrize(
    "box",
    [
        None,
        [],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        "1234",
        ["1", "2", "3", "4"],
        [1, 2, 3, None],
        [1, 2, 3, float("nan")],
        [float("nan"), 2, 3, 4],
        [float("-inf"), 2, 10, 40],
        [10**400, 2, 3, 4],
        [[1], [2], [3], [4]],
        {"left": 1},
    ],
)
def test_boxes_that_are_none(box: Any) -> None:
    with pytest.raises(ToolError, match="four finite numbers"):
        Zoom()([GREY], {"bbox_2d": box})


def test_any_earlier_image_can_be_looked_at() -> None:
    crop = Zoom()([GREY, PILImage.new("L", (50, 50), 9)], {"bbox_2d": [0, 0, 40, 40], "img_idx": 1})
    assert crop.source == 1 and crop.images[0].getextrema() == (9, 9)
    for index in (-1, 2, 0.0, True, "0", None, 10**30):
        with pytest.raises(ToolError, match="img_idx"):
            Zoom()([GREY, GREY], {"bbox_2d": [0, 0, 40, 40], "img_idx": index})


def test_no_crop_without_a_pixel() -> None:
    with pytest.raises(ConfigError, match="min_side"):
        Zoom(min_side=0)


# --- rotate --------------------------------------------------------------------------------


def test_quarter_turns_only_move_pixels_counter_clockwise() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    image = PILImage.fromarray(noise)
    for quarters in range(-5, 6):
        seen = Rotate()([image], {"angle": 90 * quarters})
        assert np.array_equal(np.asarray(seen.images[0]), np.rot90(noise, quarters))
        assert seen.source == 0 and seen.box is None


def test_other_angles_keep_everything_and_fill_with_white() -> None:
    image = PILImage.new("RGB", (100, 50))
    turned = Rotate()([image], {"angle": 45}).images[0]
    assert turned.width == pytest.approx(150 / 2**0.5, abs=3) == turned.height
    assert turned.getpixel((0, 0)) == (255, 255, 255)
    dark = (np.asarray(turned.convert("L")) < 128).sum()
    assert dark == pytest.approx(5000, rel=0.03)
    assert Rotate()([GREY.convert("P")], {"angle": 10}).images[0].mode == "RGB"


@pytest.mark.parametrize("angle", [None, "90", True, float("nan"), float("inf"), [90]])
def test_angles_that_are_none(angle: Any) -> None:
    with pytest.raises(ToolError, match="angle"):
        Rotate()([GREY], {"angle": angle})


def test_a_turn_that_would_grow_too_much_is_refused_before_it_is_made() -> None:
    strip = PILImage.new("L", (30_000, 10))
    with pytest.raises(ToolError, match="too large"):
        Rotate()([strip], {"angle": 45})
    assert Rotate()([strip], {"angle": 90}).images[0].size == (10, 30_000)
    with pytest.raises(ToolError, match="img_idx"):
        Rotate()([strip], {"angle": 45, "img_idx": 1})
    with pytest.raises(ConfigError, match="max_pixels"):
        Rotate(max_pixels=0)


# --- the registry --------------------------------------------------------------------------


def test_a_registry_of_everything_that_stands_for_a_tool() -> None:
    def shout(text: str) -> str:
        """Says it louder."""
        return text.upper()

    @tool(name="whisper")
    def quiet(text: str) -> str:
        """Says it softer."""
        return text.lower()

    tools = Tools(["zoom", Rotate, shout, quiet, Plain(lambda images, arguments: Observation())])
    names = ["image_zoom_in_tool", "image_rotate_tool", "shout", "whisper", "plain"]
    assert [one.name for one in tools] == names and len(tools) == 5
    assert all(isinstance(one, Tool) and tools.get(one.name) is one for one in tools)
    assert tools.get("other") is None
    assert tools.run(call("shout", text="a"), [GREY]).content == ("A",)
    assert tools.run(call("whisper", text="A"), [GREY]).content == ("a",)
    assert [one.name for one in Tools("zoom")] == names[:1]
    assert list(Tools(())) == list(Tools()) == []
    assert [one.name for one in Tools(Tools(["zoom", "rotate"]))] == names[:2]
    assert repr(Tools("zoom", timeout_s=None)) == "Tools([image_zoom_in_tool], timeout_s=None)"


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        (["zom"], "built in are: zoom, rotate"),
        (["zoom", Zoom(min_side=4)], "two tools are named 'image_zoom_in_tool'"),
        ([3], "not a tool"),
        ([None], "not a tool"),
        ([Plain], "pass an object"),  # needs an argument
        ([object], "not a tool"),
        ([lambda x: x], "<lambda>"),
        (5, "pass a list"),
        (Zoom(), "pass a list"),
        ([Plain(print, name="")], "has the name ''"),
        ([Plain(print, parameters={"type": "array"})], "type 'object'"),
        ([Plain(print, parameters=[])], "type 'object'"),
        (
            [Plain(print, parameters={"type": "object", "properties": {"a": {"type": "int"}}})],
            "'int'; there are",
        ),
        ([Plain(print, parameters={"type": "object", "properties": {"a": "text"}})], "mapping"),
    ],
)
def test_registries_that_can_not_work(tools: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        Tools(tools)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_time_limits_that_can_not_work(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout_s"):
        Tools("zoom", timeout_s=timeout_s)


def test_an_unknown_tool_is_told_what_there_is() -> None:
    seen = Tools(["zoom", "rotate"]).run(call("image_search"), [GREY])
    assert seen.error == (
        "there is no tool 'image_search'; there are: image_zoom_in_tool, image_rotate_tool"
    )
    assert Tools().run(call("zoom"), [GREY]).error == "there is no tool 'zoom'; there is none"
    assert len(Tools("zoom").run(call("x" * 10_000), [GREY]).error or "") < 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "arguments: bbox_2d must be given"),
        ({"bbox_2d": [1, 2, 3]}, "bbox_2d has 3 items; exactly 4 are needed"),
        ({"bbox_2d": [1, 2, 3, "4"]}, "bbox_2d[3] is '4'; a number is needed"),
        ({"bbox_2d": [1, 2, 3, True]}, "bbox_2d[3] is True; a number is needed"),
        ({"bbox_2d": [1, 2, 3, float("nan")]}, "bbox_2d[3] is nan; a finite number is needed"),
        ({"bbox_2d": "[1, 2, 3, 4]"}, "bbox_2d is '[1, 2, 3, 4]'; a list is needed"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": -1}, "img_idx is -1; at least 0 is needed"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": 0.5}, "img_idx is 0.5; a whole number is needed"),
        ({"bbox_2d": [1, 2, 3, 4], "label": 5}, "label is 5; text is needed"),
        ({"bbox_2d": [200, 2, 300, 4]}, "the box spans 200 to 300, outside the image (0 to 100)"),
        ({"bbox_2d": [1, 2, 3, 4], "img_idx": 1}, "img_idx=1 is not an image; use 0 to 0"),
    ],
)
def test_arguments_that_do_not_fit_are_told(arguments: dict[str, Any], told: str) -> None:
    seen = Tools("zoom").run(ToolCall("image_zoom_in_tool", arguments), [GREY])
    assert seen.error == told and seen.content == ()


def test_arguments_are_changed_only_where_nothing_is_lost() -> None:
    seen = Tools("zoom").run(call(bbox_2d=(0, 0.0, 50, 50), img_idx=0.0, extra="x"), [GREY])
    assert seen.error is None and seen.source == 0


def failing(exc: BaseException) -> Plain:
    def work(images: Any, arguments: Any) -> Observation:
        raise exc

    return Plain(work)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize(
    ("exc", "told"),
    [
        (ToolError("the page is blank"), "the page is blank"),
        (ToolError(), "plain failed"),
        (ZeroDivisionError("by zero"), "plain failed: ZeroDivisionError: by zero"),
        (SystemExit(3), "plain failed: SystemExit: 3"),
        (MemoryError(), "plain failed: MemoryError"),
        (Unprintable(), "plain failed: Unprintable"),
        (ValueError("x" * 10_000), "plain failed: ValueError: " + "x" * 471 + "..."),
    ],
)
def test_what_a_tool_raises_is_an_observation(
    exc: BaseException, told: str, timeout_s: float | None
) -> None:
    seen = Tools([failing(exc)], timeout_s=timeout_s).run(call("plain"), [GREY])
    assert seen.error == told


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt):
        Tools([failing(KeyboardInterrupt())], timeout_s=None).run(call("plain"), [GREY])


@pytest.mark.parametrize("returned", [None, "text", {"a": 1}, GREY])
def test_what_is_no_observation_is_an_error(returned: Any) -> None:
    seen = Tools([Plain(lambda images, arguments: returned)]).run(call("plain"), [GREY])
    assert seen.error == f"plain returned a {type(returned).__name__}, not an Observation"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=5,
    )
)
def test_run_never_raises_whatever_the_arguments(value: Any) -> None:
    tools = Tools(["zoom", "rotate"])
    for name in ("image_zoom_in_tool", "image_rotate_tool"):
        for arguments in (value, {"bbox_2d": value, "angle": value}, {"bbox_2d": [value] * 4}):
            seen = tools.run(ToolCall(name, arguments), [GREY])
            assert isinstance(seen, Observation)
            assert (seen.error is None) == bool(seen.content)


def test_a_tool_that_takes_too_long_is_left_behind() -> None:
    done, go = threading.Event(), threading.Event()

    def work(images: Any, arguments: Any) -> Observation:
        go.wait(60)
        done.set()
        return Observation(("late",))

    tools = Tools([Plain(work)], timeout_s=0.1)
    seen = tools.run(call("plain"), [GREY])
    assert seen.error == "plain took longer than 0.1 s" and not done.is_set()
    go.set()
    assert done.wait(20)


def test_what_hangs_is_not_started_for_ever() -> None:
    go = threading.Event()

    def work(images: Any, arguments: Any) -> Observation:
        go.wait(30)
        return Observation(("there",))

    tools = Tools([Plain(work), Plain(lambda *_: Observation(("well",)), "other")], timeout_s=0.05)
    before = our_threads()
    errors = [tools.run(call("plain"), [GREY]).error for _ in range(MAX_OVERDUE + 3)]
    assert errors[:MAX_OVERDUE] == ["plain took longer than 0.05 s"] * MAX_OVERDUE
    assert errors[MAX_OVERDUE:] == ["plain is not available: 4 earlier calls don't end"] * 3
    late = our_threads() - before
    assert len(late) == MAX_OVERDUE and all(thread.daemon for thread in late)
    go.set()
    for thread in late:
        thread.join(20)
    # Back when they have ended, though a busy machine may take longer than 0.05 s to start one.
    until(lambda: tools.run(call("plain"), [GREY]).content == ("there",))


def test_the_built_in_tools_run_where_they_are_called() -> None:
    """No thread is begun for a crop, one is for a tool that isn't built in."""
    threads: list[str] = []

    class Watched(Sequence[Image]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: Any) -> Any:
            threads.append(threading.current_thread().name)
            if index:
                raise IndexError
            return GREY

    begun: list[threading.Thread] = []
    start = threading.Thread.start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (begun.append(self), start(self)))
        Tools("zoom").run(call(bbox_2d=[0, 0, 40, 40]), Watched())
        assert begun == [] and set(threads) == {threading.current_thread().name}
        Tools([Plain(lambda *_: Observation(("x",)))]).run(call("plain"), [GREY])
        assert len(begun) == 1


def test_a_tool_sees_the_callers_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    tools = Tools([Plain(lambda *_: Observation((who.get(),)))])
    who.set("the caller")
    assert tools.run(call("plain"), [GREY]).content == ("the caller",)


# --- async tools ------------------------------------------------------------------------------


@tool
async def waits(seconds: float, word: str = "there") -> str:
    """Waits."""
    await asyncio.sleep(seconds)
    return word


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_an_async_function_is_a_tool(timeout_s: float | None) -> None:
    tools = Tools([waits], timeout_s=timeout_s)
    assert tools.run(call("waits", seconds=0), [GREY]).content == ("there",)

    async def within_a_loop() -> Observation:
        return tools.run(call("waits", seconds=0.01, word="inside"), [GREY])

    assert asyncio.run(within_a_loop()).content == ("inside",)
    seen = tools.run(call("waits", seconds="long"), [GREY])
    assert seen.error is not None and "a number is needed" in seen.error


def test_an_async_class_is_a_tool() -> None:
    async def work(images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        await asyncio.sleep(0)
        return Observation((str(images[0].size),))

    assert Tools([Plain(work)]).run(call("plain"), [GREY]).content == ("(100, 80)",)

    async def none(images: Sequence[Image], arguments: Mapping[str, Any]) -> None:
        return None

    assert "not an Observation" in str(Tools([Plain(none)]).run(call("plain"), [GREY]).error)


def test_an_async_call_is_cancelled_when_its_time_is_over() -> None:
    ended: list[str] = []
    finished = threading.Event()

    @tool
    async def endless() -> str:
        """Never ends by itself."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(threading.current_thread().name)
            raise
        finally:
            finished.set()
        return ""

    tools = Tools([endless], timeout_s=0.1)
    for times in range(1, MAX_OVERDUE + 3):  # more often than a call may be left behind
        finished.clear()
        seen = tools.run(call("endless"), [GREY])
        assert seen.error == "endless took longer than 0.1 s"
        assert finished.wait(20) and len(ended) == times
        for thread in threading.enumerate():
            if thread.name == "tool endless":
                thread.join(20)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), SystemExit(2)])
def test_what_an_async_tool_raises_is_an_observation(
    error: BaseException, timeout_s: float | None
) -> None:
    async def work(*_: Any) -> Observation:
        raise error

    def plainly(*_: Any) -> Observation:
        raise error

    for one in (work, plainly):
        seen = Tools([Plain(one)], timeout_s=timeout_s).run(call("plain"), [GREY])
        assert seen.error is not None and seen.content == ()


def test_an_async_tool_sees_the_callers_context() -> None:
    who = contextvars.ContextVar("who", default="nobody")

    @tool
    async def asks() -> str:
        """Asks."""
        return who.get()

    who.set("the caller")
    assert Tools([asks]).run(call("asks"), [GREY]).content == ("the caller",)
    assert Tools([asks], timeout_s=None).run(call("asks"), [GREY]).content == ("the caller",)


# --- what is kept -----------------------------------------------------------------------------


def counting(**options: Any) -> tuple[list[Any], FunctionTool]:
    calls: list[Any] = []

    @tool(stateless=True, **options)
    def shade(image: Image, part: float = 1.0) -> tuple[str, Image]:
        """Doc."""
        calls.append(part)
        return f"{part}", image.reduce(2)

    return calls, shade


def test_a_stateless_tool_is_asked_once_for_the_same_pixels() -> None:
    calls, shade = counting()
    tools = Tools([shade])
    first = tools.run(call("shade", part=2.0), [GREY])
    second = tools.run(call("shade", part=2.0), [GREY.copy(), GREY.rotate(5)])
    assert len(calls) == 1 and second.content[0] == first.content[0] == "2.0"
    assert second.images[0].tobytes() == first.images[0].tobytes()
    tools.run(call("shade", part=3), [GREY])
    tools.run(call("shade", part=2.0), [PILImage.new("RGB", GREY.size, "white")])
    assert len(calls) == 3
    changed = GREY.copy()
    changed.putpixel((0, 0), (1, 2, 3))
    tools.run(call("shade", part=2.0), [changed])
    assert len(calls) == 4


def test_whoever_draws_on_what_was_kept_draws_on_his_own() -> None:
    _, shade = counting()
    tools = Tools([shade])
    first = tools.run(call("shade"), [GREY])
    first.images[0].paste("red", (0, 0, 50, 40))
    second = tools.run(call("shade"), [GREY])
    assert second.images[0].getpixel((0, 0)) == GREY.getpixel((0, 0))
    second.images[0].paste("red", (0, 0, 50, 40))
    assert tools.run(call("shade"), [GREY]).images[0].getpixel((0, 0)) == GREY.getpixel((0, 0))


def test_a_call_that_costs_less_than_its_key_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[PILImage.Image] = []

    def key(image: PILImage.Image) -> bytes:
        hashed.append(image)
        return b"key"

    monkeypatch.setattr("speceyes.tools._cache.pixel_key", key)
    calls, shade = counting()
    for registry, named, times in (
        (Tools(["zoom"]), call("image_zoom_in_tool", bbox_2d=[1, 1, 30, 30]), 0),
        (Tools([shade]), call("shade"), 2),
    ):
        seen = [registry.run(named, [GREY]) for _ in range(2)]
        assert seen[0].error is None and seen[0].images[0].tobytes() == seen[1].images[0].tobytes()
        assert len(hashed) == times
    assert len(calls) == 1


def test_nothing_is_kept_where_it_is_not_wanted() -> None:
    calls, shade = counting()
    tools = Tools([shade], cache_bytes=0)
    small = Tools([shade], cache_bytes=500)  # too few for any result
    for registry in (tools, small):
        before = len(calls)
        registry.run(call("shade"), [GREY])
        registry.run(call("shade"), [GREY])
        assert len(calls) == before + 2
    ticks: list[int] = []
    tools = Tools([Plain(lambda *_: (ticks.append(1), Observation(("x",)))[1])])
    tools.run(call("plain"), [GREY])
    tools.run(call("plain"), [GREY])
    assert len(ticks) == 2  # says nothing of being stateless
    with pytest.raises(ConfigError, match="cache_bytes=-1"):
        Tools([], cache_bytes=-1)


def test_errors_are_not_kept() -> None:
    fails = [True]

    @tool(stateless=True)
    def moody(word: str) -> str:
        """Doc."""
        if fails:
            fails.clear()
            raise ToolError("not now")
        return word

    tools = Tools([moody])
    assert tools.run(call("moody", word="a"), [GREY]).error == "not now"
    assert tools.run(call("moody", word="a"), [GREY]).content == ("a",)


def test_a_class_that_reads_all_images_is_asked_again_when_one_is_new() -> None:
    ticks: list[int] = []

    class Counted:
        name, description = "counted", "Doc."
        parameters: Mapping[str, Any] = {"type": "object", "properties": {}}
        stateless = True

        def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
            ticks.append(len(images))
            return Observation((str(len(images)),))

    tools = Tools([Counted])
    for images in ([GREY], [GREY], [GREY, GREY], [GREY]):
        assert tools.run(call("counted"), images).content == (str(len(images)),)
    assert ticks == [1, 2]


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1_000, 60_000))
def test_what_is_kept_stays_within_its_bytes(asked: list[int], most: int) -> None:
    cache = ObservationCache(most)
    for at in asked:
        key = ("tool", str(at), ())
        size = 10 * at
        seen = cache.get(key)
        if seen is None:
            cache.put(key, Observation((PILImage.new("L", (size + 1, size + 1), at), "word")))
        else:
            assert seen.images[0].size == (size + 1, size + 1)
            assert seen.images[0].getpixel((0, 0)) == at
        assert cache.bytes <= most
    largest = 1_000 + 4 * 91 * 91 + 16
    if most >= 10 * largest:
        assert all(cache.get(("tool", str(at), ())) for at in asked)


def test_many_threads_share_what_is_kept() -> None:
    calls, shade = counting()
    tools = Tools([shade], cache_bytes=40_000)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for at in range(40):
            part = float((at * seed) % 7)
            seen = tools.run(call("shade", part=part), [GREY])
            if seen.content[0] != f"{part}" or seen.images[0].size != (50, 40):
                wrong.append(seen)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and 7 <= len(calls) < 160


def test_many_threads_share_a_registry() -> None:
    @tool
    def double(n: int) -> str:
        """Doubles."""
        return str(2 * n)

    tools, wrong = Tools([double]), []

    def work(start: int) -> None:
        for n in range(start, start + 20):
            if tools.run(call("double", n=n), [GREY]).content != (str(2 * n),):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- schemas -------------------------------------------------------------------------------

NESTED = {
    "type": "object",
    "properties": {
        "points": {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "minItems": 1,
        },
        "mode": {"enum": ["fast", "exact", 1, None]},
        "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "style": {
            "type": "object",
            "properties": {"bold": {"type": "boolean"}},
            "additionalProperties": {"type": "string"},
        },
    },
    "required": ["points"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "checked"),
    [
        ({"points": [[1.0, 2]]}, {"points": [[1, 2]]}),
        ({"points": ((1, 2),), "mode": 1.0}, {"points": [[1, 2]], "mode": 1}),
        ({"points": [[1, 2]], "share": None}, None),
        ({"points": [[1, 2]], "share": 1}, None),
        ({"points": [[1, 2]], "mode": None}, None),
        ({"points": [[1, 2]], "style": None}, {"points": [[1, 2]]}),
        ({"points": [[1, 2]], "style": {"bold": None}}, {"points": [[1, 2]], "style": {}}),
        ({"points": [[1, 2]], "style": {"bold": True, "colour": "red"}}, None),
    ],
)
def test_values_that_fit(value: Any, checked: Any) -> None:
    got = check(value, NESTED)
    assert got == (value if checked is None else checked)
    assert repr(got) == repr(value if checked is None else checked)  # 1 and 1.0 and True differ


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "arguments is []; an object is needed"),
        (None, "arguments is None; an object is needed"),
        ({}, "arguments: points must be given"),
        ({"points": None}, "points is None; a list is needed"),
        ({"points": [[1, 2]], "pionts": None}, "arguments: 'pionts' is not known"),
        ({"points": []}, "points has 0 items; at least 1 are needed"),
        ({"points": [[1, 2], [1]]}, "points[1] has 1 items; exactly 2 are needed"),
        ({"points": [[1, 2.5]]}, "points[0][1] is 2.5; a whole number is needed"),
        ({"points": [[1, "2"]]}, "points[0][1] is '2'; a whole number is needed"),
        ({"points": [[1, 2]], "mode": True}, "mode is True; one of these is needed: 'fast'"),
        ({"points": [[1, 2]], "mode": "slow"}, "mode is 'slow'; one of these is needed: 'fast'"),
        ({"points": [[1, 2]], "share": 2}, "share is 2; at most 1 is allowed"),
        ({"points": [[1, 2]], "share": "x"}, "share is 'x'; a number or null is needed"),
        ({"points": [[1, 2]], "style": {"bold": 1}}, "style.bold is 1; true or false is needed"),
        ({"points": [[1, 2]], "style": {"x": 1}}, "style.'x' is 1; text is needed"),
        ({"points": [[1, 2]], "pionts": 1}, "arguments: 'pionts' is not known; there are: points"),
        ({"points": 10 ** (sys.get_int_max_str_digits() + 1)}, "points is a int that can't be"),
        ({"points": {1, 2}}, "points is {1, 2}; a list is needed"),
    ],
)
def test_values_that_do_not_fit(value: Any, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        check(value, NESTED)
    assert str(caught.value).startswith(told) and len(str(caught.value)) < 300


# --- @tool ---------------------------------------------------------------------------------


@tool
def annotate(
    images: Sequence[Image],
    text: str,
    box: tuple[float, float, float, float],
    sizes: list[int],
    style: Literal["plain", "bold"] = "plain",
    opacity: float = 1.0,
    frame: bool = False,
    font: Optional[str] = None,  # noqa: UP045 - both spellings are read
    corner: tuple[int, ...] | None = None,
) -> tuple[str, Image]:
    """Writes a text into an image,
    over what is there.

    The second paragraph is part of it.

    Args:
        text: What is written: any words,
            over as many lines as it takes.
        box (tuple): Where.
        style: How.

    Returns:
        What was written, and the image.

    Raises:
        ToolError: Never.
    """
    kinds = [type(v).__name__ for v in (text, box, sizes, style, opacity, frame, font, corner)]
    return " ".join([*kinds, type(box[0]).__name__, str(len(images))]), images[0]


def test_a_function_becomes_a_schema() -> None:
    assert isinstance(annotate, FunctionTool) and isinstance(annotate, Tool)
    assert annotate.name == "annotate"
    assert annotate.description == (
        "Writes a text into an image, over what is there.\nThe second paragraph is part of it."
    )
    number, whole = {"type": "number"}, {"type": "integer"}
    assert annotate.parameters == {
        "type": "object",
        "properties": {
            "text": {
                "type": "string",
                "description": "What is written: any words, over as many lines as it takes.",
            },
            "box": {
                "type": "array",
                "items": number,
                "minItems": 4,
                "maxItems": 4,
                "description": "Where.",
            },
            "sizes": {"type": "array", "items": whole},
            "style": {
                "type": "string",
                "enum": ["plain", "bold"],
                "description": "How.",
                "default": "plain",
            },
            "opacity": {"type": "number", "default": 1.0},
            "frame": {"type": "boolean", "default": False},
            "font": {"type": ["string", "null"], "default": None},
            "corner": {"type": ["array", "null"], "items": whole, "default": None},
        },
        "required": ["text", "box", "sizes"],
        "additionalProperties": False,
    }


def test_a_function_gets_what_its_annotations_say() -> None:
    tools = Tools([annotate])
    given = {"text": "a", "box": [0, 0, 1, 1], "sizes": [1.0, 2]}
    seen = tools.run(ToolCall("annotate", given), [GREY, GREY])
    assert seen.content[0] == "str tuple list str float bool NoneType NoneType float 2"
    more = {**given, "style": "bold", "opacity": 1, "font": None, "corner": [1, 2]}
    seen = tools.run(ToolCall("annotate", more), [GREY])
    assert seen.content[0] == "str tuple list str float bool NoneType tuple float 1"
    assert seen.images[0].size == GREY.size
    for wrong, told in (
        ({"style": "thin"}, "style is 'thin'; one of these is needed: 'plain', 'bold'"),
        ({"images": []}, "arguments: 'images' is not known"),
        ({"box": [0, 0, 1]}, "box has 3 items"),
    ):
        error = tools.run(ToolCall("annotate", {**given, **wrong}), [GREY]).error
        assert error is not None and error.startswith(told)


def test_one_image_is_named_by_the_model_and_may_be_drawn_on() -> None:
    @tool
    def blacken(image: Image) -> Image:
        """Blackens an image."""
        image.paste("black", (0, 0, *image.size))
        return image

    @tool
    def blacken_all(images: tuple[Image, ...]) -> Image:
        """Blackens all images."""
        for image in images:
            image.paste("black", (0, 0, *image.size))
        return images[-1]

    assert list(blacken.parameters["properties"]) == ["img_idx"]
    assert blacken.parameters["required"] == []
    white = PILImage.new("L", (8, 8), 255)
    tools = Tools([blacken, blacken_all])
    for name, arguments in (("blacken", {"img_idx": 1}), ("blacken_all", {})):
        seen = tools.run(ToolCall(name, arguments), [GREY, white])
        assert seen.images[0].getextrema() == (0, 0) and seen.images[0].mode == "L"
        assert white.getextrema() == (255, 255)  # the query's own image is as it was
    assert tools.run(call("blacken"), [GREY, white]).images[0].mode == "RGB"
    assert tools.run(call("blacken"), [GREY, white]).source == 0
    assert "use 0 to 1" in (tools.run(call("blacken", img_idx=2), [GREY, white]).error or "")


def test_everything_that_a_function_may_return() -> None:
    box = (0.0, 0.0, 1.0, 1.0)

    @tool
    def give(what: str):  # type: ignore[no-untyped-def]
        """Gives it."""
        return {
            "text": "a",
            "image": GREY,
            "observation": Observation(("b",), box=box, source=0),
            "tuple": ("c", GREY, Observation(("d",))),
            "failed": ("c", Observation(error="no luck")),
            "none": None,
            "list": ["a"],
            "number": (1,),
        }[what]

    tools = Tools([give])
    seen = {
        what: tools.run(call("give", what=what), [GREY])
        for what in (
            "text",
            "image",
            "observation",
            "tuple",
            "failed",
            "none",
            "list",
            "number",
            "key",
        )
    }
    assert seen["text"].content == ("a",) and seen["image"].content == (GREY,)
    assert seen["observation"] == Observation(("b",), box=box, source=0)
    assert seen["tuple"].content == ("c", GREY, "d")
    assert seen["failed"].error == "no luck"
    assert seen["none"].error == (
        "give returned a NoneType; text, images or an Observation are allowed"
    )
    assert "returned a list" in (seen["list"].error or "")
    assert "returned a int" in (seen["number"].error or "")
    assert seen["key"].error == "give failed: KeyError: 'key'"


def test_a_function_can_be_named_and_described_and_called() -> None:
    @tool(name="renamed", description="Described.")
    def original(a: int, b: int = 2) -> str:
        return str(a + b)

    assert (original.name, original.description) == ("renamed", "Described.")
    assert original.function(1) == "3"
    assert original([GREY], {"a": 1, "b": 5}).content == ("6",)


def untyped(a) -> str:  # type: ignore[no-untyped-def]
    """Doc."""
    return ""


def mapping(a: dict[str, int]) -> str:
    """Doc."""
    return ""


def several(a: int | str) -> str:
    """Doc."""
    return ""


def several_old(a: Union[int, str, None]) -> str:  # noqa: UP007 - both spellings are read
    """Doc."""
    return ""


def mixed(a: tuple[int, str]) -> str:
    """Doc."""
    return ""


def mixed_literal(a: Literal[1, "x"]) -> str:
    """Doc."""
    return ""


def bare_list(a: list) -> str:  # type: ignore[type-arg]
    """Doc."""
    return ""


def anything(a: Any) -> str:
    """Doc."""
    return ""


def arguments(*a: int) -> str:
    """Doc."""
    return ""


def keywords(**a: int) -> str:
    """Doc."""
    return ""


def positional(a: int, /) -> str:
    """Doc."""
    return ""


def unknown(a: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Doc."""
    return ""


def two_images(a: Image, b: Image) -> str:
    """Doc."""
    return ""


def maybe_image(a: Image | None) -> str:
    """Doc."""
    return ""


def last_image(image: Image, img_idx: int = -1) -> str:
    """Doc."""
    return ""


def undocumented(a: int) -> str:
    return ""


def only_arguments(a: int) -> str:
    """Args:
    a: What it is.
    """
    return ""


def gives_number() -> int:
    """Doc."""
    return 1


def gives_nothing() -> None:
    """Doc."""


async def piecemeal() -> Any:
    """Doc."""
    yield ""


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (untyped, "untyped: parameter 'a' has no type"),
        (mapping, "mapping: parameter 'a' has the type dict"),
        (several, "several: parameter 'a' has the type int | str"),
        (several_old, "several_old: parameter 'a'"),
        (mixed, "mixed: parameter 'a'"),
        (mixed_literal, "mixed_literal: parameter 'a'"),
        (bare_list, "bare_list: parameter 'a'"),
        (anything, "anything: parameter 'a'"),
        (arguments, "arguments: parameter 'a' can't be given by its name"),
        (keywords, "keywords: parameter 'a' can't be given by its name"),
        (positional, "positional: parameter 'a' can't be given by its name"),
        (unknown, "unknown: its annotations can't be read"),
        (two_images, "two_images: parameter 'b' is a second one"),
        (maybe_image, "maybe_image: parameter 'a'"),
        (last_image, "last_image: img_idx"),
        (undocumented, "undocumented has no docstring"),
        (only_arguments, "only_arguments has no docstring"),
        (gives_number, "gives_number returns <class 'int'>"),
        (gives_nothing, "gives_nothing returns"),
        (piecemeal, "piecemeal yields"),
    ],
)
def test_functions_that_make_no_tool(function: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tool(function)
    assert str(caught.value).startswith(told)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans())
def test_what_is_given_arrives(a: int, b: float, c: str, d: bool) -> None:
    got: list[Any] = []

    @tool
    def take(a: int, b: float, c: str, d: bool, e: list[list[int]]) -> str:
        """Takes."""
        got.extend([a, b, c, d, e])
        return "ok"

    arguments = {"a": a, "b": b, "c": c, "d": d, "e": [[a], []]}
    assert Tools([take], timeout_s=None).run(ToolCall("take", arguments), [GREY]).content == ("ok",)
    assert got == [a, b, c, d, [[a], []]]


def test_examples_in_docstrings() -> None:
    import doctest

    import speceyes.tools
    from speceyes.tools import _schema, function, rotate, zoom

    for module in (speceyes.tools, _schema, function, rotate, zoom):
        outcome = doctest.testmod(module)
        assert outcome.attempted >= 1 and outcome.failed == 0
