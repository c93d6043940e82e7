"""The sets of packages that CI tries beside the newest: the oldest allowed, and the known-good."""

from __future__ import annotations

import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
KNOWN_GOOD = ROOT / ".ci" / "known-good.txt"


def _pinned(text: str) -> dict[str, Version]:
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (exactly,) = requirement.specifier
            assert exactly.operator == "==", line
            found[requirement.name.lower().replace("_", "-")] = Version(exactly.version)
    return found


def _asked(*extras: str) -> dict[str, SpecifierSet]:
    lists = [PROJECT["dependencies"], *(EXTRAS[name] for name in extras)]
    all_of_it = [Requirement(line) for one in lists for line in one]
    return {r.name.lower(): r.specifier for r in all_of_it if r.name != PROJECT["name"]}


def test_the_oldest_are_the_lower_bounds() -> None:
    oldest = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))
    pins = _pinned("\n".join(oldest["oldest"]()))
    users = EXTRAS.keys() - {*oldest["OURS"], *oldest["UNTRIED"]}
    asked = _asked(*users)
    assert pins.keys() == asked.keys()
    for name, allowed in asked.items():
        assert f">={pins[name]}" in str(allowed).split(","), f"{name}: {allowed}"


def test_a_requirement_without_a_lower_bound_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["oldest"]
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "x"\ndependencies = ["torch"]\noptional-dependencies = {}\n')
    monkeypatch.setitem(loaded.__globals__, "PROJECT", file)
    with pytest.raises(ValueError, match="'torch'"):
        list(loaded())


def test_the_known_good_set_is_whole_and_allowed() -> None:
    """Each package that users or tests ask for is pinned in it, within what pyproject allows."""
    pins = _pinned(KNOWN_GOOD.read_text("utf-8"))
    users = EXTRAS.keys() - {"dev", "docs", "fuzz", "inspect", "notebook", "ray"}
    for name, allowed in _asked(*users).items():
        assert name in pins, f"{name} is missing: make the file anew, as docs/CONTRIBUTING.md says"
        assert pins[name] in allowed, f"{name}: {pins[name]} is not in {allowed}"
    assert "speceyes" not in pins


def test_ci_is_a_script_that_bash_can_read() -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = (ROOT / ".ci" / "run").read_text("utf-8")
    assert text.index("step style") < text.index("step types") < text.index("step tests")
