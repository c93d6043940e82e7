"""Tool results that are worked out before they are asked for, and change nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import tiny
from speceyes.agent.guessers import EarlierCallGuesser, SmallModelGuesser, TurnGuesser
from speceyes.errors import ConfigError
from speceyes.fallback import AgenticFallback
from speceyes.fingerprint import fingerprint
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.tools.zoom import Zoom
from speceyes.types import (
    Completion,
    Conversation,
    Message,
    Observation,
    Query,
    Sampling,
    ToolCall,
    Trajectory,
)

PICTURE = Image.effect_noise((64, 64), 60).convert("RGB")
ZOOM = "image_zoom_in_tool"


def ask(n: int = 0) -> Query:
    return Query(f"Which colour? #{n}.", (PICTURE,), id=str(n))


def written(box: Any, name: str = ZOOM) -> str:
    body = json.dumps({"name": name, "arguments": {"bbox_2d": box}})
    return f"<think>closer</think>\n<tool_call>\n{body}\n</tool_call>"


class Told:
    """Guesses what it was told to, and remembers what it learned."""

    reads_text = False

    def __init__(self, call: Any) -> None:
        self.call = call
        self.learned: list[tuple[str, Sequence[ToolCall]]] = []

    def guess(self, conversation: Conversation, said: str) -> ToolCall | None:
        if isinstance(self.call, Exception):
            raise self.call
        return self.call(conversation) if callable(self.call) else self.call

    def seen_size(self, image: Image.Image) -> tuple[int, int] | None:
        return None

    def learn(self, conversation: Conversation, text: str, calls: Sequence[ToolCall]) -> None:
        self.learned.append((text, calls))


class Counted:
    """A zoom that counts how often it was run, and by whom."""

    name, description, parameters = Zoom().name, Zoom().description, Zoom().parameters
    reads = "image"

    def __init__(self, stateless: bool = True) -> None:
        self.stateless = stateless
        self.threads: list[str] = []
        self.begun = threading.Event()
        self.inner = Zoom()
        self.bounded = True  # so that it runs in the thread that calls it

    def __call__(self, images: Sequence[Image.Image], arguments: Mapping[str, Any]) -> Observation:
        self.threads.append(threading.current_thread().name)
        self.begun.set()
        return self.inner(images, arguments)


def zooming(box: Any) -> ToolCall:
    return ToolCall(ZOOM, {"bbox_2d": box})


def seen(way: Trajectory) -> Any:
    """All of a trajectory, its pixels too."""
    return (
        way.answer,
        way.stop,
        way.error,
        [
            (
                step.text,
                step.calls,
                [(o.error, o.box, [i.tobytes() for i in o.images]) for o in step.observations],
            )
            for step in way.steps
        ],
    )


BOXES = st.sampled_from([[0, 0, 32, 32], [32, 32, 64, 64], [8, 8, 40, 40], [60, 60, 10, 10]])
CALLS = st.one_of(
    BOXES.map(zooming),
    st.just(None),
    st.just(ToolCall("hammer", {})),
    st.just(ToolCall(ZOOM, {"bbox_2d": "everywhere"})),
    st.just(ToolCall(ZOOM, {"bbox_2d": [0, 0, 9, 9], "img_idx": 7})),
    st.just(ValueError("no idea")),
)


@given(
    turns=st.lists(st.lists(BOXES, max_size=3), min_size=1, max_size=5),
    guess=CALLS,
    stateless=st.booleans(),
    batch=st.integers(1, 3),
)
@settings(max_examples=60)
def test_no_guess_changes_a_trajectory(
    turns: list[list[Any]], guess: Any, stateless: bool, batch: int
) -> None:
    model = ScriptedModel(
        {
            f"#{n}.": [*(written(box) for box in boxes), "<answer>red</answer>"]
            for n, boxes in enumerate(turns)
        }
    )
    queries = [ask(n) for n in range(len(turns))]
    plain = AgenticFallback(model, tools=[Counted(stateless)], max_batch=batch, max_steps=3)
    wise = AgenticFallback(
        model, tools=[Counted(stateless)], max_batch=batch, max_steps=3, guesser=Told(guess)
    )
    assert list(map(seen, wise(queries))) == list(map(seen, plain(queries)))
    found = wise.guesses
    assert 0 <= found.hits <= min(found.guessed, found.turns)
    if not stateless:
        assert (found.turns, found.guessed, found.hits) == (0, 0, 0)


def test_a_hit_is_run_once_and_ahead() -> None:
    tool = Counted()

    def slowly(conversation: Conversation, sampling: Sampling) -> Any:
        assert tool.begun.wait(10)  # the crop is made before the call is written
        return [written([0, 0, 32, 32]), "<answer>red</answer>"]

    guesser = Told(zooming([0, 0, 32, 32]))
    agent = AgenticFallback(ScriptedModel(slowly), tools=[tool], guesser=guesser)
    [way] = agent([ask()])
    assert (way.answer, way.depth) == ("red", 1)
    assert len(tool.threads) == 1 and tool.threads[0].startswith("speceyes-guess")
    found = agent.guesses
    assert (found.turns, found.hits) == (1, 1)
    assert guesser.learned[0][0] == way.steps[0].text
    assert not [t for t in threading.enumerate() if t.name.startswith("speceyes-guess")]


def test_a_call_that_is_being_worked_out_is_waited_for_and_not_made_twice() -> None:
    class Slow(Counted):
        def __call__(self, images: Any, arguments: Any) -> Observation:
            seen = super().__call__(images, arguments)
            threading.Event().wait(0.3)
            return seen

    tool = Slow()

    def answer(conversation: Conversation, sampling: Sampling) -> Any:
        assert tool.begun.wait(10)
        return [written([0, 0, 32, 32]), "<answer>red</answer>"]

    agent = AgenticFallback(
        ScriptedModel(answer), tools=[tool], guesser=Told(zooming([0, 0, 32, 32]))
    )
    [way] = agent([ask()])
    assert way.answer == "red" and len(tool.threads) == 1
    found = agent.guesses
    assert (found.hits, found.ready) == (1, 0) and found.waited_s > 0


def test_a_tool_with_a_state_is_never_run_for_a_guess() -> None:
    tool = Counted(stateless=False)
    model = ScriptedModel([written([0, 0, 32, 32]), "<answer>red</answer>"])
    AgenticFallback(model, tools=[tool], guesser=Told(zooming([32, 32, 64, 64])))([ask()])
    assert len(tool.threads) == 1  # the call itself
    assert not tool.threads[0].startswith("speceyes-guess")


def test_nothing_is_guessed_for_a_last_turn() -> None:
    guesser = Told(ValueError("asked"))
    asked: list[int] = []
    guesser.call = lambda conversation: asked.append(len(conversation.messages))
    model = ScriptedModel([written([0, 0, 32, 32]), "<answer>red</answer>"])
    AgenticFallback(model, tools=["zoom"], guesser=guesser, max_steps=2)([ask()])
    assert asked == [2]


def test_a_small_model_guesses_in_pixels_of_its_own() -> None:
    tool = Counted()

    def slowly(conversation: Conversation, sampling: Sampling) -> Any:
        assert tool.begun.wait(10)
        return [written([16, 16, 48, 48]), "<answer>red</answer>"]

    large = ScriptedModel(slowly)
    small = ScriptedModel(
        written([8, 8, 24, 24]), seen=lambda image: (image.width // 2, image.height // 2)
    )
    agent = AgenticFallback(large, tools=[tool], guesser=SmallModelGuesser(small))
    [way] = agent([ask()])
    assert way.answer == "red" and agent.guesses.hits == 1
    assert way.steps[0].observations[0].box == (16, 16, 48, 48)
    blank = SmallModelGuesser(ScriptedModel(ValueError("gone")))
    assert blank.guess(Conversation((Message("user", ("?",)),)), "") is None


def test_earlier_words_lead_to_earlier_calls() -> None:
    guesser = EarlierCallGuesser(tail=10, most=2)
    nothing = Conversation(())

    def call(k: int) -> ToolCall:
        return ToolCall("zoom", {"k": k}, raw=f'{{"k": {k}}}')

    for k in range(3):
        guesser.learn(nothing, f"I look at row {k}:\n" + f'{{"k": {k}}}', [call(k)])
    assert guesser.guess(nothing, "so: look at row 2:\n") == call(2)
    assert guesser.guess(nothing, 'so: look at row 2:\n{"k": ') == call(2)
    assert guesser.guess(nothing, 'so: look at row 2:\n{"j": ') is None
    assert guesser.guess(nothing, "so: look at row 2") is None
    assert guesser.guess(nothing, "so: look at row 0:\n") is None  # two are kept
    guesser.learn(nothing, "short:" + '{"k": 1}', [call(1)])
    guesser.learn(nothing, "nothing is called here", [])
    assert guesser.guess(nothing, "short:") is None


@pytest.mark.parametrize("guesser", [3, lambda conversation, said: None])
def test_what_is_no_guesser_is_refused(guesser: Any) -> None:
    with pytest.raises(ConfigError, match="it needs reads_text"):
        AgenticFallback(ScriptedModel("x"), tools=["zoom"], guesser=guesser)
    assert isinstance(EarlierCallGuesser(), TurnGuesser)
    for bad in ({"tail": 0}, {"most": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            EarlierCallGuesser(**bad)
    with pytest.raises(ConfigError, match="max_tokens=0"):
        SmallModelGuesser(ScriptedModel("x"), max_tokens=0)


@pytest.fixture(scope="module")
def large() -> Any:
    from speceyes.models import HFModel

    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not here")
    return HFModel.from_pretrained(tiny.LARGE)


def zooming_queries(n: int) -> list[Query]:
    from speceyes.tiny.scenes import questions

    return [item.query for item in questions("heldout", 6 * n) if item.needs_tools][:n]


def test_the_tiny_agent_hits_and_says_what_it_says(large: Any) -> None:
    queries = zooming_queries(8)
    options: dict[str, Any] = {"max_tokens": 96, "max_batch": 4}
    plain = AgenticFallback(large.sharing(), tools=["zoom"], **options)(queries)
    again = large.sharing()
    guesser = EarlierCallGuesser()
    agent = AgenticFallback(again, tools=["zoom"], guesser=guesser, **options)
    agent(queries)
    fresh = AgenticFallback(large.sharing(), tools=["zoom"], guesser=guesser, **options)
    pipe = SpecPipeline(fallback=fresh)  # what it has learned serves another run
    results = pipe(queries)
    assert [seen(r.trajectory) for r in results if r.trajectory] == list(map(seen, plain))
    zooms = sum(way.depth for way in plain)
    assert zooms and fresh.guesses.turns == zooms
    assert fresh.guesses.hits > zooms / 2


def test_a_model_of_ones_own_kind_guesses_right(large: Any) -> None:
    options: dict[str, Any] = {"max_tokens": 96, "max_steps": 2}
    plain = AgenticFallback(large, tools=["zoom"], **options)
    guesser = SmallModelGuesser(large.sharing(), max_tokens=96)
    agent = AgenticFallback(large.sharing(), tools=["zoom"], guesser=guesser, **options)
    queries = zooming_queries(3)
    ways = plain(queries)
    assert list(map(seen, agent(queries))) == list(map(seen, ways))
    for query, way in zip(queries, ways, strict=True):
        opening = plain.dialect.open(query, tuple(plain.tools))
        assert guesser.guess(opening, "") == next(iter(way.steps[0].calls), None)


def test_features_made_ahead_are_those_that_the_model_makes(large: Any) -> None:
    crop = PICTURE.crop((4, 4, 36, 36))
    one, other = large.sharing(), large.sharing()
    one.encode_ahead([crop, crop])
    asked = Conversation((Message("user", (crop, "Which colour?")),))
    ahead = one._features.get(fingerprint(crop))
    said = [model.generate([asked], Sampling(max_tokens=8, top_k=4))[0] for model in (one, other)]
    made = other._features.get(fingerprint(crop))
    assert torch.equal(ahead.merged, made.merged)
    assert all(torch.equal(a, b) for a, b in zip(ahead.deep, made.deep, strict=True))
    assert said[0] == said[1]
    one.encode_ahead([Image.new("RGB", (4000, 2))])  # can't be seen, and is nobody's loss
    large.reference().encode_ahead([crop])


def test_encoding_beside_a_forward_pass_in_another_thread(large: Any) -> None:
    """While rows with images are read, the model's own way to features is replaced."""
    model, plain = large.sharing(), large.sharing()
    crops = [PICTURE.crop((k, k, k + 28, k + 28)) for k in range(24)]
    asked = [Conversation((Message("user", (crop, "Which colour?")),)) for crop in crops]
    ahead = threading.Thread(target=lambda: model.encode_ahead(crops[::-1]))
    ahead.start()
    said: list[Completion] = []
    for one in asked:
        said += model.generate([one], Sampling(max_tokens=3))
    ahead.join()
    expected = [plain.generate([one], Sampling(max_tokens=3))[0] for one in asked]
    assert [c.text for c in said] == [c.text for c in expected]
    for crop in crops:
        mine, theirs = (m._features.get(fingerprint(crop)) for m in (model, plain))
        assert torch.allclose(mine.merged, theirs.merged, atol=1e-5)


def test_models_on_the_same_weights_take_turns(large: Any) -> None:
    queries = zooming_queries(3)
    agents = [
        AgenticFallback(large.sharing(cache_bytes=0), tools=["zoom"], max_tokens=96)
        for _ in range(3)
    ]
    found: dict[int, list[Any]] = {}

    def work(k: int) -> None:
        found[k] = list(map(seen, agents[k](queries[k:] + queries[:k])))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plain = list(map(seen, AgenticFallback(large, tools=["zoom"], max_tokens=96)(queries)))
    assert [found[k] for k in range(3)] == [plain[k:] + plain[:k] for k in range(3)]
