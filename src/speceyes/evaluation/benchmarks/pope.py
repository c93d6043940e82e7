"""POPE (arXiv 2305.10355) as parquet: yes-or-no questions about objects, in three categories.

    Full/adversarial-00000-of-00001.parquet, Full/popular-..., Full/random-...

with the columns `id, question_id, question, answer ("yes" or "no"), image_source, category` and
`image`, a struct of `bytes` and `path`. All rows of a picture share its bytes in memory. Reading
parquet needs pyarrow, the extra `speceyes[eval]`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks import _parquet
from speceyes.evaluation.benchmarks._gather import Draft, lettered_prompt
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, text_of
from speceyes.evaluation.row import Item

KINDS = ("adversarial", "popular", "random")
_NEEDED = ("question", "answer", "image")


def read(folder: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of all files below the folder, or those of one category.

    The published repository has the rows twice, as `Full` (by category) and as `data`; where
    there is a `Full`, only that is read.

    Raises:
        InputError: There is no parquet file, or one can't be read or lacks a column.
    """
    inner = folder / "Full"
    held: dict[str, bytes] = {}
    for path in _parquet.files(inner if inner.is_dir() else folder):
        by_name = next((kind for kind in KINDS if kind in path.name), "")
        if only is not None and by_name not in ("", only):
            continue
        for number, (_, _, row) in enumerate(_parquet.rows(path, _NEEDED), 1):
            draft = _row(path, number, row, by_name, held)
            if isinstance(draft, BadRow) or only in (None, draft.kind):
                yield draft


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
        return BadRow(name, f"answer {answer[:40]!r:.40} is neither yes nor no")
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
    arrow = _parquet.arrow()
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


def _holds(path: Path) -> bool:
    file = _parquet.first(path)
    return file is not None and set(_NEEDED) <= set(_parquet.columns(file))


LAYOUTS = (Layout("pope", read, _holds, write, broad=True, hub="lmms-lab/POPE"),)
