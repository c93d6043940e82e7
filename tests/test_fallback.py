"""Phase IV: turns, tools and errors of the agent, and trajectories that share a batch."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import prompts
from speceyes.agent.repetition import repeats
from speceyes.dialects import Profile
from speceyes.dialects.deepeyes import SpecEyesDialect
from speceyes.errors import ConfigError, ToolError
from speceyes.fallback import AgenticFallback
from speceyes.models.scripted import Script, ScriptedModel
from speceyes.tools import Tools
from speceyes.types import Conversation, Observation, Query, Sampling, Trajectory
from support.models import FakeModel

PICTURE = Image.effect_noise((200, 100), 60).convert("RGB")


def ask(number: int = 0) -> Query:
    return Query(f"Which colour? #{number}.", (PICTURE,))


def call(box: Any = (10, 20, 60, 90), name: str = "image_zoom_in_tool", **more: Any) -> str:
    body = json.dumps({"name": name, "arguments": {"bbox_2d": box, **more}})
    return f"<think>closer</think>\n<tool_call>\n{body}\n</tool_call>"


def answer(text: str) -> str:
    return f"<think>clear</think>\n<answer>{text}</answer>"


def run(script: Script, **options: Any) -> Trajectory:
    [trajectory] = AgenticFallback(ScriptedModel(script), tools=["zoom"], **options)([ask()])
    return trajectory


# --- one trajectory ---------------------------------------------------------------------------


def test_a_zoom_and_an_answer() -> None:
    way = run([call((10, 20, 60, 90)), answer("red")])
    assert (way.answer, way.stop, way.error, way.depth) == ("red", "answered", None, 1)
    [seen] = way.steps[0].observations
    assert (seen.box, seen.source, seen.error) == ((10, 20, 60, 90), 0, None)
    assert seen.images[0].tobytes() == PICTURE.crop((10, 20, 60, 90)).tobytes()
    assert way.steps[1].observations == ()
    assert all(step.tokens > 0 and step.prompt_tokens > 0 for step in way.steps)
    assert way.steps[1].prompt_tokens > way.steps[0].prompt_tokens


def test_boxes_are_read_in_pixels_of_the_image_as_the_model_sees_it() -> None:
    model = ScriptedModel(
        [call((5, 10, 30, 45)), answer("red")], seen=lambda im: (im.width // 2, im.height // 2)
    )
    [way] = AgenticFallback(model, tools=["zoom"])([ask()])
    assert way.steps[0].observations[0].box == (10, 20, 60, 90)


def test_an_earlier_crop_can_be_zoomed_again() -> None:
    model = FakeModel([call((0, 0, 100, 100)), call((50, 50, 90, 90), img_idx=1), answer("red")])
    [way] = AgenticFallback(model, tools=["zoom"])([ask()])
    second = way.steps[1].observations[0]
    assert (second.source, second.box) == (1, (50, 50, 90, 90))
    assert second.images[0].tobytes() == PICTURE.crop((50, 50, 90, 90)).tobytes()
    assert [image.size for image in model.batches[2][0].images] == [
        (200, 100),
        (100, 100),
        (40, 40),
    ]


def test_calls_of_one_turn_each_get_their_observation_and_see_the_same_images() -> None:
    model = FakeModel([call((0, 0, 50, 50)) + call((50, 50, 99, 99), img_idx=1), answer("red")])
    [way] = AgenticFallback(model, tools=["zoom"])([ask()])
    # Stopped at the first </tool_call>, as the dialect's stop strings have it.
    assert way.depth == 1

    dialect = SpecEyesDialect(profile=Profile(stop=("</answer>",)))
    [way] = AgenticFallback(model, tools=["zoom"], dialect=dialect)([ask()])
    first, second = way.steps[0].observations
    assert first.images[0].size == (50, 50)
    assert "img_idx=1 is not an image so far" in (second.error or "")
    assert way.answer == "red"


BROKEN = [
    ("I think it is red.", "neither a <tool_call> nor an <answer>"),
    ("", "neither a <tool_call> nor an <answer>"),
    ("<answer></answer>", "the <answer> is empty"),
    ("<tool_call>{not json</tool_call>", "not valid JSON"),
    ("<tool_call>[1]</tool_call>", "a JSON object is needed"),
    (call("everywhere"), "is not [left, top, right, bottom]"),
    (call((10, 20, None, 90)), "which is not a number"),
    (call((10, 20, 60, 90), img_idx=7), "is not an image so far"),
    (call((210, 110, 230, 120)), "outside the image"),
    (call((900, 900, 950, 950)), "numbers are pixels of the image as you see it, 200x100"),
    ("<function=zoom></function>", "a call written as <function=... can't be read here"),
    (call((10, 20, 60, 90), name="hammer"), "hammer"),
]


@pytest.mark.parametrize(("said", "told"), BROKEN)
def test_what_goes_wrong_is_told_to_the_model_which_may_answer_to_it(said: str, told: str) -> None:
    model = FakeModel([said, answer("red")])
    [way] = AgenticFallback(model, tools=["zoom"])([ask()])
    assert way.answer == "red"
    [seen] = way.steps[0].observations
    assert told in (seen.error or "")
    shown = model.batches[1][0].messages
    assert [m.role for m in shown] == ["system", "user", "assistant", "user"]
    assert shown[2].text == said
    assert told in shown[3].text
    assert shown[3].text.startswith("<tool_response>Error: ")


def test_a_turn_cut_in_mid_call_is_told_to_be_shorter() -> None:
    way = run({"cut off": answer("red"), "": "<tool_call> " + "word " * 60}, max_tokens=20)
    assert way.answer == "red"
    assert "it was cut off: be shorter" in (way.steps[0].error or "")


class Troublesome:
    """A tool that fails in every way there is."""

    name = "trouble"
    description = "Fails."
    parameters: Mapping[str, Any] = {"type": "object", "properties": {"how": {"type": "string"}}}

    def __call__(self, images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
        if arguments["how"] == "tool":
            raise ToolError("out of paint")
        if arguments["how"] == "bug":
            raise ZeroDivisionError("division by zero")
        return "not an observation"  # type: ignore[return-value]


@pytest.mark.parametrize("how", ["tool", "bug", "type"])
def test_a_tool_that_fails_is_an_observation(how: str) -> None:
    body = json.dumps({"name": "trouble", "arguments": {"how": how}})
    model = ScriptedModel([f"<tool_call>{body}</tool_call>", answer("red")])
    [way] = AgenticFallback(model, tools=[Troublesome()])([ask()])
    assert way.answer == "red"
    assert way.steps[0].observations[0].error
    assert way.stop == "answered"


def test_a_tool_that_takes_too_long_is_an_observation() -> None:
    done = threading.Event()

    def wait(how: str) -> str:
        """Waits."""
        done.wait(30)
        return how

    body = json.dumps({"name": "wait", "arguments": {"how": "long"}})
    model = ScriptedModel([f"<tool_call>{body}</tool_call>", answer("red")])
    [way] = AgenticFallback(model, tools=Tools([wait], timeout_s=0.05))([ask()])
    done.set()
    assert way.answer == "red"
    assert "longer than 0.05 s" in (way.steps[0].observations[0].error or "")


# --- the last turn ----------------------------------------------------------------------------


def test_before_its_last_turn_the_model_is_told_to_answer() -> None:
    model = FakeModel({"No further tool calls": answer("red"), "": call()})
    [way] = AgenticFallback(model, tools=["zoom"], max_steps=4)([ask()])
    assert (way.answer, way.depth, len(way.steps)) == ("red", 3, 4)
    told = [prompts.LAST_TURN in batch[0].messages[-1].text for batch in model.batches]
    assert told == [False, False, False, True]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("red", "red"),
        ("<think>it is far</think> dark red\n", "dark red"),
        ("<think>it is far</think> red</answer>", "red"),
        (answer("red"), "red"),
    ],
)
def test_plain_text_is_an_answer_on_the_last_turn_only(said: str, expected: str) -> None:
    way = run(said, max_steps=2)
    assert (way.answer, way.stop) == (expected, "answered")
    assert len(way.steps) == (1 if "<answer>" in said else 2)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "   ",
        "<think>red</think>",
        "<think>I still wonder",
        "<answer></answer>",
        "<tool_call>{broken</tool_call>",
        call(),
        "word " * 80,  # cut off at max_tokens
    ],
)
def test_no_answer_in_the_last_turn_is_max_steps(said: str) -> None:
    way = run(said, max_steps=3, max_tokens=40)
    assert (way.answer, way.stop, way.error, len(way.steps)) == (None, "max_steps", None, 3)


def test_a_single_turn_is_asked_for_an_answer_at_once() -> None:
    model = FakeModel("red")
    [way] = AgenticFallback(model, tools=["zoom"], max_steps=1)([ask()])
    assert way.answer == "red"
    assert prompts.DIRECT in model.batches[0][0].messages[-1].text


# --- many trajectories ------------------------------------------------------------------------


def by_number(**scripts: Script) -> Script:
    return {f"#{key.removeprefix('q')}.": script for key, script in scripts.items()}


def test_live_trajectories_share_one_batch_a_round_and_new_ones_join() -> None:
    script = by_number(
        q0=answer("a"), q1=[call(), answer("b")], q2=[call(), call(), answer("c")], q3=answer("d")
    )
    model = FakeModel(script)
    ways = AgenticFallback(model, tools=["zoom"], max_batch=2)([ask(n) for n in range(4)])
    assert [way.answer for way in ways] == ["a", "b", "c", "d"]
    assert [way.depth for way in ways] == [0, 1, 2, 0]
    numbers = [[c.messages[1].text.split("#")[1][0] for c in batch] for batch in model.batches]
    assert numbers == [["0", "1"], ["1", "2"], ["2", "3"], ["2"]]


def test_results_stream_as_they_finish_with_seconds() -> None:
    script = by_number(q0=[call(), answer("a")], q1=answer("b"), q2=answer("c"))
    agent = AgenticFallback(ScriptedModel(script, delay_s=0.02), tools=["zoom"], max_batch=3)
    start = time.perf_counter()
    found = list(agent.stream(ask(n) for n in range(3)))
    wall = time.perf_counter() - start
    assert [at for at, _, _ in found] == [1, 2, 0]
    seconds = {at: spent for at, _, spent in found}
    # A third of the first round each; all of the second round for the one left.
    assert seconds[1] >= 0.02 / 3
    assert seconds[0] >= 0.02 / 3 + 0.02
    # Shares add up to no more than the time there was.
    assert sum(seconds.values()) <= wall


def test_the_iterable_is_pulled_only_as_places_come_free() -> None:
    pulled: list[int] = []

    def source() -> Iterator[Query]:
        for n in count():
            pulled.append(n)
            yield ask(n)

    stream = AgenticFallback(ScriptedModel(answer("a")), tools=["zoom"], max_batch=3).stream(
        source()
    )
    for finished in range(1, 20):
        next(stream)
        assert len(pulled) <= finished - 1 + 3
    stream.close()
    assert len(pulled) < 30


def test_an_exception_of_the_iterable_comes_after_what_is_under_way() -> None:
    def source() -> Iterator[Query]:
        yield ask(0)
        yield ask(1)
        raise OSError("disk gone")

    stream = AgenticFallback(ScriptedModel([call(), answer("a")]), tools=["zoom"]).stream(source())
    assert [next(stream)[1].answer, next(stream)[1].answer] == ["a", "a"]
    with pytest.raises(OSError, match="disk gone"):
        next(stream)


def test_no_queries_ask_nothing() -> None:
    model = FakeModel("red")
    assert AgenticFallback(model, tools=["zoom"])([]) == []
    assert model.batches == []


# --- one trajectory's trouble -----------------------------------------------------------------


def test_a_batch_that_raises_ends_only_the_guilty() -> None:
    def poisoned(batch: Sequence[Conversation]) -> Exception | None:
        """For every batch that holds query 1 in its second turn."""
        guilty = any("#1." in c.messages[1].text and len(c.messages) > 2 for c in batch)
        return RuntimeError("illegal memory access") if guilty else None

    model = FakeModel([call(), answer("a")], fails=poisoned)
    ways = AgenticFallback(model, tools=["zoom"])([ask(n) for n in range(3)])
    assert [way.answer for way in ways] == ["a", None, "a"]
    assert (ways[1].stop, ways[1].error) == ("error", "RuntimeError: illegal memory access")
    assert ways[1].depth == 1
    assert ways[1].steps[-1].error == ways[1].error


def test_a_failed_completion_ends_only_its_own() -> None:
    script = by_number(q0=[call(), answer("a")], q1=[call(), ValueError("too long")])
    ways = AgenticFallback(ScriptedModel(script), tools=["zoom"])([ask(0), ask(1)])
    assert [way.stop for way in ways] == ["answered", "error"]
    assert ways[1].error == "ValueError: too long"


@pytest.mark.parametrize("method", ["open", "parse", "locate", "observe"])
def test_a_defect_of_the_dialect_ends_only_the_trajectory_it_meets(method: str) -> None:
    class Defective:
        """DeepEyes, with one method that fails on query 1."""

        name, stop, inner = "defective", SpecEyesDialect().stop, SpecEyesDialect()

        def __getattr__(self, attribute: str) -> Any:
            real = getattr(self.inner, attribute)
            if attribute != method:
                return real

            def failing(first: Any, *rest: Any, **more: Any) -> Any:
                if "#1." in str(getattr(first, "messages", first)):
                    raise KeyError("defect")
                return real(first, *rest, **more)

            return failing

    def script(conversation: Conversation, sampling: Sampling) -> Script:
        number = conversation.messages[1].text.split("#")[1][0]
        return [f"<think>#{number}.</think>" + call(label=f"#{number}."), answer("a")]

    agent = AgenticFallback(ScriptedModel(script), tools=["zoom"], dialect=Defective())  # type: ignore[arg-type]
    ways = agent([ask(0), ask(1), ask(2)])
    assert [way.stop for way in ways] == ["answered", "error", "answered"]
    assert "KeyError" in (ways[1].error or "")


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupt(conversation: Conversation, sampling: Sampling) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt)


@pytest.mark.parametrize("arguments", [{"max_steps": 0}, {"max_tokens": 0}, {"max_batch": 0}])
def test_numbers_below_one_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="=0; it must be at least 1"):
        AgenticFallback(ScriptedModel("a"), tools=["zoom"], **arguments)


def test_a_registry_is_taken_as_it_is_and_unknown_names_are_refused() -> None:
    tools = Tools(["zoom"])
    assert AgenticFallback(ScriptedModel("a"), tools=tools).tools is tools
    with pytest.raises(ConfigError, match="hammer"):
        AgenticFallback(ScriptedModel("a"), tools=["hammer"])
    with pytest.raises(ConfigError, match="klingon"):
        AgenticFallback(ScriptedModel("a"), tools=tools, dialect="klingon")


# --- properties -------------------------------------------------------------------------------

turns = st.sampled_from(
    [
        answer("yes"),
        answer("no"),
        call(),
        call((190, 90, 200, 100)),
        call("nowhere"),
        call(name="hammer"),
        "plain words",
        "",
        "<think>unfinished",
        "<tool_call>{",
        "long " * 100,
    ]
) | st.just(ValueError("model failed"))


@settings(max_examples=50)
@given(
    scripts=st.lists(st.lists(turns, min_size=1, max_size=4), min_size=1, max_size=5),
    max_batch=st.integers(1, 8),
    max_steps=st.integers(1, 5),
)
def test_a_trajectory_is_the_same_alone_and_among_others(
    scripts: list[list[str | Exception]], max_batch: int, max_steps: int
) -> None:
    model = ScriptedModel({f"#{n}.": script for n, script in enumerate(scripts)})
    agent = AgenticFallback(
        model, tools=["zoom"], max_batch=max_batch, max_steps=max_steps, max_tokens=60
    )
    queries = [ask(n) for n in range(len(scripts))]
    together = agent(queries)
    assert together == [agent([query])[0] for query in queries]
    for way in together:
        assert 1 <= len(way.steps) <= max_steps
        assert (way.answer is not None) == (way.stop == "answered")
        assert (way.error is not None) == (way.stop in ("error", "repeated"))
        if way.answer is not None:
            assert way.answer in way.steps[-1].text
        for step in way.steps[:-1]:
            assert len(step.observations) == max(len(step.calls), 1)


def test_threads_share_an_agent() -> None:
    script = {f"#{n}.": [call(), answer(str(n))] for n in range(20)}
    agent = AgenticFallback(ScriptedModel(script), tools=["zoom"], max_batch=3)
    found: dict[int, list[str | None]] = {}

    def work(part: int) -> None:
        found[part] = [way.answer for way in agent([ask(n) for n in range(part, 20, 2)])]

    threads = [threading.Thread(target=work, args=(part,)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {part: [str(n) for n in range(part, 20, 2)] for part in (0, 1)}


# --- repetition, and turns with very many calls ----------------------------------------------


def test_a_trajectory_that_stands_still_is_asked_for_its_answer_and_then_ended() -> None:
    same = call((10, 20, 60, 90))
    told = FakeModel([same, same, same, answer("red")])
    [way] = AgenticFallback(told, tools=["zoom"], max_steps=20)([ask()])
    assert (way.answer, way.depth, way.stop) == ("red", 3, "answered")
    assert prompts.LAST_TURN in told.batches[-1][0].messages[-1].text
    [way] = AgenticFallback(FakeModel([same] * 20), tools=["zoom"], max_steps=20)([ask()])
    assert (way.answer, way.stop, len(way.steps)) == (None, "repeated", 4)
    assert "3 turns in a row were the same calls" in (way.error or "")
    # The same box of another image, or another box, is another look.
    boxes = [call((10, 20, 60 + n, 90)) for n in range(5)]
    [way] = AgenticFallback(FakeModel([*boxes, answer("red")]), tools=["zoom"], max_steps=20)(
        [ask()]
    )
    assert (way.answer, way.depth) == ("red", 5)


@pytest.mark.parametrize(
    "circle, turns",
    [((0, 1), 4), ((0, 1, 2), 6), ((0, 0, 1), 6), ((0, 1, 2, 3), 8), ((0, 1, 0, 2), 8)],
)
@pytest.mark.parametrize("start", [0, 2])
def test_a_trajectory_that_goes_in_circles_is_ended_with_that_reason(
    circle: tuple[int, ...], turns: int, start: int
) -> None:
    looks = [call((10, 20, 60 + 5 * at, 90)) for at in circle]
    said = [call((0, 0, 9, 9 + n)) for n in range(start)] + looks * 10
    [way] = AgenticFallback(FakeModel(said), tools=["zoom"], max_steps=20)([ask()])
    # One more turn, in which it is asked for its answer.
    assert (way.answer, way.stop, len(way.steps)) == (None, "repeated", start + turns + 1)
    assert f"the last {turns} turns were {len(circle)} calls twice over" in (way.error or "")
    said[start + turns] = answer("red")
    [way] = AgenticFallback(FakeModel(said), tools=["zoom"], max_steps=20)([ask()])
    assert (way.answer, way.stop) == ("red", "answered")


def test_a_look_back_is_no_circle() -> None:
    a, b, c = (call((10, 20, 60 + 5 * n, 90)) for n in range(3))
    for said in ([a, b, a], [a, b, a, c], [a, a, b, b], [a, b, c, a, b], [a, b, b, a]):
        model = FakeModel([*said, answer("red")])
        [way] = AgenticFallback(model, tools=["zoom"], max_steps=20)([ask()])
        assert (way.answer, way.depth) == ("red", len(said))


def test_an_empty_call_over_and_over_ends_a_trajectory() -> None:
    for nothing in ("<tool_call>{}</tool_call>", '<tool_call>{"name": ""}</tool_call>'):
        [way] = AgenticFallback(FakeModel([nothing] * 20), tools=["zoom"], max_steps=20)([ask()])
        assert (way.stop, len(way.steps)) == ("repeated", 4)
        assert "3 turns in a row were the same words" in (way.error or "")


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        '{"name": null, "arguments": {}}',
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 40, 40]}}',
        'I zoom: {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 40, 40]}}',
        '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0,',
        '{"thought": "a", "actions": [{"name": "OCR"}]}',
        "image_zoom_in_tool(bbox_2d=[0, 0, 40, 40])",
        "<parameter=bbox_2d>[0, 0, 40, 40]</parameter></function></tool_call>",
        "image_zoom_in_tool\n<arg_key>bbox_2d</arg_key>\n<arg_value>[0, 0, 40, 40]</arg_value>",
    ],
)
def test_a_call_without_its_tags_is_no_answer_in_the_last_turn_either(said: str) -> None:
    [way] = AgenticFallback(FakeModel([said] * 2), tools=["zoom"], max_steps=2)([ask()])
    assert (way.answer, way.stop) == (None, "max_steps")


def test_the_end_of_a_turn_is_no_part_of_its_answer() -> None:
    model = FakeModel(["It is red.<|im_end|>\n"] * 2)
    [way] = AgenticFallback(model, tools=["zoom"], max_steps=2)([ask()])
    assert (way.answer, way.stop) == ("It is red.", "answered")


def test_json_without_tags_answers_in_the_last_turn() -> None:
    for said in (
        '{"actions": ["run", "jump"]}',
        '{"bbox_2d": [1, 2, 3, 4], "source": "camera"}',
        '{"name": "Bob", "age": 3}',
        '{"name": ["Bob", "Al"]}',
        '{"arguments": ["pro"]}',
    ):
        model = FakeModel([said] * 2)
        [way] = AgenticFallback(model, tools=["zoom"], max_steps=2)([ask()])
        assert (way.answer, way.stop) == (said, "answered")


@pytest.mark.parametrize("length", [1, 7, 100, 399, 401, 1500, 4000])
def test_a_text_that_repeats_a_piece_of_any_length(length: int) -> None:
    draw = random.Random(length)
    piece = "".join(draw.choice("abcdefghij ") for _ in range(length - 1)) + "z"
    times = max(4, 130 // length)
    assert repeats("Well, " + piece * times)
    assert repeats(piece * (times + 1) + piece[: length // 3])
    assert not repeats(piece * 2)
    assert not repeats("".join(draw.choice("abcdefghij ") for _ in range(20_000)))


@pytest.mark.parametrize("piece", ["\n", " ", "\t\n", "\u3000"])
def test_blanks_to_the_last_token_repeat_themselves_too(piece: str) -> None:
    assert repeats("I look." + piece * 300) and not repeats("I look." + piece * 3)


def test_rambling_to_the_last_token_twice_ends_a_trajectory() -> None:
    rambling = "It is the blue one. No, the red one. " * 50
    model = FakeModel([rambling] * 20)
    [way] = AgenticFallback(model, tools=["zoom"], max_steps=20, max_tokens=60)([ask()])
    assert (way.answer, way.stop, len(way.steps)) == (None, "repeated", 3)
    assert "one thing over and over" in (way.error or "")


def test_a_turn_with_very_many_calls_is_bounded_and_told() -> None:
    many = "".join(call((n, 0, n + 40, 40)) for n in range(500))
    model = FakeModel([many, answer("red")])
    dialect = SpecEyesDialect(profile=Profile(stop=("</answer>",)))
    agent = AgenticFallback(model, tools=["zoom"], dialect=dialect, max_tokens=100_000)
    [way] = agent([ask()])
    assert (way.answer, way.depth) == ("red", 16)
    *looks, left = way.steps[0].observations
    assert len(looks) == 16 and all(one.images for one in looks)
    assert left.error == "484 more calls of this turn were not run; at most 16 are"
