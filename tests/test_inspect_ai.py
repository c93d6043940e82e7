"""A funnel in Inspect, against the real package where it is installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from speceyes.errors import ConfigError
from support.served import data_url, pipeline

_RED = data_url(Image.new("RGB", (64, 48), "red"))
_LOOK = '<tool_call>\n{"name": "look_up", "arguments": {"word": "%s"}}\n</tool_call>'

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def inspect_ai(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.chdir(tmp_path)
    return pytest.importorskip(
        "inspect_ai", reason="inspect_ai is not installed: speceyes[inspect]"
    )


def _sample(text: str, target: str, image: str = _RED, **more: Any) -> Any:
    dataset = importlib.import_module("inspect_ai.dataset")
    model = importlib.import_module("inspect_ai.model")
    content = [model.ContentImage(image=image), model.ContentText(text=text)]
    return dataset.Sample(input=[model.ChatMessageUser(content=content)], target=target, **more)


def test_without_inspect_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.model", None)
    monkeypatch.delitem(sys.modules, "speceyes.integrations.inspect_ai", raising=False)
    with pytest.raises(ConfigError, match=r"speceyes\[inspect\]"):
        importlib.import_module("speceyes.integrations.inspect_ai")


def test_the_solver_answers_samples_and_marks_choices(inspect_ai: Any, tmp_path: Path) -> None:
    ours = importlib.import_module("speceyes.integrations.inspect_ai")
    scorer = importlib.import_module("inspect_ai.scorer")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "own.png")
    with pipeline(judge="no", draft="dark red") as pipe:
        task = inspect_ai.Task(
            dataset=[
                _sample("Which colour?", "B", choices=["blue", "dark red"]),
                _sample(
                    "Which colour is it?",
                    "A",
                    str(tmp_path / "own.png"),
                    choices=["dark red", "pink"],
                ),
            ],
            solver=ours.speceyes_solver(pipe),
            scorer=scorer.choice(),
        )
        [log] = inspect_ai.eval(task, model="mockllm/model")
    assert log.status == "success", log.error
    assert log.results.scores[0].metrics["accuracy"].value == 1
    facts = [sample.metadata["speceyes"] for sample in log.samples]
    assert [fact["route"] for fact in facts] == ["draft", "draft"]
    assert all(fact["score"] > fact["threshold"] for fact in facts)


def test_the_model_drives_two_tool_turns(inspect_ai: Any) -> None:
    importlib.import_module("speceyes.integrations.inspect_ai")
    model = importlib.import_module("inspect_ai.model")
    scorer = importlib.import_module("inspect_ai.scorer")
    solvers = importlib.import_module("inspect_ai.solver")
    tools = importlib.import_module("inspect_ai.tool")
    words = []

    @tools.tool
    def look_up() -> Any:
        async def execute(word: str) -> str:
            """Looks a word up.

            Args:
                word: The word.
            """
            words.append(word)
            return "a colour"

        return execute

    turns = [_LOOK % "red", _LOOK % "blue", "<answer>purple</answer>"]
    with pipeline(judge="yes", agent=turns, draft="dark red") as pipe:
        task = inspect_ai.Task(
            dataset=[_sample("Mixed, which colour is it?", "purple")],
            solver=[solvers.use_tools(look_up()), solvers.generate()],
            scorer=scorer.includes(),
        )
        asked = model.get_model("speceyes/funnel", pipe=pipe, memoize=False)
        [log] = inspect_ai.eval(task, model=asked)
    assert log.status == "success", log.error
    assert words == ["red", "blue"]
    [sample] = log.samples
    assert sample.output.completion == "purple"
    assert log.results.scores[0].metrics["accuracy"].value == 1
    assert sample.output.usage.total_tokens > 0


def test_a_model_without_its_funnel_says_so(inspect_ai: Any) -> None:
    importlib.import_module("speceyes.integrations.inspect_ai")
    model = importlib.import_module("inspect_ai.model")
    with pytest.raises(ConfigError, match="pipe=pipe"):
        model.get_model("speceyes/mine", memoize=False)


def test_a_sample_without_an_image_says_so(inspect_ai: Any) -> None:
    ours = importlib.import_module("speceyes.integrations.inspect_ai")
    dataset = importlib.import_module("inspect_ai.dataset")
    with pipeline() as pipe:
        task = inspect_ai.Task(
            dataset=[dataset.Sample(input="Which colour?")], solver=ours.speceyes_solver(pipe)
        )
        [log] = inspect_ai.eval(task, model="mockllm/model")
    assert log.status == "error"
    assert "no image" in log.error.message
