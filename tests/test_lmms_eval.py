"""speceyes as a model of lmms-eval, in the real harness, on the scenes and the bundled pair."""

from __future__ import annotations

import importlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.integrations import lmms_eval_manifest
from speceyes.integrations.lmms_eval import SpecEyesModel
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import SpecPipeline
from speceyes.tiny import scenes
from speceyes.types import Result

COUNT = 12
AGENT = {"Reply with one word": "yes", "": "<answer>blue\n\nor not</answer>"}
TASK = """\
task: scenes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function reading.images
doc_to_text: !function reading.text
doc_to_target: answer
process_results: !function reading.graded
generation_kwargs: {{max_new_tokens: 16, temperature: 0, until: ["\\n\\n"]}}
metric_list:
  - {{metric: right, aggregation: mean, higher_is_better: true}}
"""
READING = """\
from PIL import Image


def images(doc):
    if not doc["image"]:
        raise FileNotFoundError("this row has lost its image")
    return [Image.open(doc["image"]).convert("RGB")]


def text(doc):
    return "<image>\\n" + doc["question"]


def graded(doc, answers):
    return {"right": float(answers[0].strip().lower() == doc["answer"].lower())}
"""


@pytest.fixture
def harness() -> None:
    try:
        import lmms_eval.evaluator  # noqa: F401
    except ImportError as exc:
        pytest.skip(f"lmms-eval isn't installed ({exc}); docs/lmms_eval.md says how it was tested")


def request(at: int, **options: Any) -> SimpleNamespace:
    """What the harness hands over, as far as it is read."""
    arguments = ("<image>\nWhich colour?", options, lambda doc: doc["pictures"], at, "t", "test")
    return SimpleNamespace(args=arguments)


def model(monkeypatch: pytest.MonkeyPatch, docs: list[Any], **options: Any) -> SpecEyesModel:
    pair = {"large": ScriptedModel(AGENT), "small": ScriptedModel("red")}
    made = SpecEyesModel(pipeline=SpecPipeline.from_pretrained(**pair), **options)
    made.task_dict = {"t": {"test": docs}}
    return made


def picture(shade: int) -> Image.Image:
    return Image.new("RGB", (64, 48), (shade, 9, 9))


def test_without_the_harness_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "speceyes.integrations.lmms_eval"
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", None)
    monkeypatch.setattr(name, sys.modules[name])  # put back when this is over
    monkeypatch.delitem(sys.modules, name)
    without = importlib.import_module(name)
    with pytest.raises(ConfigError, match=r"lmms_eval.*; pip install lmms-eval"):
        without.SpecEyesModel()


@pytest.mark.usefixtures("harness")
def test_answers_keep_their_order_and_failures_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = [
        {"pictures": [picture(1)]},
        {"pictures": "film.mp4"},
        {"pictures": []},
        {},
        {"pictures": [[picture(4)], picture(5)]},
    ]
    made = model(monkeypatch, docs, results=str(tmp_path / "to" / "results.jsonl"))
    requests = [request(at, until=["\n\n"], temperature=0.7) for at in range(5)]
    requests[4].args[1].update(until=[], temperature=0)
    with caplog.at_level(logging.INFO):
        assert made.generate_until(requests) == ["blue", "", "", "", "blue\n\nor not"]
    assert "temperature=0.7: left out" in caplog.text
    assert "query 1:t/test/1 has no images: TypeError: a str where only PIL" in caplog.text
    assert "query 2:t/test/2 has no answer" in caplog.text
    assert "query 3:t/test/3 has no images: KeyError" in caplog.text
    assert "5 queries: 0 answered by draft, 2 by the agent, 3 failed" in caplog.text
    lines = (tmp_path / "to" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    kept = {r.query_id: r for r in map(Result.from_json, lines)}
    assert {*kept} == {"0:t/test/0", "2:t/test/2", "4:t/test/4"}
    assert kept["4:t/test/4"].route == "agent" and kept["2:t/test/2"].route == "error"
    assert made.generate_until([]) == []


@pytest.mark.usefixtures("harness")
def test_what_it_can_not_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(monkeypatch, [])
    with pytest.raises(NotImplementedError, match="no log-likelihood"):
        made.loglikelihood([])
    with pytest.raises(NotImplementedError, match="each question on its own"):
        made.generate_until_multi_round([])
    for words, said in (
        ("pretrained=x", "has no pretrained"),
        ("large=x", "large was given without small"),
        ("small=x", "small was given without large"),
        ("calibration=x.json,threshold=0.9", "leave these out"),
    ):
        with pytest.raises(ConfigError, match=said):
            SpecEyesModel.create_from_arg_string(words, {"batch_size": "1"})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        SpecEyesModel()


@pytest.mark.usefixtures("harness")
def test_the_arguments_win_over_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    words = "threshold=0.9,tools=zoom+rotate,batch_size=5,max_steps=3"
    made = SpecEyesModel.create_from_arg_string(words, {"batch_size": "1", "device": "cpu"})
    assert made.pipeline.batch_size == 5
    assert made.pipeline.gate.threshold == 0.9
    assert made.pipeline.gate.top_k == tiny.settings()["top_k"]
    alone = SpecEyesModel.create_from_arg_string("small=none", {"batch_size": "auto:4"})
    assert alone.pipeline.answerer is None and alone.pipeline.batch_size == 16


@pytest.mark.usefixtures("harness")
def test_the_harness_finds_it_by_its_entry_point() -> None:
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    registry = ModelRegistryV2()
    registry.register_manifest(lmms_eval_manifest())
    assert registry.get_model_class("speceyes") is SpecEyesModel


@pytest.mark.slow
@pytest.mark.usefixtures("harness")
def test_a_run_of_the_harness_on_the_scenes(tmp_path: Path) -> None:
    """The command that a user types, in a process of its own, with no network."""
    if not tiny.LARGE.is_dir():
        pytest.skip("the tiny pair's weights are not in this checkout")
    rows = []
    for index in range(COUNT):
        scene, question, side = scenes.draw("heldout", index)
        file = tmp_path / f"{index}.png"
        scenes.render(scene, side).save(file)
        choices = scenes.options(question, np.random.default_rng([7, index]))
        asked = [question.text, *(f"({'ABCD'[i]}) {c}" for i, c in enumerate(choices))]
        rows.append({"image": str(file), "question": "\n".join(asked), "answer": question.answer})
    rows[5]["image"] = ""
    data = tmp_path / "scenes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = tmp_path / "tasks"
    task.mkdir()
    (task / "scenes.yaml").write_text(TASK.format(file=data), encoding="utf-8")
    (task / "reading.py").write_text(READING, encoding="utf-8")
    # The entry point of an installed speceyes, also where it is run from a checkout.
    told = tmp_path / "told" / "speceyes_told-0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: speceyes-told\nVersion: 0\n")
    entry = "[lmms_eval.models]\nspeceyes = speceyes.integrations:lmms_eval_manifest\n"
    (told / "entry_points.txt").write_text(entry)

    routes = tmp_path / "routes.jsonl"
    words = f"threshold=0.98,tools=zoom,dialect=deepeyes,batch_size=8,results={routes}"
    command = [sys.executable, "-m", "lmms_eval", "--model", "speceyes", "--model_args", words]
    command += ["--tasks", "scenes", "--include_path", str(task), "--log_samples"]
    command += ["--output_path", str(tmp_path / "out")]
    source = str(Path(tiny.__file__).parents[2])
    offline = {
        "PYTHONPATH": os.pathsep.join([str(told.parent), source]),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, env={**os.environ, **offline}, capture_output=True, text=True, timeout=600
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]

    (summary,) = (tmp_path / "out").rglob("*_results.json")
    figures = json.loads(summary.read_text(encoding="utf-8"))["results"]["scenes"]
    kept = {
        int(r.query_id.partition(":")[0]): r
        for r in map(Result.from_json, routes.read_text(encoding="utf-8").splitlines())
    }
    assert sorted(kept) == [at for at in range(COUNT) if at != 5]
    assert {r.route for r in kept.values()} == {"draft", "agent"}
    right = sum(
        r.answer is not None and r.answer.lower() == rows[at]["answer"].lower()
        for at, r in kept.items()
    )
    assert figures["right,none"] == pytest.approx(right / COUNT)
    assert right >= COUNT // 2

    (samples,) = (tmp_path / "out").rglob("*_samples_scenes.jsonl")
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        at = sample["doc_id"]
        assert sample["filtered_resps"] == (kept[at].answer if at in kept else "")
