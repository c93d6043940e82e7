from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import speceyes


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_import_loads_neither_torch_nor_transformers() -> None:
    heavy = "{'torch', 'transformers', 'torchvision', 'numpy', 'PIL', 'qwen_vl_utils'}"
    assert _python(f"import sys, speceyes; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_gate_and_values_need_no_torch() -> None:
    code = (
        "import sys; from speceyes import Query, SeparabilityGate, ToolJudge, SpecPipeline, "
        "AgenticFallback, SpeculativeAnswerer, load_image; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert _python(code) == "[]"


def test_every_public_name_is_there_and_at_home() -> None:
    assert set(speceyes.__all__) == {*speceyes._HOMES, "__version__"}
    for name, home in speceyes._HOMES.items():
        found = getattr(speceyes, name)
        assert found is getattr(importlib.import_module(f"speceyes.{home}"), name)
        assert name in dir(speceyes)


def test_the_type_checker_is_told_of_every_public_name() -> None:
    import ast

    tree = ast.parse(Path(speceyes.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("speceyes.")
        for alias in node.names
    }
    assert told == {name: f"speceyes.{home}" for name, home in speceyes._HOMES.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Gate'"):
        _ = speceyes.Gate  # type: ignore[attr-defined]


def test_typing_marker_is_shipped() -> None:
    assert Path(speceyes.__file__).with_name("py.typed").is_file()
