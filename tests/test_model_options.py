"""Models, engines and agents as the command line names them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from speceyes import HFModel, SpeculativeAnswerer, ToolJudge, tiny
from speceyes.cli import main, parser
from speceyes.cli.models import load_models, model_arguments, pipeline, tools_for
from speceyes.errors import ConfigError
from speceyes.evaluation.runs import TEST, read
from speceyes.models.scripted import ScriptedModel
from speceyes.tools import Tools
from support.engine_server import serving

needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)
AGENT = """\
def answer(query):
    return f"{len(query.images)} image"
"""


def test_model_arguments_are_json_where_they_can_be_and_may_be_of_one_model() -> None:
    given = ["max_batch=4", "large.max_batch=2", "name=a b", "small.cache_bytes=0"]
    words = [word for one in given for word in ("--model-arg", one)]
    options = parser().parse_args(["serve", *words])
    assert model_arguments(options, "large") == {"max_batch": 2, "name": "a b"}
    assert model_arguments(options, "small") == {"max_batch": 4, "name": "a b", "cache_bytes": 0}


@pytest.mark.parametrize("wrong", ["max_batch", "=4", "agent.max_batch=4"])
def test_a_model_argument_without_sense_is_refused(wrong: str) -> None:
    options = parser().parse_args(["serve", "--model-arg", wrong])
    with pytest.raises(ConfigError, match="must be KEY=VALUE"):
        model_arguments(options, "large")


@needs_weights
def test_model_arguments_reach_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model-arg", "large.max_batch=3", "--model-arg", "small.name=drafter"]
    chosen = load_models(parser().parse_args(["ask", "x.png", "What?", *words]))
    assert isinstance(chosen.large, HFModel) and chosen.large.max_batch == 3
    assert chosen.small is not None and chosen.small.name == "drafter"
    assert main(["serve", "--port", "0", "--model-arg", "nonsense=1"]) in (1, 2)
    assert "nonsense" in capsys.readouterr().err


@needs_weights
@pytest.mark.parametrize("command", [["ask", "x.png", "What?"], ["serve"]])
def test_pixels_of_images_are_options(command: list[str]) -> None:
    photo = Image.new("RGB", (640, 480))

    def seen(*words: str) -> int:
        chosen = load_models(parser().parse_args([*command, *words]))
        assert chosen.small is not None
        sizes = [model.seen_size(photo) for model in (chosen.large, chosen.small)]
        return max(width * height for width, height in sizes)

    few = ("--model-max-pixels", "6400", "--model-min-pixels", "3136")
    assert seen(*few) <= 6400 < seen()
    own = seen(*few, "--model-arg", "large.max_pixels=50000")
    assert 6400 < own <= 50_000
    parsed = parser().parse_args(["eval", "scenes", "--out", "x", "--max-pixels", "9"])
    assert parsed.model_max_pixels == 9


@needs_weights
def test_ask_and_eval_take_engines_by_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "run"
    Image.new("RGB", (64, 48), "red").save(photo)
    large, small = (HFModel.from_pretrained(size) for size in (tiny.LARGE, tiny.SMALL))
    with (
        serving({"large": large, "other": large}) as (first, _),
        serving({"small": small}) as (second, _),
    ):
        names = ["--large", f"{first}#large", "--small", second]
        question = "Is there a large red circle?"
        assert main(["ask", str(photo), question, *names, "--top-k", "9", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["error"] is None
        words = ["--limit", "2", "--arms", "min", "--k", "9", "--quiet", "--out", str(out)]
        given = ["--calibration-share", "0", "--threshold", "0.9"]
        assert main(["eval", "scenes", *names, *words, *given]) == 0
    done = read(out)
    assert done.fixed["models"]["small"]["name"] == "small"
    assert {record.result.error for record in done.of(TEST, "min")} == {None}


@needs_weights
def test_eval_takes_an_agent_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_agent.py").write_text(AGENT)
    words = ["--limit", "8", "--arms", "min", "--calibration-share", "0.5", "--quiet"]
    own = ["eval", "scenes", "--small", str(tiny.SMALL), "--out", "run"]
    assert main([*own, *words, "--agent", "my_agent:answer"]) == 0
    done = read(tmp_path / "run")
    assert {record.result.answer for record in done.of(TEST, "agent")} == {"1 image"}
    assert done.fixed["models"]["large"]["name"] == "my_agent:answer"
    for wrong in ("my_agent", "my_agent:nothing", "no_such:answer"):
        assert main([*own, *words, "--agent", wrong]) == 2


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        (["--dialect", "thyme"], ("python",)),
        (["--dialect", "visionthink"], ("original",)),
        (["--dialect", "vilasr"], ("object_mapper", "path_tracer")),
        (["--dialect", "hermes"], ("zoom",)),  # trained to no tools of its own
        ([], ("zoom",)),
        (["--dialect", "thyme", "--tools", "zoom, python"], ("zoom", "python")),
        (["--dialect", "thyme", "--tools", ""], ()),
    ],
)
@pytest.mark.parametrize("command", [["ask", "x.png", "What?"], ["eval", "scenes", "--out", "x"]])
def test_the_agent_gets_the_tools_of_its_dialect(
    command: list[str], words: list[str], tools: tuple[str, ...]
) -> None:
    options = parser().parse_args([*command, *words])
    model = ScriptedModel("red", name="speceyes-tiny-large")
    found = tools_for(options, model)
    assert found == tools and len(Tools(found)) == len(tools)


def test_a_file_says_which_tools_an_agent_has(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('tools = ["rotate", "zoom"]\n')
    options = parser().parse_args(["ask", "x.png", "What?", "--profile", str(file)])
    assert tools_for(options, ScriptedModel("red", name="Qwen/Qwen3-VL-2B")) == ("rotate", "zoom")


@needs_weights
def test_judge_resolution_and_speculation_are_options() -> None:
    words = ["--judge", "small", "--judge-threshold", "0.7", "--judge-pixels", "9000"]
    options = parser().parse_args(["serve", *words, "--draft-pixels", "5000"])
    pipe = pipeline(options)
    assert isinstance(pipe.judge, ToolJudge) and isinstance(pipe.answerer, SpeculativeAnswerer)
    assert pipe.judge.model is pipe.answerer.model
    assert (pipe.judge.threshold, pipe.judge.max_pixels) == (0.7, 9000)
    assert pipe.answerer.max_pixels == 5000
    assert pipe.schedule.speculate == "auto", "a server stops a loss by itself"
    without = pipeline(parser().parse_args(["ask", "x.png", "What?", "--judge", "none"]))
    assert without.judge is None and without.parts.speculate == "always"


def test_a_judge_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["serve", "--judge", "big"])
    assert "choose from large, small, draft, none" in capsys.readouterr().err.replace("'", "")
