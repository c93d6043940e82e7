"""The values: what they refuse, what they keep, and that a Result survives its line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes.errors import InputError, SpecEyesError
from speceyes.types import (
    Completion,
    Conversation,
    ImageRef,
    Judgement,
    Message,
    Observation,
    Query,
    Result,
    Sampling,
    Step,
    Timings,
    ToolCall,
    Trajectory,
    Verdict,
)

PICTURE = Image.new("RGB", (40, 30), "red")


# --- Query, Message, Conversation, Sampling ---------------------------------------------------


@pytest.mark.parametrize("question", ["", "  \n\t ", None, 3])
def test_a_blank_question_is_refused_with_what_to_do(question: object) -> None:
    with pytest.raises(InputError, match="is blank: pass the question as text"):
        Query(question, (PICTURE,))  # type: ignore[arg-type]


def test_a_query_needs_an_image() -> None:
    with pytest.raises(InputError, match="no image"):
        Query("Which colour?", ())


@pytest.mark.parametrize("image", ["photo.jpg", b"\x89PNG", np.zeros((4, 4, 3), np.uint8)])
def test_an_unloaded_image_is_refused_and_the_loader_is_named(image: object) -> None:
    with pytest.raises(InputError, match="load_image"):
        Query("Which colour?", (PICTURE, image))  # type: ignore[arg-type]


def test_lists_become_tuples_and_choices_get_letters() -> None:
    query = Query("Which?", [PICTURE], ["red", "blue", "green"])  # type: ignore[arg-type]
    assert query.images == (PICTURE,)
    assert query.text == "Which?\n(A) red\n(B) blue\n(C) green"
    assert Query("Which?", (PICTURE,)).text == "Which?"


def test_a_conversation_lists_its_images_in_reading_order_and_drops_its_prefill() -> None:
    first, second, third = (Image.new("RGB", (n, n)) for n in (1, 2, 3))
    opening = Conversation((Message("user", (first, "and", second)),), prefill="Well,")
    longer = opening.then(Message("assistant", ("ok",)), Message("user", ("look", third)))
    assert longer.images == (first, second, third)
    assert longer.prefill == ""
    assert opening.images == (first, second)
    assert opening.messages[0].text == "and"
    closed = Conversation(opening.messages, thinking=False)
    assert closed.then(longer.messages[-1]).thinking is False


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"sample_top_k": -1}, "sample_top_k=-1"),
        ({"presence_penalty": 3.0}, "presence_penalty=3.0"),
        ({"presence_penalty": math.nan}, "presence_penalty=nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty=inf"),
    ],
)
def test_sampling_refuses_what_cannot_be_sampled(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Sampling(**arguments)  # type: ignore[arg-type]


# --- Completion -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "shape"), [(2, (3, 4)), (3, (2, 4)), (0, (1, 4)), (2, (2,)), (2, (2, 2, 2))]
)
def test_log_probabilities_of_another_shape_are_refused(
    tokens: int, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"top_logprobs has shape"):
        Completion("a b", tuple(range(tokens)), np.zeros(shape, np.float32))


@pytest.mark.parametrize(("tokens", "shape"), [(2, (2, 4)), (2, (0, 0)), (0, (0, 0)), (0, (0, 5))])
def test_log_probabilities_of_the_right_shape_are_kept_read_only(
    tokens: int, shape: tuple[int, ...]
) -> None:
    completion = Completion("a b", tuple(range(tokens)), np.zeros(shape, np.float64))
    assert completion.top_logprobs.shape == shape
    assert completion.top_logprobs.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        completion.top_logprobs[...] = 1


def test_completions_compare_by_value_nan_included() -> None:
    def make(value: float) -> Completion:
        return Completion("a", (np.int64(7),), np.array([[value, -1.0]], np.float32))  # type: ignore[arg-type]

    assert make(math.nan) == make(math.nan)
    assert make(-0.5) != make(-0.6)
    assert make(-0.5) != "a"
    assert type(make(0).token_ids[0]) is int
    with pytest.raises(TypeError, match="unhashable"):
        hash(make(0))


def test_a_failed_completion_says_so() -> None:
    failed = Completion.failed("out of memory")
    assert (failed.text, failed.token_ids, failed.finish) == ("", (), "error")
    assert failed.error == "out of memory"


@pytest.mark.parametrize(
    ("value", "attribute"),
    [
        (Query("Why?", (PICTURE,)), "question"),
        (Message("user", ("a",)), "role"),
        (Conversation(()), "prefill"),
        (Sampling(), "top_k"),
        (Completion("a"), "text"),
        (Judgement(True), "needs_tools"),
        (Verdict(True, 1.0, 9.0, 0.98), "accepted"),
        (ToolCall("zoom", {}), "name"),
        (Observation(), "error"),
        (Step("a"), "text"),
        (Trajectory((), None, "max_steps"), "answer"),
        (Timings(), "judge"),
        (Result("0", "a", "draft"), "answer"),
    ],
)
def test_values_are_frozen_and_have_no_room_for_more(value: object, attribute: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, attribute, None)
    assert not hasattr(value, "__dict__")


def test_depth_and_tokens_are_counted_over_the_steps() -> None:
    calls = (ToolCall("zoom", {}), ToolCall("zoom", {}))
    way = Trajectory((Step("a", calls, tokens=5), Step("b", tokens=3)), "x", "answered")
    assert (way.depth, way.tokens) == (2, 8)


# --- ImageRef ---------------------------------------------------------------------------------


def test_an_image_ref_tells_pictures_apart_by_content_size_and_mode() -> None:
    same = ImageRef.of(Image.new("RGB", (40, 30), "red"))
    assert ImageRef.of(PICTURE) == same == ImageRef(40, 30, same.sha256)
    others = [
        Image.new("RGB", (40, 30), "blue"),
        Image.new("RGB", (30, 40), "red"),
        Image.new("L", (40, 30)),
        Image.new("P", (40, 30)),
    ]
    assert len({ImageRef.of(image).sha256 for image in [PICTURE, *others]}) == 5


# --- Result as JSON ---------------------------------------------------------------------------

# Any text a model can decode to: surrogates can't be written as UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats32 = st.floats(width=32)
finite = st.floats(allow_nan=False, allow_infinity=False)
optional_seconds = st.none() | st.floats(0, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    n, k = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    ids = draw(st.lists(st.integers(0, 2**31), min_size=n, max_size=n))
    rows = draw(st.lists(st.lists(floats32, min_size=k, max_size=k), min_size=n, max_size=n))
    return Completion(
        draw(texts),
        tuple(ids),
        np.array(rows, np.float32) if rows else np.zeros((0, 0), np.float32),
        draw(st.sampled_from(["stop", "length", "error"])),
        draw(st.integers(0, 10**6)),
        draw(st.dictionaries(texts, st.floats(0, 1), max_size=3)),
        draw(st.none() | texts),
    )


refs = st.builds(ImageRef, st.integers(1, 9999), st.integers(1, 9999), texts)
boxes = st.none() | st.tuples(finite, finite, finite, finite)
observations = st.builds(
    Observation,
    st.lists(texts | refs, max_size=3).map(tuple),
    st.none() | texts,
    boxes,
    st.none() | st.integers(0, 9),
)
calls = st.builds(ToolCall, texts, st.dictionaries(texts, json_values, max_size=3), texts)
steps = st.builds(
    Step,
    texts,
    st.lists(calls, max_size=2).map(tuple),
    st.lists(observations, max_size=2).map(tuple),
    st.integers(0, 999),
    st.integers(0, 999),
    st.none() | texts,
)
results = st.builds(
    Result,
    texts,
    st.none() | texts,
    st.sampled_from(["draft", "agent", "error"]),
    st.none()
    | st.builds(
        Judgement, st.booleans(), st.none() | st.floats(0, 1), st.none() | completions(), texts
    ),
    st.none() | completions(),
    st.none()
    | st.builds(
        Verdict,
        st.booleans(),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(allow_nan=False),
        st.floats(0, 1),
        st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
        texts,
    ),
    st.none()
    | st.builds(
        Trajectory,
        st.lists(steps, max_size=3).map(tuple),
        st.none() | texts,
        st.sampled_from(["answered", "max_steps", "error"]),
        st.none() | texts,
    ),
    st.builds(
        Timings,
        optional_seconds,
        optional_seconds,
        optional_seconds,
        optional_seconds,
        optional_seconds,
    ),
    st.none() | texts,
)


@settings(max_examples=50)
@given(results)
def test_a_result_survives_its_line_of_json(result: Result) -> None:
    line = result.to_json()
    assert "\n" not in line
    assert "\r" not in line
    assert Result.from_json(line) == result
    assert Result.from_json(line).to_json() == line


def test_the_line_is_standard_json_whatever_the_numbers() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    odd = Completion("a", (1, 2), np.array([[np.inf, 0.1], [np.nan, -np.inf]], np.float32))
    verdict = Verdict(False, math.nan, -math.inf, 0.98, (math.inf, math.nan), "odd")
    result = Result("0", None, "error", draft=odd, verdict=verdict, error="odd")
    data = json.loads(result.to_json(), parse_constant=refuse)
    assert data["draft"]["top_logprobs"] == [["inf", 0.1], ["nan", "-inf"]]
    back = Result.from_json(result.to_json())
    assert back.draft == odd
    assert back.verdict is not None
    assert back.verdict.separability == -math.inf
    assert math.isnan(back.verdict.score or 0.0)
    assert back.verdict.token_scores[0] == math.inf
    assert math.isnan(back.verdict.token_scores[1])


def test_images_become_references_and_nothing_else_is_lost() -> None:
    seen = Observation(("crop:", PICTURE), box=(0, 0, 40, 30), source=0)
    way = Trajectory((Step("t", (ToolCall("zoom", {"a": [1]}),), (seen,)),), "red", "answered")
    result = Result("0", "red", "agent", trajectory=way)
    back = Result.from_json(result.to_json())
    assert back.trajectory is not None
    assert back.trajectory.steps[0].observations[0].content == ("crop:", ImageRef.of(PICTURE))
    # Written again, the reference stays what it is.
    assert back.to_json() == result.to_json()


@pytest.mark.parametrize(
    "line",
    ["", "not json", "[]", "3", "null", "{}", '{"query_id": "0"}', '{"verdict": 3}', "\x00"],
)
def test_a_line_that_is_no_result_is_refused_in_one_family_of_errors(line: str) -> None:
    with pytest.raises(InputError, match="not a Result") as caught:
        Result.from_json(line)
    assert isinstance(caught.value, SpecEyesError)


def test_a_field_from_elsewhere_is_refused() -> None:
    data = json.loads(Result("0", "a", "draft").to_json())
    with pytest.raises(InputError, match="colour"):
        Result.from_json(json.dumps({**data, "colour": 1}))


@pytest.mark.parametrize(
    "more",
    [
        {"question": "half \ud800 of a pair"},
        {"question": "Which?", "choices": ("red", "\udfff")},
        {"question": "Which?", "instructions": "\udc00"},
        {"question": "Which?", "history": iter([Message("user", ("\ud800",))])},
    ],
)
def test_half_a_surrogate_pair_is_bad_input(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="half a surrogate pair"):
        Query(images=(Image.new("RGB", (8, 8)),), **more)


def test_a_result_fits_a_screen_however_much_is_in_it() -> None:
    rows = np.zeros((300, 64), dtype=np.float32)
    draft = Completion("blue " * 400, tuple(range(300)), rows)
    seen = Observation((PICTURE, "cropped " * 100))
    step = Step("thinking " * 500, (ToolCall("zoom", {"bbox": [0, 0, 1, 1]}),), (seen,), tokens=9)
    result = Result(
        "7", "blue " * 400, "agent", Judgement(False, 0.031), draft,
        Verdict(False, 0.91, 12.0, 0.98, tuple([0.5] * 300)),
        Trajectory((step,) * 20, "blue " * 400, "answered"),
        Timings(latency=0.25), error="it broke " * 100, question="What colour is it? " * 50,
    )  # fmt: skip
    lines = repr(result).splitlines()
    assert len(lines) <= 12 and max(map(len, lines)) <= 200
    shown = repr(result)
    for part in ("'7'", "agent", "0.031", "300 tokens", "0.91", "0.98", "depth=20", "What colour"):
        assert part in shown
    assert "Image" not in shown and "array" not in shown
    assert repr(Result("1", "red", "draft")) == "Result('1', 'red', 'draft')"


def test_the_line_has_the_question_and_older_lines_are_read_without() -> None:
    line = Result("1", "red", "draft", question="Is it “red”?\u2028").to_json()
    assert Result.from_json(line).question == "Is it “red”?\u2028"
    older = json.loads(line)
    del older["question"]
    assert Result.from_json(json.dumps(older)).question == ""
