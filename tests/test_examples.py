from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from speceyes import HFModel, tiny
from speceyes.cli import parser
from speceyes.cli.models import pipeline
from support import served
from support.engine_server import serving

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)

SAYS = {
    "async_many.py": "drafts shared a batch",
    "ask_one_image.py": "route",
    "engine.py": "answer: ",
    "langchain_chat.py": "calls image_zoom_in_tool",
    "mcp_client.py": "route: agent",
    "ray_offline.py": "results in",
    "serve_client.py": "route: draft",
    "smolagents_tool.py": "calls final_answer",
    "stream_many.py": "heldout-23",
    "swap_models.py": "agent alone",
    "tune_easy_vqa.py": "certificate",
    "your_own_agent.py": "gain: ",
    "your_own_tool.py": "mean_colour says: red, green, blue",
}


@contextmanager
def _arguments(path: Path) -> Iterator[list[str]]:
    """What an example is called with: those about engines and servers need some that run, and one
    that trains needs few steps.
    """
    if path.name == "tune_easy_vqa.py":
        pytest.importorskip("easy_vqa")  # a data set, which no extra brings
        yield ["3", "24", "12"]
        return
    if path.name == "serve_client.py":
        with served.serving(pipeline(parser().parse_args(["serve"]))) as one:
            yield [f"{one.url}/v1"]
        return
    if path.name != "engine.py":
        yield []
        return
    large, small = (HFModel.from_pretrained(size) for size in (tiny.LARGE, tiny.SMALL))
    with serving({"large": large}) as (first, _), serving({"small": small}) as (second, _):
        yield [first, second]


def test_there_is_an_expectation_for_each_example() -> None:
    assert {path.name for path in EXAMPLES} == set(SAYS)


# Those that start a server of their own, which takes as long as all others: that the servers answer
# is tested in test_server_client.py and test_mcp_server.py too.
OWN_SERVER = ("mcp_client", "serve_client")
LONG = ("your_own_agent",)
"""Takes ten seconds; what it wraps is tested in test_from_callable.py and test_smolagents.py."""


@needs_weights
@pytest.mark.exhaustive
@pytest.mark.parametrize("stem", OWN_SERVER)
def test_example_runs_with_a_server_of_its_own(
    stem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [path] = [path for path in EXAMPLES if path.stem == stem]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.name] in capsys.readouterr().out


@needs_weights
@pytest.mark.parametrize(
    "path",
    # Ray's is run by tests/test_ray.py, in a process of its own.
    [
        pytest.param(path, marks=[pytest.mark.exhaustive] if path.stem in LONG else [])
        for path in EXAMPLES
        if path.stem not in ("ray_offline", "mcp_client")
    ],
    ids=lambda path: path.stem,
)
def test_example_runs(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with _arguments(path) as arguments:
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.name] in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"python examples/{path.name}" in text
