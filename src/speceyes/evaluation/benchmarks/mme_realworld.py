"""MME-RealWorld-Lite (arXiv 2408.13257): 1,919 questions on large pictures, five options each.

    data/train-00000-of-....parquet

with the columns `index, bytes` (the picture as base64)`, question, multi-choice options` (a list,
"(A) ..." to "(E) ...")`, answer` (a letter)`, category` ("Perception/OCR with Complex Context" and
so on) and `l2-category`, as the authors publish it for lmms-eval; or `MME-RealWorld-Lite.tsv` as
VLMEvalKit has it, with the picture in `image`. MME-RealWorld itself has the same columns.

The names are those that lmms-eval reads; no file was looked at, and VLMEvalKit's was not checked
against its code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speceyes.evaluation.benchmarks import _tables
from speceyes.evaluation.benchmarks._gather import Draft
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow

_OWN = ("question", "answer", "multi-choice options", "l2-category")
_STEM = "MME-RealWorld-Lite"


def read(path: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows, or those of one category, as "Reasoning/Monitoring" or "Reasoning".

    Raises:
        InputError: There is no such file, it can't be read, or a column is missing.
        ConfigError: It is parquet, and there is no pyarrow.
    """
    for file in _tables.files(path, _STEM):
        yield from _tables.with_options(file, only, _picture(file))


def _picture(file: Path) -> str:
    return "bytes" if "bytes" in _tables.columns(file) else "image"


def _holds(path: Path) -> bool:
    tables = _tables.holds(path, _OWN, _STEM)
    return tables and "target_instances" not in _tables.columns(_tables.files(path, _STEM)[0])


LAYOUTS = (
    Layout("mme-realworld-lite", read, _holds, hub="yifanzhang114/MME-RealWorld-lite-lmms-eval"),
)
