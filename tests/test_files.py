"""Small files: whole or not at all, and named where they can't be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speceyes.calibration import Calibration, GateMonitor
from speceyes.errors import CalibrationError, ConfigError
from speceyes.evaluation.prices import Prices
from speceyes.files import load_whole, write_whole
from speceyes.pipeline.settings import FunnelSettings


@pytest.mark.parametrize(
    "content",
    [None, b"\xff\xfe", b"", b"{", b"[1, 2]", b'{"a": 1}', b"[" * 100_000],
    ids=["missing", "not UTF-8", "empty", "cut", "a list", "another object", "too deep"],
)
@pytest.mark.parametrize(
    ("load", "error"),
    [
        (Calibration.load, CalibrationError),
        (GateMonitor.load, CalibrationError),
        (FunnelSettings.load, ConfigError),
        (Prices.load, ConfigError),
    ],
    ids=["calibration", "monitor", "settings", "prices"],
)
def test_a_file_that_cant_be_used_is_named(
    load: Callable[[Path], Any], error: type[ConfigError], content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "some.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=r"some\.json"):
        load(file)


def test_a_write_that_fails_leaves_the_old_text_alone(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new, and half a pair: \ud800")
    assert load_whole(file, str.upper) == "OLD"
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]
