"""Settings files: all that a funnel takes, held against the models that are loaded."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from speceyes import SpecPipeline, tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Calibration, Scoring, calibrate
from speceyes.calibration.arming import share_of_delta
from speceyes.cli import main, models, parser
from speceyes.cli.serve import renewed
from speceyes.dialects import Profile
from speceyes.errors import ConfigError
from speceyes.evaluation import arms, benchmarks
from speceyes.evaluation.analysis import figures
from speceyes.evaluation.eval_report import brief
from speceyes.evaluation.evaluate import Plan, evaluate
from speceyes.evaluation.prices import Price, Prices
from speceyes.evaluation.spending import save_prices
from speceyes.gates.span import AnswerSpanGate
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import AgentConfig, DraftConfig, JudgeConfig, ScheduleConfig
from speceyes.pipeline.model_settings import GateSettings, ModelSettings
from speceyes.pipeline.settings import FunnelSettings
from speceyes.texts import Texts
from speceyes.tuning.after import after
from speceyes.tuning.recording import check
from support.demo_models import cards
from support.eval_models import context_of, fixed_of
from support.served import JUDGE, asking, serving

LARGE = ScriptedModel({JUDGE: "no", "": "<answer>blue</answer>"}, name="large")
SMALL = ScriptedModel("red", name="small", margin=12.0)
TINY = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


def calibrated(model: str = "small", *, pixels: int | None = None) -> Calibration:
    hashed = SpeculativeAnswerer(SMALL, max_pixels=pixels).prompt_hash
    return calibrate([9.0] * 60, [0] * 60, Scoring(model, hashed, top_k=8), judge="large at 0.5")


def settings(**more: Any) -> FunnelSettings:
    made = more.pop("calibration", None)
    gate = GateSettings(0.5 if made is None else made.threshold, 8, calibration=made)
    return FunnelSettings(
        **{
            "large": ModelSettings.of(LARGE, "large"),
            "small": ModelSettings.of(SMALL, "small"),
            "gate": gate,
            "judge": JudgeConfig("large", 0.5),
            **more,
        }
    )


def test_everything_comes_back_as_it_was_written(tmp_path: Path) -> None:
    one = settings(
        calibration=calibrated(pixels=4096),
        judge=JudgeConfig("small", 0.25, 4096),
        draft=DraftConfig(max_tokens=7, max_pixels=4096),
        agent=AgentConfig(3, 99, 5, Profile(scale=1000.0, image_pixels=(64, 4096), stop=("x",))),
        schedule=ScheduleConfig(batch_size=4, speculate="auto"),
        tools=("zoom", "rotate"),
        dialect="deepeyes",
        texts=Texts(judge="{question} Tools?"),
        forecast={"time": {"gain": 1.25}},
        created="2026-11-29T00:00:00+00:00",
    )
    one.save(tmp_path / "settings.json")
    assert FunnelSettings.load(tmp_path / "settings.json") == one
    alone = settings(small=None, gate=None)
    assert FunnelSettings.from_json(alone.to_json()) == alone


def test_the_funnel_is_the_one_that_was_written_down(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    settings(calibration=calibrated(), schedule=ScheduleConfig(batch_size=3)).save(file)
    pipe = SpecPipeline.from_settings(file, large=LARGE, small=SMALL)
    assert pipe.schedule.batch_size == 3 and pipe.answerer.top_k == 8
    assert pipe(Image.new("RGB", (64, 64)), "Which colour?").route == "draft"
    off = settings(small=None, gate=None)
    found = SpecPipeline.from_settings(off, large=LARGE)(Image.new("RGB", (64, 64)), "Which?")
    assert (found.route, found.answer, found.draft) == ("agent", "blue", None)


class Shrinking(ScriptedModel):
    """Sees images at a quarter of their size."""

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.width // 2, image.height // 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ScriptedModel("red", name="other"), "'other', not 'small'"),
        (Shrinking("red", name="small"), "64x48 at 32x24, not 64x48"),
    ],
)
def test_another_model_or_other_pixels_are_refused(model: ScriptedModel, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SpecPipeline.from_settings(settings(), large=LARGE, small=model)


@pytest.mark.parametrize(
    "changed",
    [
        {"judge": JudgeConfig("large", 0.7)},
        {"judge": JudgeConfig("large", 0.5, 4096)},
        {"judge": JudgeConfig(None)},
        {"draft": DraftConfig(max_pixels=4096)},
        {"texts": Texts(draft="{question} Say it.")},
    ],
)
def test_a_threshold_holds_for_its_own_judge_pixels_and_prompts(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="calibration is for something else"):
        SpecPipeline.from_settings(
            settings(calibration=calibrated(), **changed), large=LARGE, small=SMALL
        )


def test_an_answers_tokens_need_a_tokenizer() -> None:
    gate = GateSettings(0.5, 8, span="answer")
    with pytest.raises(ConfigError, match="--spans whole"):
        SpecPipeline.from_settings(settings(gate=gate), large=LARGE, small=SMALL)


WHOLE = json.loads(settings(calibration=calibrated()).to_json())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "x"}, "format"),
        ({"version": 2}, "version 2"),
        ({"extra": 1}, "unknown extra"),
        ({"large": None}, "large=None; it must be an object"),
        ({"large": {**WHOLE["large"], "name": ""}}, "large.name is empty"),
        ({"large": {**WHOLE["large"], "sees": [[1]]}}, "width, height"),
        ({"large": {**WHOLE["large"], "key": "x"}}, "unknown key"),
        ({"small": None}, "go together"),
        ({"gate": {"threshold": 2, "top_k": 8}}, "threshold"),
        ({"gate": {"threshold": 0.5}}, "lacks"),
        ({"gate": {"threshold": 0.5, "top_k": "8"}}, "top_k"),
        ({"gate": {"threshold": 0.5, "top_k": 8, "aggregate": "median"}}, "aggregate"),
        ({"gate": {"threshold": 0.5, "top_k": 8, "span": "half"}}, "span"),
        ({"gate": {**WHOLE["gate"], "threshold": 0.9}}, "calibration"),
        ({"gate": {"threshold": 0.5, "top_k": 8, "calibration": {}}}, "gate.calibration"),
        ({"judge": {"model": "huge"}}, "huge"),
        ({"judge": {"threshold": "high"}}, "judge.threshold"),
        ({"draft": {"max_tokens": 0}}, "draft.max_tokens"),
        ({"draft": {"max_pixels": True}}, "draft.max_pixels"),
        ({"draft": {"max_depth": 1}}, "depth"),
        ({"agent": {"max_batch": 1.5}}, "agent.max_batch"),
        ({"agent": {"profile": {"scale": -1}}}, "agent.profile"),
        ({"agent": {"profile": {"nothing": 1}}}, "nothing"),
        ({"schedule": {"speculate": "never"}}, "never"),
        ({"schedule": {"overlap": "yes"}}, "overlap"),
        ({"tools": "zoom"}, "tools"),
        ({"tools": ["zoom", "zom"]}, "no tool is named 'zom'; settings may name zoom, rotate"),
        ({"tools": ["zoom", "zoom"]}, "each tool once"),
        (
            {"dialect": "deepeye"},
            "dialect='deepeye' is not known; settings may name .*deepeyes.*auto",
        ),
        ({"texts": {"judge": 3}}, "texts"),
        ({"dialect": None}, "dialect"),
        ({"forecast": []}, "forecast"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({**WHOLE, **changes}))
    with pytest.raises(ConfigError, match=said) as raised:
        FunnelSettings.load(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": "speceyes-settings"}'])
def test_what_is_no_settings_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        FunnelSettings.from_json(text)


def test_no_secret_is_written_down() -> None:
    load = {"api_key": "sk-1", "headers": {"x": "sk-2"}, "max_pixels": 9, "token": "sk-3"}
    one = settings(large=ModelSettings.of(LARGE, "http://engine:8000/v1", load))
    assert "sk-" not in one.to_json() and one.large.load == {"max_pixels": 9}


def test_settings_take_over_in_a_server_and_no_request_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    settings(calibration=calibrated()).save(file)
    options = parser().parse_args(["serve", "--settings", str(file)])
    agreeing = ScriptedModel({JUDGE: "no", "": "<answer>red</answer>"}, name="large")
    pipe = SpecPipeline.from_settings(file, large=agreeing, small=SMALL)
    with serving(pipe) as served, ThreadPoolExecutor(4) as pool:
        ended = threading.Event()

        def many() -> list[tuple[int, str]]:
            said = []
            while not ended.is_set():
                reply = served.post(asking())
                said.append((reply.status_code, reply.json()["speceyes"]["route"]))
            return said

        def reload() -> None:
            made = renewed(options, served.service.pipe)
            work = served.service.exchange(made.pipe)
            asyncio.run_coroutine_threadsafe(work, served.service.loop).result(60)

        under_way = [pool.submit(many) for _ in range(4)]
        for one, route in (
            (settings(gate=GateSettings(1.0, 8)), "agent"),
            (settings(judge=JudgeConfig(None), gate=GateSettings(0.4, 8)), "draft"),
            (settings(calibration=calibrated()), "draft"),
        ):
            one.save(file)
            reload()
            assert served.ask()["speceyes"]["route"] == route
        # The promise under watch, and what audits have shown, outlive a reload of the same file.
        auditor = served.service.pipe.auditor
        assert auditor is not None
        reload()
        assert served.service.pipe.auditor is auditor
        ended.set()
        said = [one for done in under_way for one in done.result(60)]
        assert {status for status, _ in said} == {200} and len(said) >= 4
        assert served.ask()["speceyes"]["route"] == "draft"
        # What is wrong with the file, or for other models, changes nothing.
        other = dataclasses.replace(settings().large, name="other")
        for text in ("{", settings(large=other).to_json()):
            file.write_text(text)
            with pytest.raises(ConfigError):
                reload()
        assert served.ask()["speceyes"]["route"] == "draft"
        settings(small=None, gate=None).save(file)
        reload()
        assert served.ask()["speceyes"]["route"] == "agent"


def test_a_tuned_funnel_is_evaluated_with_what_was_foreseen_beside_it(tmp_path: Path) -> None:
    items = cards(36)
    benchmarks.write("jsonl", items, tmp_path / "cards")
    context = context_of(items)
    large, small = context.large, context.small
    hashed = context.answerer(8).prompt_hash
    made = calibrate(
        [9.0] * 60,
        [0] * 60,
        Scoring("small", hashed, top_k=8),
        judge="large at 0.5",
        labels="worse_than_agent",
    )
    assert made.threshold is not None
    one = settings(
        large=ModelSettings.of(large, "large"),
        small=ModelSettings.of(small, "small"),
        gate=GateSettings(made.threshold, 8, calibration=made),
        forecast={"time": {"gain": 1.25, "low": 1.1, "high": 1.4}, "accepted": 0.5},
    )
    context = dataclasses.replace(context, top_k=8, settings=one)
    plan = Plan(arms.chosen(["tuned"]), 2, calibration_share=0.0, threshold=made.threshold)
    fixed = fixed_of(context, plan, 36)
    fixed["tuned"] = json.loads(one.to_json())
    run = evaluate(
        benchmarks.load(tmp_path / "cards").samples,
        context,
        plan,
        folder=tmp_path / "run",
        fixed=fixed,
        max_failures=0.5,
    )
    said = after(run, one)
    assert "1.25x (1.10 to 1.40)" in said[1] and "50.0 %" in said[2]
    taken = [row for row in run.of("test", "tuned") if row.result.route == "draft"]
    assert taken and f"of {len(taken)} accepted drafts" in said[3]
    assert "at most 5 %" in said[3]
    # The same funnel as a whole on a quarter of the questions; asked again, it is there already.
    loaded = benchmarks.load(tmp_path / "cards").samples
    place = {"folder": tmp_path / "check", "fixed": {"models": {}}}
    n, whole = check(loaded, dataclasses.replace(context, settings=None), one, **place)
    assert 0 < n < 36 and whole.gain[0] > 0 and len(whole.rounds) == 8
    assert check(loaded, context, dataclasses.replace(one, created="later"), **place) == (n, whole)
    assert one.gate is not None and one.gate.calibration is not None
    made = dataclasses.replace(one.gate.calibration, created="2026-11-30T00:00:00+00:00")
    again = dataclasses.replace(one, gate=dataclasses.replace(one.gate, calibration=made))
    assert check(loaded, context, again, **place) == (n, whole)
    # With prices beside the run, its report tells money.
    assert figures(run)["money"] is None
    save_prices(tmp_path / "run", Prices(Price(2.0, 8.0), Price(0.0, 0.0)))
    paid = figures(run)["money"]["arms"]
    assert paid["draft"]["per_thousand"] == 0.0 and paid["draft"]["gain"] is None
    assert paid["tuned"]["per_thousand"] > 0 and "USD a thousand queries" in brief(run)


@TINY
def test_commands_take_settings_and_refuse_what_contradicts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, file = tmp_path / "image.png", tmp_path / "settings.json"
    Image.new("RGB", (96, 96), "red").save(image)
    large = models.load_model(tiny.LARGE, "cpu")
    small = models.load_model(tiny.SMALL, "cpu")
    one = FunnelSettings(
        ModelSettings.of(large, str(tiny.LARGE)),
        ModelSettings.of(small, str(tiny.SMALL)),
        GateSettings(0.0, 9, span="answer"),
        JudgeConfig(None),
    )
    one.save(file)
    made = one.parts(large, small)
    assert isinstance(made.gate, AnswerSpanGate) and made.judge is None
    command = ["ask", str(image), "What colour is it?", "--settings", str(file)]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["route"], said["judgement"]) == ("draft", None)
    assert main([*command, "--threshold", "0.9", "--judge", "small"]) == 2
    assert "--threshold, --judge" in capsys.readouterr().err
    # The same weights under limits of pixels that let the model see less.
    small = ["--model-min-pixels", "784", "--model-max-pixels", "3136"]
    assert main([*command, *small]) == 2
    assert "limits of pixels" in capsys.readouterr().err


# --- settings in which something was changed ------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "name", "wrong"),
    [
        ("large", "sees", ([], [[64, 48]], [[0, 48]] * 4, [[64.0, 48]] * 4, None)),
        ("small", "name", ("", None, 3)),
        ("small", "load", ([], None, "x")),
        ("judge", "model", ("", "huge", True)),
        ("judge", "threshold", (None, -0.1, 1.5, float("nan"), True, "0.5")),
        ("judge", "max_pixels", (0, -1, 1.5, 10**30, float("inf"))),
        ("draft", "max_tokens", (None, 0, 2.5, True, 10**30)),
        ("gate", "threshold", (0.4, None, float("nan"), float("inf"), -1, "0.5", True)),
        ("gate", "top_k", (9, 0, None, 8.0, True, 10**30)),
        ("gate", "aggregate", ("mean", "", None, 3)),
        ("gate", "span", ("", None, "half")),
        ("gate", "calibration", ({}, [], 3, "x")),
        ("agent", "max_batch", (None, 0, True, 10**30)),
        ("schedule", "batch_size", (None, 0, 1.5)),
        ("schedule", "speculate", ("never", True, "")),
        ("schedule", "end_drafts_early", (None, 1, "yes")),
        ("schedule", "probe", (None, -0.5, 1, float("nan"))),
        ("forecast", "gain", (float("nan"), float("inf"))),
    ],
)
def test_settings_with_a_value_that_cannot_be_are_refused(
    section: str, name: str, wrong: tuple[Any, ...]
) -> None:
    data = json.loads(settings(calibration=calibrated()).to_json())
    FunnelSettings.from_json(json.dumps(data))
    for value in wrong:
        changed = {**data, section: {**data[section], name: value}}
        with pytest.raises(ConfigError):
            FunnelSettings.from_json(json.dumps(changed))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("stop", ("x", 3, [1], [None], {"a": 1})),
        ("tools", ("zoom", [3], True)),
        ("stop_after", (None, 3, [])),
        ("keep_reasoning", (None, 1, "no")),
        ("first_image", (None, -1, 0.5, True, "0")),
        ("image_pixels", ([4, 2], [1.5, 3], [True, 9], [1], "ab", 3)),
        ("scale", (True, "1000", 0, float("inf"))),
        ("top_k", (0.5, True, float("nan"), -1)),
        ("temperature", (True, "0", -1, float("nan"))),
        ("max_calls", (0, None, True)),
    ],
)
def test_profiles_with_a_value_of_another_kind_are_refused(
    name: str, wrong: tuple[Any, ...]
) -> None:
    data = json.loads(settings(agent=AgentConfig(profile=Profile())).to_json())
    FunnelSettings.from_json(json.dumps(data))
    for value in wrong:
        profile = {**data["agent"]["profile"], name: value}
        with pytest.raises(ConfigError):
            FunnelSettings.from_json(
                json.dumps({**data, "agent": {**data["agent"], "profile": profile}})
            )


@pytest.mark.parametrize("created", ["yesterday", 3, None, []])
def test_settings_of_no_date_are_refused(created: Any) -> None:
    data = json.loads(settings().to_json())
    with pytest.raises(ConfigError, match="created"):
        FunnelSettings.from_json(json.dumps({**data, "created": created}))


def test_a_new_promise_at_a_reload_spends_what_is_left_of_delta(tmp_path: Path) -> None:
    """Settings with another calibration are another arming, not another life of the monitor."""
    file = tmp_path / "settings.json"
    options = parser().parse_args(["serve", "--settings", str(file)])
    first, second = calibrated(), dataclasses.replace(calibrated(), created="2026-11-28T00:00:00")
    settings(calibration=first).save(file)
    pipe = SpecPipeline.from_settings(file, large=LARGE, small=SMALL)
    numbers = []
    for one in (first, second, second, first):
        settings(calibration=one).save(file)
        pipe = renewed(options, pipe).pipe or pipe
        assert pipe.auditor is not None
        armed = pipe.auditor.monitor.arming
        assert armed.delta == share_of_delta(0.05, armed.number)
        numbers.append(armed.number)
    assert numbers == [1, 2, 2, 3]
    settings().save(file)
    promised_nothing = renewed(options, pipe).pipe
    assert promised_nothing is not None and promised_nothing.auditor is None
    settings(calibration=first).save(file)
    again = renewed(options, promised_nothing, armings=3).pipe
    assert again is not None and again.auditor is not None
    assert again.auditor.monitor.arming.number == 4
