"""What notebooks show: results with their scenes, runs, calibrations, settings."""

from __future__ import annotations

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import speceyes
from speceyes import SpecPipeline
from speceyes.calibration import Calibration
from speceyes.calibration.provenance import Scoring
from speceyes.evaluation.progress import bar
from speceyes.models.scripted import ScriptedModel
from speceyes.notebook import in_notebook, plot
from speceyes.pipeline import AgentConfig, InputConfig, ScheduleConfig
from speceyes.pipeline.config import DraftConfig, JudgeConfig, LoadConfig
from speceyes.types import Completion, Result, Timings, Verdict

ROOT = Path(__file__).parents[1]
PHOTO = Image.new("RGB", (640, 480), "teal")
_ZOOM = [
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [64, 48, 192, 144]}}'
    "</tool_call>",
    "<answer>a <b>ladybird</b></answer>",
]


class _Whole(HTMLParser):
    """Fails where tags aren't closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(html: str) -> str:
    """The HTML, whole and with nothing from elsewhere."""
    parser = _Whole()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert not re.search(r'(?:src|href)="(?!data:image/)', html)
    assert "<script" not in html and "@import" not in html
    assert len(html) < 200_000
    return html


def funnel(**more: Any) -> SpecPipeline:
    large = {"Reply with one word": more.pop("judge", "yes"), "": more.pop("agent", _ZOOM)}
    return SpecPipeline.from_pretrained(
        large=ScriptedModel(large), small=ScriptedModel("<i>teal</i>"), **more
    )


def test_a_result_shows_scene_boxes_crops_answers_route_and_time() -> None:
    result = funnel()(PHOTO, "What is the tiny thing?")
    html = checked(result._repr_html_())
    assert html.count("data:image/jpeg") == 2  # the scene and the crop
    assert "left:10.0%;top:10.0%;width:20.0%;height:20.0%" in html
    assert "a &lt;b&gt;ladybird&lt;/b&gt;" in html and "<b>" not in html
    assert "needs tools" in html and "agent" in html and "1 tool call," in html
    assert "fallback" in html
    assert "images" not in json.loads(result.to_json())
    assert Result.from_json(result.to_json()).answer == result.answer


def test_an_accepted_draft_shows_its_score_against_the_threshold() -> None:
    result = funnel(judge="no")(PHOTO, "Which colour?")
    html = checked(result._repr_html_())
    assert "accepted draft" in html and "&lt;i&gt;teal&lt;/i&gt;" in html
    assert result.verdict is not None
    assert f"{result.verdict.score:.4g} ≥ {result.verdict.threshold:.4g}" in html


def test_results_of_many_queries_are_shown_with_their_images() -> None:
    [result] = funnel()([(PHOTO, "What is the tiny thing?")])
    assert result.images == ()
    assert checked(result._repr_html_()).count("data:image") == 1  # the crop alone


def test_a_failed_result_and_one_without_anything() -> None:
    html = checked(Result("1", None, "error", error="out of <memory>")._repr_html_())
    assert "no answer" in html and "out of &lt;memory&gt;" in html
    unscored = Verdict(False, None, None, 0.9, reason="the draft is <cut>")
    result = Result("1", "x", "agent", draft=Completion("", ()), verdict=unscored)
    assert "rejected, the draft is &lt;cut&gt;" in checked(result._repr_html_())
    assert plot([result]) is not None
    long = Result("1", "x" * 100_000, "agent", timings=Timings(latency=2.0))
    assert len(checked(long._repr_html_())) < 5_000


def test_a_trajectory_turn_by_turn() -> None:
    way = funnel()(PHOTO, "What is the tiny thing?").trajectory
    assert way is not None
    html = checked(way._repr_html_())
    assert "turn 1" in html and "turn 2" in html and html.count("data:image/jpeg") == 1


def test_a_report_shows_and_plots_itself() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    report = funnel(judge="no").run([(PHOTO, f"Which colour, {n}?") for n in range(6)])
    html = checked(report._repr_html_())
    assert "6 queries" in html and "accepted drafts" in html
    figure = report.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    bars, scores, _ = figure.axes
    assert [patch.get_height() for patch in bars.patches] == [6]
    assert sum(patch.get_height() for patch in scores.patches) == 6
    assert plot([]) is not None


def test_a_calibration_and_settings_show_themselves() -> None:
    made = Scoring("small", "ab12")
    found = Calibration(0.9, made, "selective", 0.05, 0.1, "binomial", "wrong", 400, 99, 2)
    html = checked(found._repr_html_())
    assert "0.9" in html and "99 of 400" in html and "binomial" in html
    none = Calibration(None, made, "selective", 0.05, 0.1, "binomial", "wrong", 400, 0, 0)
    assert "none certified" in checked(none._repr_html_())
    html = checked(ScheduleConfig(batch_size=3)._repr_html_())
    assert "3  (set)" in html and "speculate" in html
    for settings in (AgentConfig(), InputConfig(), JudgeConfig(), DraftConfig(), LoadConfig()):
        html = checked(settings._repr_html_())
        assert type(settings).__name__ in html and "(set)" not in html


def test_show_prints_a_line_outside_notebooks(capsys: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    funnel(judge="no")(PHOTO, "Which colour?").show()
    assert "[draft, score" in capsys.readouterr().out


def test_show_displays_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    display = SimpleNamespace(display=shown.append, HTML=lambda text: text)
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert in_notebook()
    [result] = funnel()([(PHOTO, "What is the tiny thing?")])
    result.show([PHOTO])
    assert checked(shown[0]).count("data:image/jpeg") == 2


def test_bars_know_a_log_from_a_terminal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        drawn = bar(file, total=3, desc="answers")
        for _ in range(3):
            drawn.update()
        drawn.close()
    text = (tmp_path / "log").read_text()
    assert "3/3" in text and "█" not in text
    assert bar(None, total=3) is None


def test_the_example_notebook_runs() -> None:
    """Its cells in order, in one namespace: what a kernel does, without one."""
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text("utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], "keep outputs out of the repository"
        *lines, last = "".join(cell["source"]).split("\n\n")
        for part in lines:
            exec(compile(part, "notebook.ipynb", "exec"), names)
        try:
            value = eval(compile(last, "notebook.ipynb", "eval"), names)
        except SyntaxError:
            exec(compile(last, "notebook.ipynb", "exec"), names)
            continue
        if value is not None:
            shown.append(value)
    html = [one._repr_html_() for one in shown if type(one).__module__.startswith("speceyes.")]
    assert len(html) >= 4
    for one in html:
        checked(one)


def test_the_example_notebook_runs_on_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    source = Path(speceyes.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", str(source), prepend=os.pathsep)
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert not [out for out in outputs if out.output_type == "error"]
    shown = [out.data["text/html"] for out in outputs if "text/html" in out.get("data", {})]
    assert len(shown) >= 4
    for one in shown:
        checked(one)
