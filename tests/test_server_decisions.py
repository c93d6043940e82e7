"""`/v1/decisions`: yes/no questions and choices, with probabilities that labels stand behind."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from speceyes import SpecPipeline
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Calibration, GateMonitor, Scoring, WatchedGate, calibrate
from speceyes.calibration.chances import Chances, isotonic
from speceyes.gate import SeparabilityGate
from speceyes.models.openai.decisions import decision_body, read_decision
from speceyes.models.scripted import ScriptedModel
from speceyes.types import Conversation, Message
from support.models import FakeModel
from support.processes import until
from support.served import JUDGE, Served, data_url, pipeline, serving

RED = data_url(Image.new("RGB", (64, 48), "red"))
_SCORES = np.random.default_rng(7).gamma(3, 2, 600)
_GOOD = np.random.default_rng(8).random(600) < 1 / (1 + np.exp(-(_SCORES - 3)))


def _made(**more: Any) -> Calibration:
    prompts = SpeculativeAnswerer(ScriptedModel("")).prompt_hash
    scoring = Scoring("drafter", prompts, top_k=64)
    return calibrate(_SCORES, ~_GOOD, scoring, target=0.2, **more)


def _shares(curve: Any) -> list[tuple[int, int]]:
    """(count, good) of each bin of a curve, by rising score."""
    before, found = (0, 0), []
    for point in curve:
        found.append((point.accepted - before[0], point.bad - before[1]))
        before = (point.accepted, point.bad)
    return [(count, count - bad) for count, bad in reversed(found)]


def test_chances_are_isotonic_regression_and_hold_on_new_drafts() -> None:
    sklearn = pytest.importorskip("sklearn.isotonic")
    made = _made()
    bins = _shares(made.curve)
    share, weight = [good / count for count, good in bins], [count for count, _ in bins]
    fit = sklearn.IsotonicRegression().fit(range(len(bins)), share, sample_weight=weight)
    assert np.allclose(isotonic(bins), fit.predict(range(len(bins))))
    rng = np.random.default_rng(1)
    fresh = rng.gamma(3, 2, 4000)
    good = rng.random(4000) < 1 / (1 + np.exp(-(fresh - 3)))
    chances = Chances(made)
    told = [chances(score) for score in fresh]
    probabilities = np.array([one.probability for one in told if one is not None])
    assert len(probabilities) == 4000 and all(one.low <= one.high for one in told if one)
    rising = probabilities[np.argsort(fresh)]
    assert (np.diff(rising) >= -1e-12).all()
    for low in (0.0, 0.25, 0.5, 0.75):
        within = (probabilities >= low) & (probabilities < low + 0.25)
        assert abs(probabilities[within].mean() - good[within].mean()) < 0.1
    assert chances(math.nan) is None and chances(None) is None


def _funnel(gate: Any = None, **more: Any) -> SpecPipeline:
    """Drafts by the question: its last word; scores by whether it is "sure"."""

    def margin(conversation: Any) -> float:
        return 6.0 if "unsure" in conversation.messages[-1].text else 20.0

    def draft(conversation: Any, sampling: Any) -> str:
        text = conversation.messages[-1].text
        return "(B)" if "(B)" in text else "no" if "not" in text else "yes"

    large = ScriptedModel({JUDGE: {"hard": "yes", "": "no"}, "": "<answer>no</answer>", **more})
    small = FakeModel(draft, margin=margin, name="drafter")
    whole = {} if gate is None else {"gate": gate}
    return SpecPipeline.from_pretrained(large, small, **whole)


def _input(*urls: str, text: str = "") -> list[Any]:
    parts = [{"type": "input_image", "image_url": url} for url in urls or (RED,)]
    return [
        {
            "role": "user",
            "content": [*parts, *([{"type": "input_text", "text": text}] * bool(text))],
        }
    ]


def _yes(text: str, name: str = "q") -> Any:
    return {"type": "predicate", "name": name, "instructions": text}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(_funnel(), limits={"images": 2}) as served:
        yield served


def _post(served: Served, *questions: Any, **more: Any) -> Any:
    body = {"model": "speceyes", "input": _input(), "questions": list(questions), **more}
    said = json.dumps(body).encode()
    return served.http.post(
        "/v1/decisions", content=said, headers={"Content-Type": "application/json"}
    )


@pytest.mark.skipif(
    not hasattr(openai.OpenAI, "decisions"),
    reason=f"openai {openai.__version__} has no decisions",
)
def test_the_official_client_asks_several_questions_at_once(server: Served) -> None:
    choice: Any = {
        "type": "choice",
        "name": "colour",
        "instructions": "Which colour?",
        "choices": [{"value": "red"}, {"value": "blue", "description": "like the sky"}],
    }
    truth: Any = {
        "type": "choice",
        "instructions": [{"type": "input_text", "text": "Is it?"}],
        "choices": [{"value": True}, {"value": False}],
    }
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        said = client.decisions.create(
            model="speceyes",
            input=_input(),
            questions=[_yes("Is it red?"), choice, _yes("Is it not red?"), truth],
        )
    one, two, three, four = said.answers
    assert one.type == three.type == "predicate" and two.type == four.type == "choice"
    assert one.name == "q" and one.probability > 0.9 and three.probability < 0.1
    assert two.choice == "blue" and {p.value for p in two.probabilities} == {"red", "blue"}
    assert four.choice is False and two.confidence > 0.5
    assert math.isclose(sum(p.probability for p in two.probabilities), 1)
    assert said.usage.total_tokens > 0
    own: Any = one.model_extra
    assert own["speceyes"]["route"] == "draft" and own["speceyes"]["calibrated"] is False


def test_without_a_calibration_probabilities_are_the_drafter_s_own_and_marked(
    server: Served,
) -> None:
    reply = _post(server, _yes("Is it red?"), _yes("A hard one: is it red?"))
    assert reply.status_code == 200, reply.text
    draft, agent = reply.json()["answers"]
    own = draft["speceyes"]
    assert own["source"] == "draft" and own["of"] is None and own["interval"] is None
    assert draft["probability"] == own["raw"] and 0.9 < own["raw"] <= 1
    # The agent tells no probability.
    assert agent["probability"] == 0 and agent["speceyes"]["source"] == "agent"
    assert agent["speceyes"]["calibrated"] is False and agent["speceyes"]["raw"] is None
    assert agent["speceyes"]["route"] == "agent"


@pytest.mark.parametrize(("labels", "of"), [("wrong", "truth"), ("differs_from_agent", "agent")])
def test_with_a_calibration_they_are_those_of_its_labels(labels: Any, of: str) -> None:
    made = _made(labels=labels)
    gate = SeparabilityGate.from_calibration(made)
    with serving(_funnel(gate)) as served:
        asked = [_yes("Is it?"), _yes("Is it not so?"), _yes("Is it not so, unsure?")]
        sure, denied, unsure = _post(served, *asked).json()["answers"]
        for answer, said_yes in ((sure, True), (denied, False), (unsure, False)):
            own = answer["speceyes"]
            if own["source"] == "agent":  # below the threshold
                continue
            chance = Chances(made)(own["separability"])
            assert chance is not None and own["calibrated"] and own["of"] == of
            ends = [chance.low, chance.high] if said_yes else [1 - chance.high, 1 - chance.low]
            assert np.allclose(own["interval"], ends)
            assert own["interval"][0] <= answer["probability"] <= own["interval"][1]
            told = answer["probability"] if said_yes else 1 - answer["probability"]
            assert math.isclose(told, chance.probability)
            assert not math.isclose(told, own["raw"], abs_tol=1e-6)
        assert sure["speceyes"]["source"] == denied["speceyes"]["source"] == "draft"


def test_labels_of_another_meaning_and_a_tripped_watch_calibrate_nothing() -> None:
    worse = SeparabilityGate.from_calibration(_made(labels="worse_than_agent"))
    with serving(_funnel(worse)) as served:
        [answer] = _post(served, _yes("Is it?")).json()["answers"]
        assert answer["speceyes"]["calibrated"] is False
    made = _made(labels="differs_from_agent")
    monitor = GateMonitor.from_calibration(made)
    base = _funnel(SeparabilityGate.from_calibration(made))
    pipe = SpecPipeline(
        judge=base.judge,
        answerer=base.answerer,
        gate=WatchedGate(SeparabilityGate.from_calibration(made), monitor),
        fallback=base.fallback,
    )
    with serving(pipe) as served:
        [answer] = _post(served, _yes("Is it?")).json()["answers"]
        assert answer["speceyes"]["calibrated"] is True
        for _ in range(200):
            monitor.audit(True)
        assert monitor.tripped and served.service.chances is None
        [answer] = _post(served, _yes("Is it?")).json()["answers"]
        assert answer["speceyes"]["source"] == "agent"


def test_images_are_several_and_what_is_said_stands_before_the_questions() -> None:
    seen: list[Any] = []

    def draft(conversation: Any, sampling: Any) -> str:
        seen.append((len(conversation.images), conversation.messages[-1].text))
        return "yes"

    with serving(pipeline(draft=draft)) as served:
        asked = _input(RED, data_url(kind="JPEG"), text="Both are walls.")
        reply = _post(served, _yes("Are they alike?"), input=asked)
        assert reply.status_code == 200
    [(images, text)] = seen
    assert images == 2 and text.startswith("Both are walls.\nAre they alike?")


def test_a_question_that_fails_harms_none_of_its_neighbours() -> None:
    def draft(conversation: Any, sampling: Any) -> str:
        if "broken" in conversation.messages[-1].text:
            raise RuntimeError("no")
        return "a car" if "what" in conversation.messages[-1].text else "yes"

    def agent(conversation: Any, sampling: Any) -> str:
        raise RuntimeError("no")

    with serving(pipeline(draft=draft, agent=agent)) as served:
        reply = _post(served, _yes("Is it?"), _yes("broken?", "b"), _yes("what is it?", "c"))
        good, broken, odd = reply.json()["answers"]
        assert good["type"] == "predicate"
        assert broken["type"] == odd["type"] == "refusal"
        assert (broken["name"], odd["name"]) == ("b", "c")
        assert broken["speceyes"]["error"]["code"] == "model_error"
        assert odd["speceyes"]["error"]["code"] == "no_answer"
        # All of them: an error of the request.
        assert _post(served, _yes("broken?"), _yes("broken!")).status_code == 502
    assert served.service.slots.held == 0


_CHOICE = {"type": "choice", "instructions": "?", "choices": [{"value": "a"}, {"value": "b"}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [_yes("?")] * 17}, "questions"),
        ({"questions": [{"type": "score"}]}, "questions[0].type"),
        ({"questions": ["?"]}, "questions[0].type"),
        ({"questions": [_yes(" ")]}, "questions[0].instructions"),
        ({"questions": [_yes("x\ud800")]}, "questions[0].instructions"),
        ({"questions": [_yes("?"), _yes("?", 3)]}, "questions[1].name"),  # type: ignore[arg-type]
        ({"questions": [_yes("?") | {"choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [_CHOICE | {"choices": [{"value": "a"}]}]}, "questions[0].choices"),
        ({"questions": [_CHOICE | {"choices": [{"value": "a"}] * 2}]},
         "questions[0].choices[1].value"),
        ({"questions": [_CHOICE | {"choices": [{"value": 1}, {"value": 2}]}]},
         "questions[0].choices[0].value"),
        ({"questions": [_CHOICE | {"choices": [{"value": "a"}, {"value": "b" * 101}]}]},
         "questions[0].choices[1].value"),
        ({"questions": [_yes("?") | {"instructions": [{"type": "input_image"}]}]},
         "questions[0].instructions[0].type"),
        ({"input": "Is it?"}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": _input("file:///etc/passwd")}, "input[0].content[0].image_url"),
        ({"input": _input(RED, data_url(kind="GIF"), data_url(kind="BMP"))}, "input"),
        ({"questions": [_yes("x" * 12_000), _yes("y" * 12_000)]}, "input"),
        ({"stream": True}, "stream"),
        ({"speceyes": {"choices": ["a"]}}, "speceyes.choices"),
        ({"model": 3}, "model"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_its_field(
    server: Served, change: dict[str, Any], param: str
) -> None:
    reply = _post(server, _yes("?"), **change) if "questions" not in change else _post(
        server, *change["questions"], **{k: v for k, v in change.items() if k != "questions"}
    )  # fmt: skip
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


def test_time_that_is_over_and_keys_are_as_in_chat(server: Served) -> None:
    slow = SpecPipeline.from_pretrained(ScriptedModel("no", delay_s=0.4), ScriptedModel("yes"))
    with serving(slow) as served:
        reply = _post(served, _yes("?"), _yes("!"), speceyes={"deadline_s": 0.05})
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert served.service.slots.held == 0
    assert _post(server, _yes("?"), colour="x").headers["x-speceyes-ignored"] == "colour"


def test_it_takes_what_our_own_client_of_decision_endpoints_sends(server: Served) -> None:
    asked = Conversation((Message("user", (Image.new("RGB", (56, 56)), "Is it red?")),))
    body = decision_body("/decisions", "speceyes", asked, lambda image: RED)
    reply = server.http.post("/v1/decisions", json=body)
    assert read_decision(reply.json()).text == "yes"


def test_a_client_that_leaves_gives_its_place_back_once_all_questions_are_done() -> None:
    let_go = threading.Event()
    pipe = SpecPipeline.from_pretrained(FakeModel("no", hold=let_go), ScriptedModel("yes"))
    with serving(pipe, limits={"per_client": 1}) as served:
        body = {"model": "speceyes", "input": _input(), "questions": [_yes("?")] * 16}
        with pytest.raises(httpx.ReadTimeout):
            served.http.post("/v1/decisions", json=body, timeout=3)
        assert served.service.slots.held == 1  # the models are not done with it
        assert _post(served, _yes("?")).json()["error"]["code"] == "too_many_of_yours"
        let_go.set()
        until(lambda: served.service.slots.held == 0)
        assert _post(served, _yes("?")).status_code == 200
