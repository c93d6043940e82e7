"""Nothing fails in silence: what the commands say of queries that failed, and what they refuse."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from speceyes import tiny
from speceyes.cli import main
from speceyes.cli.serve import asked_once
from speceyes.environment import PACKAGES, versions
from speceyes.errors import ConfigError
from speceyes.evaluation.failures import (
    Failures,
    TooManyFailures,
    check_share,
    counted,
    merged,
    report,
)
from speceyes.evaluation.runs import CALIBRATION, read
from speceyes.types import Completion, Judgement, Result
from support.eval_models import run_in
from support.served import pipeline

Run = Callable[..., tuple[int, list[str]]]

needs_weights = pytest.mark.skipif(
    not tiny.LARGE.is_dir(), reason="the tiny pair's weights are not in this checkout"
)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line where a package that models run on has changed, so that none of them
    answers: exit code and lines, in the order in which a terminal shows them.
    """
    import transformers

    def raises(self: object, *args: object, **kwargs: object) -> None:
        raise AttributeError("'_Output' object has no attribute 'to_tuple'")

    folders = (tiny.LARGE, tiny.SMALL)
    configs = [transformers.AutoConfig.from_pretrained(folder) for folder in folders]
    [name] = {name for config in configs for name in config.architectures}
    family = getattr(transformers, name)
    monkeypatch.setattr(family, "forward", functools.wraps(family.forward)(raises))

    def run(*arguments: str) -> tuple[int, list[str]]:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            code = main(arguments)
        return code, said.getvalue().splitlines()

    return run


def _says_so_first(lines: list[str], answers: str) -> None:
    """An error with its reason and the versions stands before any figure or answer."""
    [at] = [i for i, line in enumerate(lines) if line.startswith("speceyes: with ")]
    assert any("'to_tuple'" in line for line in lines[:at]), lines
    assert any(line.startswith("speceyes: error: ") for line in lines[:at]), lines
    for name in ("speceyes", "python", *PACKAGES):
        assert f"{name} " in lines[at]
    assert not any(answers in line for line in lines[:at])


def _failed(why: str = "ModelError: no") -> Result:
    return Result("1", None, "error", error=why)


def test_failures_are_counted_where_they_happened() -> None:
    broken = Completion.failed("ModelError: no memory")
    results = [
        Result("1", "red", "agent", judgement=Judgement(True, completion=broken)),
        Result("2", "red", "agent", judgement=Judgement(False, completion=Completion("no"))),
        Result("3", "red", "agent", draft=broken),
        Result("4", None, "agent", error="stopped: max_steps"),
        _failed("first\nline"),
    ]
    assert counted("funnel", results) == [Failures("funnel", 1, 5, "first line")]
    assert counted("funnel", results[:4]) == [
        Failures("funnel", 0, 4),
        Failures("funnel (judge)", 1, 2, "ModelError: no memory"),
        Failures("funnel (drafts)", 1, 1, "ModelError: no memory"),
    ]
    twice = merged([counted("a", [_failed(), results[1]]), counted("a", [results[1]])])
    assert twice == [Failures("a", 1, 3, "ModelError: no")]


def test_an_arm_that_failed_as_a_whole_is_told_first_and_with_versions() -> None:
    some, whole, none = Failures("a", 2, 9, "x"), Failures("b", 9, 9, "y"), Failures("c", 0, 9)
    assert report([none]) == []
    assert report([some, none]) == ["2 of 9 queries failed in a, the first: x"]
    first, second, third = report([some, whole, none])
    assert first == "error: every query failed in b (9 of 9): y"
    assert all(f"{name} {version}" in second for name, version in versions().items())
    assert third == str(some)


@pytest.mark.parametrize(("failed", "refused"), [(0, False), (5, False), (6, True), (100, True)])
def test_a_share_of_failures_is_borne_and_no_more(failed: int, refused: bool) -> None:
    found = [Failures("a", failed, 100, "why")]
    if not refused:
        check_share(found, 0.05, "verdict")
        return
    with pytest.raises(TooManyFailures, match=r"no verdict .* 5 % .*--max-failures.*: .* why"):
        check_share(found, 0.05, "verdict")


def test_no_query_is_no_failure_and_a_share_is_a_share() -> None:
    check_share([Failures("a", 0, 0)], 0.0, "verdict")
    assert not Failures("a", 0, 0).whole
    with pytest.raises(ConfigError, match="--max-failures 5"):
        check_share([], 5, "verdict")


@needs_weights
def test_a_demo_whose_models_are_broken_says_so_first(broken: Run, tmp_path: Path) -> None:
    """Transcript: exit code 1, the error before the table."""
    out = tmp_path / "demo"
    code, lines = broken(
        "demo", "--queries", "8", "--quiet", "--out", str(out), "--batch-size", "4"
    )
    assert code == 1, lines
    _says_so_first(lines, "queries/s")
    if (out / "summary.json").exists():  # each query was tried
        told = json.loads((out / "summary.json").read_text("utf-8"))["failures"]
        assert all(one["failed"] == one["n"] == 8 for one in told if one["failed"])
        assert "Every query failed" in (out / "report.html").read_text("utf-8")


@needs_weights
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_ask_says_with_which_versions_it_failed(
    broken: Run, tmp_path: Path, more: list[str]
) -> None:
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "red").save(photo)
    code, lines = broken("ask", str(photo), "What?", "--threshold", "1", *more)
    assert code == 1, lines
    _says_so_first(lines, '"route"')


@needs_weights
def test_a_server_does_not_start_on_a_broken_model(broken: Run) -> None:
    pytest.importorskip("uvicorn")
    code, lines = broken("serve", "--port", "0")
    assert code == 1, lines
    _says_so_first(lines, "serving")


@needs_weights
def test_bench_says_which_arms_failed(broken: Run, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    words = ["bench", "--queries", "3", "--repeats", "1", "--arms", "speceyes"]
    code, lines = broken(*words, "--out", str(out))
    assert code == 1, lines
    _says_so_first(lines, "| speceyes |")


def test_each_model_of_a_server_is_asked_once() -> None:
    assert [one.failed for one in asked_once(pipeline())] == [0, 0, 0]
    failing = pipeline(agent=RuntimeError("no kernel"))
    assert [str(one) for one in asked_once(failing) if one.failed] == [
        "the agent failed: RuntimeError: no kernel"
    ]
    deaf = pipeline(draft=RuntimeError("no kernel"))
    assert [one.arm for one in asked_once(deaf) if one.failed] == ["the drafter"]


def test_an_evaluation_stops_before_a_threshold_is_chosen_from_failures(tmp_path: Path) -> None:
    """One of a few calibration queries fails (`eval_models`)."""
    folder = tmp_path / "run"
    with pytest.raises(TooManyFailures, match=r"no threshold is chosen .* agent, calibration"):
        run_in(folder, max_failures=0.0)
    assert {block.phase for block in read(folder).blocks} == {CALIBRATION}
    # The folder isn't lost: the same run goes on where more failures are borne.
    done = run_in(folder, max_failures=0.5)
    assert {"calibration", "test"} <= {block.phase for block in done.blocks}


def test_no_threshold_is_found_in_a_run_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_in(tmp_path / "run").folder
    words = ["calibrate", str(folder), "--target", "0.3", "--delta", "0.2"]
    agent = ["--labels", "worse_than_agent"]
    assert main([*words, *agent, "--max-failures", "0"]) == 1
    said = capsys.readouterr()
    assert "no threshold is found" in said.err and "agent" in said.err and said.out == ""
    assert not (folder / "calibration.json").exists()
    assert main([*words, *agent, "--max-failures", "0.2"]) == 0
    assert main([*words, "--max-failures", "0"]) == 0, "the drafts didn't fail, and labels are gold"
