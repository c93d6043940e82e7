"""The built wheel, installed where no checkout is, runs the demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from speceyes import tiny

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "src" / "speceyes" / "tiny" / "weights").is_dir(),
        reason="the tiny pair's weights are not in this checkout",
    ),
]


def _run(
    *command: str | Path, cwd: Path, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user would: nothing of this checkout or test run in its environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_", "PYTEST"))}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that leftovers of earlier builds can't slip in."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tree / "src", ignore=leave)
    out = tmp_path_factory.mktemp("dist")
    _run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, tree, cwd=tree
    )
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the commands of a fresh environment that has the wheel, and the dependencies of
    this one through a .pth file, so that they need not be downloaded again."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(home), "platbase": str(home)})
    purelib = Path(paths["purelib"])
    lines = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
    purelib.joinpath("dependencies.pth").write_text("\n".join(sorted(lines)) + "\n")
    commands = Path(paths["scripts"])
    pip = [sys.executable, "-m", "pip", "--python", commands / "python", "--quiet"]
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    yield commands


def test_wheel_carries_what_it_must_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        size = sum(info.compress_size for info in archive.infolist())
    shipped = [path for path in tiny.WEIGHTS.rglob("*") if path.is_file()]
    weights = {str(path.relative_to(tiny.WEIGHTS)) for path in shipped}
    for name in {f"tiny/weights/{name}" for name in weights} | {
        "py.typed",
        "evaluation/report_page.html",
    }:
        assert f"speceyes/{name}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("speceyes/", "speceyes-")) for name in names)
    assert not [name for name in names if "__pycache__" in name or "test" in name]
    assert size < 13_000_000


def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    where = _run(
        installed / "python", "-c", "import speceyes; print(speceyes.__file__)", cwd=tmp_path
    )
    assert where.stdout.startswith(str(installed.parent))
    done = _run(installed / "speceyes", "demo", "--queries", "20", "--out", "out", cwd=tmp_path)
    assert "agent, one by one" in done.stdout and "predicted" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert {name: arm["n"] for name, arm in summary["arms"].items()} == {
        "agent": 20, "agent_batched": 20, "draft": 20, "funnel": 20,
    }  # fmt: skip
    assert len((tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()) == 80
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
