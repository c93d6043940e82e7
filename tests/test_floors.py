"""Which file may import which: the table of floors, held by reading the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "speceyes"

FLOORS = {
    # 0: what everything stands on
    "checks": 0.5,
    "errors": 0,
    "prompts": 0,
    "texts": 0.2,
    "control_tokens": 0,
    "types": 0.5,
    "protocols": 0.6,
    # 1: numbers and pixels
    "event_loop": 1,
    "environment": 1,
    "images": 1,
    "scoring": 1,
    "calibration": 1.8,
    "isolation": 1,
    # 2: the phases and what they use
    "dialects": 2,
    "models": 2,
    "tools": 2,
    "agent": 2.4,
    "drafting": 2.55,
    "answerer": 2.58,
    "fallback": 2.5,
    "gate": 2.5,
    "judge": 2.5,
    "gates": 2.6,
    # 3: the order of the phases
    "pipeline": 3.5,
    "strategies": 3.7,
    # 4: what is measured, and on what
    "tiny": 4,
    "evaluation": 4.5,
    "tuning": 4.5,
    # 5: what people start
    "server": 4.8,
    "integrations": 4.9,
    "bench": 4.95,
    "cli": 5,
    # The package's own face: names only, imported late.
    "__main__": 6,
    "__init__": 6,
}
"""First part of a module's name (a file, or a room's folder) to its floor. A file imports from
lower floors, and from files of its own room. Half floors order what shares a floor."""

HEAVY = {"torch", "torchvision", "transformers", "qwen_vl_utils", "accelerate", "safetensors"}
"""Imported by local models and by the training of the tiny pair only."""
MAY_BE_HEAVY = {"models", "tiny"}


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of each import, wherever in the file it stands."""
    package = ("speceyes", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # "from speceyes import gate" is an import of speceyes.gate, if there is one.
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                inside = SOURCE.parent.joinpath(*whole.split("."))
                known = inside.is_dir() or inside.with_suffix(".py").is_file()
                yield node.lineno, whole if known else module


def _problems(path: Path) -> list[str]:
    room = _room(path)
    where = path.relative_to(SOURCE)
    if room not in FLOORS:
        return [f"{where}: not in the table of floors; give it one in tests/test_floors.py"]
    found = []
    for line, module in _imports(path):
        parts = module.split(".")
        if parts[0] in HEAVY and room not in MAY_BE_HEAVY:
            found.append(f"{where}:{line} imports {parts[0]}; only {sorted(MAY_BE_HEAVY)} may")
        if parts[0] != "speceyes":
            continue
        target = parts[1] if len(parts) > 1 else "__init__"
        if target == room or (target == "__init__" and room in ("cli", "environment")):
            continue  # both tell the version, which lives in the package's face
        if target not in FLOORS:
            found.append(f"{where}:{line} imports {module}, which has no floor")
        elif FLOORS[target] >= FLOORS[room]:
            found.append(
                f"{where}:{line} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[target]})"
            )
    return found


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_imports_only_from_lower_floors(path: Path) -> None:
    assert _problems(path) == []


def test_the_reader_sees_every_way_to_import(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("test_floors.SOURCE", tmp_path / "speceyes")
    for name in ("pipeline.py", "models/hf/model.py"):
        file = tmp_path / "speceyes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    file = tmp_path / "speceyes" / "scoring.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from speceyes.pipeline import SpecPipeline\n"
        "def late():\n"
        "    import speceyes.models.hf\n"
        "    from speceyes import pipeline\n"
        "    from . import models\n"
        "    from .models.hf import HFModel\n"
        "    import torch.nn\n"
        "    from speceyes import Query\n"
        "    from speceyes.errors import InputError\n"
    )
    lines = [problem.split(":")[1].split()[0] for problem in _problems(file)]
    assert lines == ["3", "5", "6", "7", "8", "9", "10"]
    (tmp_path / "speceyes" / "stray.py").write_text("")
    assert "not in the table" in _problems(tmp_path / "speceyes" / "stray.py")[0]
