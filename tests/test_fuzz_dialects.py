"""The fuzzer of the dialects' parsers runs, for a few seconds; longer runs are by hand."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 4


def fuzz(checkout: Path, keep: Path, *, before: str = "") -> subprocess.CompletedProcess[str]:
    """A run of the fuzzer in a process of its own, which libFuzzer ends; `before` is run first."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris isn't installed: pip install atheris (Linux and macOS)")
    script = checkout / "tests" / "fuzz" / "fuzz_dialects.py"
    code = f"import runpy, sys\n{before}\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    words = [str(script), "--seconds", str(SECONDS), "--keep", str(keep)]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = sys.argv[1:]\n{code}", *words],
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_only_parse_errors_leave_the_parsers(checkout: Path, tmp_path: Path) -> None:
    done = fuzz(checkout, tmp_path / "keep")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert runs is not None and int(runs[1]) >= 300  # the whole start corpus, at least
    assert [*(tmp_path / "keep").iterdir()] == []


def test_what_breaks_a_parser_is_found_and_kept(checkout: Path, tmp_path: Path) -> None:
    """A parser that lets a KeyError out: the fuzzer must not be one that finds nothing."""
    broken = (
        "from speceyes.dialects import minio3 as it\n"
        "def parse(self, text):\n"
        "    raise KeyError('name')\n"
        "it.MiniO3Dialect.parse = parse"
    )
    done = fuzz(checkout, tmp_path / "keep", before=broken)
    assert done.returncode != 0
    assert "KeyError('name')" in done.stdout + done.stderr
    assert [*(tmp_path / "keep").glob("minio3-*.txt")]
