"""POPE (arXiv 2305.10355) as parquet: yes-or-no questions about objects, in three categories.

    Full/adversarial-00000-of-00001.parquet, Full/popular-..., Full/random-...

with the columns `id, question_id, question, answer ("yes" or "no"), image_source, category` and
`image`, a struct of `bytes` and `path`. All rows of a picture share its bytes in memory. Reading
parquet needs pyarrow, the extra `speceyes[eval]`.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.benchmarks._gather import Draft, lettered_prompt
from speceyes.evaluation.benchmarks.sample import BadRow, text_of
from speceyes.evaluation.row import Item

KINDS = ("adversarial", "popular", "random")
_NEEDED = ("question", "answer", "image")
_BATCH = 64


def _parquet() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise ConfigError(
            "POPE's files are parquet, which needs pyarrow: pip install 'speceyes[eval]'"
        ) from None


def read(folder: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of all files below the folder, or those of one category.

    The published repository has the rows twice, as `Full` (by category) and as `data`; where
    there is a `Full`, only that is read.

    Raises:
        InputError: There is no parquet file, or one can't be read or lacks a column.
    """
    arrow = _parquet()
    inner = folder / "Full"
    files = sorted((inner if inner.is_dir() else folder).rglob("*.parquet"))
    if not files:
        raise InputError(f"{folder} holds no parquet file: pass the folder that does")
    held: dict[str, bytes] = {}
    for path in files:
        by_name = next((kind for kind in KINDS if kind in path.name), "")
        if only is not None and by_name not in ("", only):
            continue
        try:
            with arrow.parquet.ParquetFile(path) as file:
                missing = [name for name in _NEEDED if name not in file.schema_arrow.names]
                if missing:
                    raise InputError(f"{path} has no column {', '.join(missing)}")
                number = 0
                for batch in file.iter_batches(batch_size=_BATCH):
                    for row in _rows(arrow, batch):
                        number += 1
                        draft = _row(path, number, row, by_name, held)
                        if isinstance(draft, BadRow) or only in (None, draft.kind):
                            yield draft
        except (OSError, ValueError) as exc:
            if isinstance(exc, InputError):
                raise
            raise InputError(f"{path} can't be read as parquet: download it again") from None


def _rows(arrow: Any, batch: Any) -> Iterator[dict[str, Any]]:
    """The batch's rows; texts stay bytes, so that one that isn't UTF-8 hurts its row alone."""
    columns = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type):
            column = column.cast(arrow.binary())
        columns[name] = column.to_pylist()
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _text(row: dict[str, Any], column: str) -> str | None:
    value = row.get(column)
    try:
        return text_of(value) if isinstance(value, bytes) else None
    except InputError as exc:
        raise InputError(f"column {column}: {exc}") from None


def _row(
    path: Path, number: int, row: dict[str, Any], by_name: str, held: dict[str, bytes]
) -> Draft | BadRow:
    name = f"{path.name}, row {number}"
    try:
        kind = _text(row, "category") or by_name
        question, answer = _text(row, "question"), _text(row, "answer") or ""
        asked = _text(row, "question_id") or row.get("question_id")
    except InputError as exc:
        return BadRow(name, str(exc))
    if not kind:
        return BadRow(name, "it has no category")
    if question is None:
        return BadRow(name, "it has no question")
    gold = answer.strip().lower()
    if gold not in ("yes", "no"):
        return BadRow(name, f"answer {answer[:40]!r} is neither yes nor no")
    image = row["image"]
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        return BadRow(name, "it has no image's bytes")
    data = held.setdefault(hashlib.sha256(data).hexdigest(), data)
    own = f"{kind}/{number if asked is None else asked}"
    return Draft(name, own, question, (), gold, kind, (data,), lettered_prompt(question, ()))


def write(items: Iterable[Item], folder: Path) -> int:
    """Writes yes-or-no items in this layout, dealt out to the three categories in turn; how many.

    Raises:
        InputError: An answer is neither yes nor no.
    """
    arrow = _parquet()
    (folder / "Full").mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    count = 0
    for count, item in enumerate(items, 1):
        if item.answer not in ("yes", "no"):
            raise InputError(
                f"item {item.query.id!r} has the answer {item.answer!r}; POPE has yes-or-no "
                "questions only"
            )
        kind = KINDS[(count - 1) % len(KINDS)]
        encoded = io.BytesIO()
        item.query.images[0].save(encoded, "JPEG", quality=95, subsampling=0)
        place = len(rows[kind]) + 1
        rows[kind].append(
            {
                "id": str(place - 1),
                "question_id": str(place),
                "question": item.query.question,
                "answer": item.answer,
                "image_source": item.query.id or f"item_{count}",
                "image": {"bytes": encoded.getvalue(), "path": None},
                "category": kind,
            }
        )
    text = arrow.string()
    schema = arrow.schema(
        [(name, text) for name in ("id", "question_id", "question", "answer", "image_source")]
        + [("image", arrow.struct([("bytes", arrow.binary()), ("path", text)])), ("category", text)]
    )
    for kind, some in rows.items():
        table = arrow.Table.from_pylist(some, schema=schema)
        arrow.parquet.write_table(table, folder / "Full" / f"{kind}-00000-of-00001.parquet")
    return count
