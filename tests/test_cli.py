from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import speceyes
from speceyes import cli, tiny
from speceyes.evaluation.row import Row
from speceyes.models.scripted import ScriptedModel
from speceyes.types import Result
from support.engine_server import engines
from support.processes import started

needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "red").save(path)
    return path


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() == f"speceyes {speceyes.__version__}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["demo", "ask", "examples:", "exit codes", "DeepEyes-7B"]),
        (["demo", "--help"], ["--queries", "report.html", "summary.json", "Ctrl-C", "120"]),
        (["ask", "--help"], ["--large", "--small", "--threshold", "--json", "synthetic scenes"]),
    ],
)
def test_help_is_worth_reading(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in words)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--queries", "0"],
        ["demo", "--queries", "many"],
        ["demo", "--start", "-1"],
        ["demo", "--batch-size", "0"],
        ["ask", "photo.png"],
        ["ask", "photo.png", "What?", "--top-k", "0"],
    ],
)
def test_wrong_arguments_are_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["dance"], ["eval", "--nope"]])
def test_nothing_heavy_is_imported_before_a_command_runs(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from speceyes.cli import main\n"
        "try:\n"
        f"    main({arguments})\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'numpy', 'PIL', 'torch', 'transformers', 'asyncio', 'mcp', 'fastapi', 'tqdm'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_our_own_warnings_are_shown_and_those_of_libraries_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(options: object) -> int:
        logging.getLogger("speceyes.pipeline").warning("the gate accepts %s", "nothing")
        logging.getLogger("speceyes.pipeline").info("a detail")
        logging.getLogger("some.library").warning("noise")
        warnings.warn("more noise", stacklevel=1)
        return 0

    monkeypatch.setattr("speceyes.cli.env.run", run)
    before = logging.getLogger().level, logging.getLogger("speceyes").handlers[:]
    assert cli.main(["env"]) == 0
    assert capsys.readouterr().err == "speceyes: warning: the gate accepts nothing\n"
    assert (logging.getLogger().level, logging.getLogger("speceyes").handlers) == before


def test_hosts_of_images_are_options_of_serve() -> None:
    from speceyes.cli import parser
    from speceyes.cli.serve import limits_of
    from speceyes.errors import ConfigError

    def limits(words: str) -> Any:
        return limits_of(parser().parse_args(f"serve --small none {words}".split()))

    assert (limits("").domains, limits("").private_domains) == (frozenset(), frozenset())
    named = limits("--allow-domain a.example --allow-private-domain pics.lan")
    assert named.domains == {"a.example"} and named.private_domains == {"pics.lan"}
    with pytest.raises(ConfigError, match="domain"):
        limits("--allow-private-domain http://pics.lan")
    assert limits("").tolerant and not limits("--strict").tolerant


def test_defaults_that_help_shows_are_those_that_hold() -> None:
    """They stand in the command's module once more, so that its help imports nothing."""
    from speceyes.bench.load.server import KEY
    from speceyes.bench.load.target import PAIRS
    from speceyes.calibration.record import MEANINGS, RISKS
    from speceyes.cli import bench_serve, calibrate, mcp, serve
    from speceyes.integrations.mcp_server import TOOL, McpLimits
    from speceyes.scoring.scores import AGGREGATES
    from speceyes.server.limits import ServerLimits

    server, here = ServerLimits(), McpLimits()
    assert {name: value for name, value, _ in serve.LIMITS} == {
        "queue": server.capacity,
        "per-key": server.per_client,
        "max-images": server.images,
        "max-pixels": server.image.max_pixels,
        "max-body": server.body_bytes,
        "timeout": server.seconds,
    }
    assert {name: value for name, value, _ in mcp.LIMITS} == {
        "max-images": here.images,
        "max-pixels": here.image.max_pixels,
        "max-bytes": here.image.max_bytes,
        "queue": here.waiting,
    }
    assert f"one tool, {TOOL}," in mcp.ABOUT
    # Net of what is better than the agent goes with gold answers, which the command has none of.
    told = tuple(name for name in MEANINGS if name != "net_of_agent")
    assert (RISKS, told) == (calibrate.RISKS, calibrate.LABELS)
    assert calibrate.AGGREGATES == AGGREGATES
    assert (bench_serve.PAIRS, bench_serve.KEY) == (PAIRS, KEY)


def test_env_tells_what_a_report_of_a_fault_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env", "--no-models"]) == 0
    told = capsys.readouterr().out
    for name in ("speceyes", "python", "torch", "transformers", "torchvision", "numpy", "pillow"):
        assert f"\n{name} " in f"\n{told}"
    assert "qwen-vl-utils" in told and "device            cpu, " in told
    assert "sandbox" in told and "ocr" in told


@needs_weights
def test_env_tells_how_models_are_driven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["env", "--json", "--small", str(tiny.SMALL)]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["models"]) == [str(tiny.SMALL)]
    assert told["models"][str(tiny.SMALL)]["class"] == "HFModel"
    assert told["versions"]["speceyes"] == speceyes.__version__
    # One that can't be loaded is told beside the others.
    assert cli.main([*words, "--large", str(tmp_path)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert "error" in told["models"][str(tmp_path)] and "class" in told["models"][str(tiny.SMALL)]


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and message of a command that must fail in one line and say nothing else."""
    code = cli.main(arguments)
    streams = capsys.readouterr()
    lines = [line for line in streams.err.splitlines() if "bundled tiny pair" not in line]
    assert streams.out == "" and len(lines) == 1
    assert lines[0].startswith("speceyes: error: ")
    return code, lines[0]


def test_errors_are_one_line(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = _fails(["ask", str(tmp_path / "no.png"), "What?"], capsys)
    assert code == 2 and "no.png" in line
    (tmp_path / "text.png").write_text("not an image")
    code, line = _fails(["ask", str(tmp_path / "text.png"), "What?"], capsys)
    assert code == 2 and "text.png" in line
    code, line = _fails(["ask", str(photo), "   "], capsys)
    assert code == 2 and "blank" in line
    code, line = _fails(["ask", "http://localhost/x.png", "What?"], capsys)
    assert code == 2 and "URL" in line


@pytest.mark.parametrize("given", ["--large", "--small"])
def test_one_model_without_the_other_is_refused(
    given: str, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = _fails(["ask", str(photo), "What?", given, "some/model"], capsys)
    assert code == 2 and f"{given} was given without" in line


def test_a_model_that_is_not_there_is_one_line(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, line = _fails(
        ["ask", str(photo), "What?", "--large", str(empty), "--small", str(empty)], capsys
    )
    assert code == 2 and "empty" in line, line


def test_a_checkout_without_weights_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tiny, "LARGE", tmp_path / "large")
    code, line = _fails(["demo", "--out", str(tmp_path / "out")], capsys)
    assert code == 2 and "speceyes.tiny.training.train" in line
    assert not (tmp_path / "out").exists()


def test_an_unforeseen_error_is_one_line_and_debug_shows_it(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(tiny, "settings", broken)
    assert cli.main(["ask", str(photo), "What?"]) == 1
    error, versions = capsys.readouterr().err.splitlines()
    assert error == "speceyes: error: ZeroDivisionError: two lines (--debug shows where)"
    assert all(f"{name} " in versions for name in ("speceyes", "python", "torch", "transformers"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["ask", str(photo), "What?", "--debug"])


def test_an_interruption_is_code_130(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny, "settings", interrupted)
    assert cli.main(["ask", str(photo), "What?"]) == 130
    assert capsys.readouterr().err.strip() == "speceyes: interrupted"


@needs_weights
def test_ask_answers_about_a_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from speceyes.tiny.scenes import questions

    item = next(item for item in questions("heldout", 60) if item.kind == "large/presence")
    path = tmp_path / "scene.png"
    item.query.images[0].save(path)
    assert cli.main(["ask", str(path), item.query.question]) == 0
    said = capsys.readouterr()
    assert said.out.strip() in ("yes", "no")
    assert "knows only its own synthetic scenes" in said.err and "threshold" in said.err

    assert cli.main(["ask", str(path), item.query.question, "--json", "--threshold", "1"]) == 0
    result = Result.from_json(capsys.readouterr().out)
    assert result.route == "agent" and result.trajectory is not None

    alone = ["--small", "none", "--max-steps", "3"]
    assert cli.main(["ask", str(path), item.query.question, *alone, "--json"]) == 0
    result = Result.from_json(capsys.readouterr().out)
    assert result.judgement is None and result.draft is None and result.route == "agent"


@needs_weights
def test_ask_takes_models_by_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    names = ["--large", str(tiny.LARGE), "--small", str(tiny.SMALL), "--top-k", "8"]
    assert cli.main(["ask", str(photo), "Is there a large red circle?", *names]) == 0
    assert "synthetic" not in capsys.readouterr().err
    code, line = _fails(["ask", str(photo), "What?", *names, "--threshold", "1.5"], capsys)
    assert code == 2 and "threshold" in line


@needs_weights
@pytest.mark.parametrize("judge", ["draft", pytest.param("large", marks=pytest.mark.exhaustive)])
def test_demo_writes_and_prints(
    judge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--queries", "2", "--out", str(out), "--quiet", "--start", "100"]
    assert cli.main([*arguments, "--batch-size", "2", "--judge", judge]) == 0
    said = capsys.readouterr()
    assert ("E[L] = c_S +" in said.out) == (judge == "draft")
    assert "agent, one by one" in said.out and str(out / "report.html") in said.out
    assert "Traceback" not in said.err
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["arms"]["funnel"]["n"] == 2 and summary["start"] == 100
    ids = {
        Row.from_json(line).result.query_id
        for line in (out / "results.jsonl").read_text("utf-8").splitlines()
    }
    assert ids == {f"heldout-{100 + i}" for i in range(2)}


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_tune_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    # A tenth of a second a query, so that it is interrupted long before its end.
    large, small = (ScriptedModel(said, delay_s=0.1) for said in ("<answer>red</answer>", "red"))
    command = [sys.executable, "-m", "speceyes", "tune", "scenes", "--limit", "60"]
    command += ["--judges", "none", "--batch-size", "1", "--out", str(out), "--no-check"]
    pipe = subprocess.PIPE
    with (
        engines(large, small) as asked,
        started(*command, *asked, stdout=pipe, stderr=pipe) as running,
    ):
        records = out / "records.jsonl"
        deadline = time.monotonic() + 240
        while not records.exists() or not records.stat().st_size:
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, complained = running.communicate(timeout=120)
    assert running.returncode == 130 and "Traceback" not in complained
    assert f"finished is in {out}; the same command, given again, goes on" in complained


@needs_weights
@pytest.mark.exhaustive  # the one above is its quick form
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_what_was_finished(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "speceyes", "demo", "--out", str(out), "--batch-size", "1"]
    pipe = subprocess.PIPE
    with started(*command, "--queries", "100000", stdout=pipe, stderr=pipe) as running:
        results = out / "results.jsonl"
        deadline = time.monotonic() + 240
        while not (results.exists() and results.stat().st_size) and time.monotonic() < deadline:
            assert running.poll() is None, running.communicate()
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        said, complained = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in complained and "what was finished is in" in complained
    rows = [Row.from_json(line) for line in results.read_text("utf-8").splitlines()]
    assert rows and said == ""
