"""A release: built alike twice, checked, and installed where no checkout is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import speceyes
from release import ROOT, build
from speceyes import tiny

EPOCH = 1_795_219_200  # 21 November 2026

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
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release is made of, as it is now."""
    folder = tmp_path_factory.mktemp("tree")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=leave)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel of a release, which twine has checked."""
    return build(tmp_path_factory.mktemp("dist"), EPOCH, root=tree)


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the commands of a fresh environment that has the wheel, and the dependencies of
    this one through a .pth file, so that they need not be downloaded again."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False)
    paths = sysconfig.get_paths(vars={"base": str(home), "platbase": str(home)})
    commands = Path(paths["scripts"])
    pip = [sys.executable, "-m", "pip", "--python", commands / "python", "--quiet"]
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # What needs no dependency has to work without them.
    bare = _run(commands / "python", "-c", "import speceyes as s; print(s.__version__)", cwd=home)
    assert bare.stdout.strip() == speceyes.__version__
    lines = {sysconfig.get_paths()[key] for key in ("purelib", "platlib")}
    Path(paths["purelib"], "dependencies.pth").write_text("\n".join(sorted(lines)) + "\n")
    yield commands


@pytest.mark.exhaustive  # a second build; what is in the first is looked at above and below
def test_the_same_sources_give_the_same_bytes(
    built: tuple[Path, Path], tree: Path, tmp_path: Path
) -> None:
    """From a checkout with other times and permissions, under another umask."""
    other = shutil.copytree(tree, tmp_path / "other")
    for path in other.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700)
    before = os.umask(0o077)
    try:
        again = build(tmp_path / "dist", EPOCH, root=other, check=False)
    finally:
        os.umask(before)
    for first, second in zip(built, again, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), first.name


def test_sdist_has_what_a_build_needs(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/speceyes/py.typed"} <= names
    assert {f"src/speceyes/tiny/weights/{name}" for name in _weights()} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_version_is_the_same_everywhere(installed: Path, tmp_path: Path) -> None:
    told = _run(installed / "speceyes", "--version", cwd=tmp_path).stdout
    assert told.strip() == f"speceyes {speceyes.__version__}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == speceyes.__version__
    citation = (ROOT / "docs" / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {speceyes.__version__}\n" in citation


def _weights() -> set[str]:
    shipped = [path for path in tiny.WEIGHTS.rglob("*") if path.is_file()]
    return {path.relative_to(tiny.WEIGHTS).as_posix() for path in shipped}


def test_wheel_carries_what_it_must_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        size = sum(info.compress_size for info in archive.infolist())
    for name in {f"tiny/weights/{name}" for name in _weights()} | {
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
    done = _run(installed / "speceyes", "demo", "--queries", "2", "--out", "out", cwd=tmp_path)
    assert "agent, one by one" in done.stdout and "predicted" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert {name: arm["n"] for name, arm in summary["arms"].items()} == {
        "agent": 2, "agent_batched": 2, "draft": 2, "funnel": 2, "funnel_one": 2,
    }  # fmt: skip
    assert len((tmp_path / "out" / "results.jsonl").read_text("utf-8").splitlines()) == 10
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
