"""Which file may import which: the table of floors, held by reading the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "speceyes"

FLOORS = (
    (),  # what all stand on: every file of the package's own folder that no floor below names
    ("images", "scoring", "calibration"),  # pixels and numbers
    ("models", "tools", "dialects"),  # what is asked, what it may call, how it writes
    ("agent", "judge", "gate", "gates", "fallback", "drafting", "answerer"),  # the phases
    ("pipeline", "strategies"),  # the order of the phases
    ("tiny", "evaluation", "tuning"),  # what is measured, and on what; the best setting
    ("server", "integrations", "bench", "cli", "tiny/training"),  # what people start
)
"""Rooms from the ground up: folders, and the phases, which are a file each. A room imports from the
floors under it, and on its own floor from rooms that are named before it. A folder within a room
that is named stands apart from it."""
FACE = ("__init__", "__main__")
"""The package's own face: names only, imported late. It may import all, and none may import it but
the ground floor and the command line, which tell the version."""

HEAVY = {"torch", "torchvision", "transformers", "qwen_vl_utils", "accelerate", "safetensors"}
"""Imported by local models and by the training of the tiny pair only."""
MAY_BE_HEAVY = {"models", "tiny", "tiny/training"}


def _files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _room(parts: Sequence[str]) -> str:
    """The room of a file or module below the package: "tiny" of tiny/scenes.py."""
    inner = "/".join(parts[:2])
    return inner if any(inner in rooms for rooms in FLOORS) else parts[0].removesuffix(".py")


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


def _place(room: str) -> tuple[int, int]:
    """(floor, place on it); the ground for a file of the package's own folder."""
    for floor, rooms in enumerate(FLOORS):
        if room in rooms:
            return floor, rooms.index(room)
    return 0, 0


def _problems(path: Path) -> list[str]:
    where = path.relative_to(SOURCE)
    room = _room(where.parts)
    floor, place = _place(room)
    if floor == 0 and len(where.parts) > 1:
        return [f"{where}: {room}/ is on no floor; give it one in tests/test_floors.py"]
    found = []
    for line, module in _imports(path):
        parts = module.split(".")
        if parts[0] in HEAVY and room not in MAY_BE_HEAVY:
            found.append(f"{where}:{line} imports {parts[0]}; only {sorted(MAY_BE_HEAVY)} may")
        if parts[0] != "speceyes" or room in FACE:
            continue
        target = _room(parts[1:]) if len(parts) > 1 else "__init__"
        there = _place(target)
        if target in FACE:
            allowed = floor == 0 or room == "cli"
        elif there[0] == floor == 0:
            allowed = True
        else:
            allowed = target == room or there < (floor, place)
        if not allowed:
            found.append(f"{where}:{line} (floor {floor}) imports {module} (floor {there[0]})")
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
    for name in ("strays/one.py", "types.py", "judge.py", "gates/margin.py"):
        stray = tmp_path / "speceyes" / name
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("import speceyes.types\nimport speceyes.gate\n")
    found = {path.stem: _problems(path) for path in (tmp_path / "speceyes").rglob("*.py")}
    assert "on no floor" in found["one"][0]
    assert len(found["types"]) == len(found["judge"]) == 1, "upwards, and to one named later"
    assert found["margin"] == []


def test_the_map_for_contributors_has_every_room() -> None:
    text = (SOURCE.parents[1] / "docs" / "CONTRIBUTING.md").read_text("utf-8")
    _, _, table = text.partition("## The map")
    rows = [line for line in table.splitlines() if re.match(r"\| \d ", line)]
    assert len(rows) == len(FLOORS)
    for number, (row, rooms) in enumerate(zip(reversed(rows), FLOORS, strict=True)):
        assert row.startswith(f"| {number} ")
        for room in rooms:
            name = f"`{room}/`" if (SOURCE / room).is_dir() else f"`{room}.py`"
            assert name in row, f"{name} is missing on floor {number} of docs/CONTRIBUTING.md"
