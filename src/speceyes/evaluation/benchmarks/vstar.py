"""V* (arXiv 2312.14135): two folders of pictures, a JSON file beside each.

    direct_attributes/sa_4690.jpg
    direct_attributes/sa_4690.json    {"target_object": ["glove"], "bbox": [[x, y, w, h]],
                                       "question": "...", "options": ["gold", "...", ...]}
    relative_position/...

The right option always comes first, so that options have to be shuffled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from speceyes.errors import InputError
from speceyes.evaluation.benchmarks._gather import Draft, lettered_prompt
from speceyes.evaluation.benchmarks.layout import Layout
from speceyes.evaluation.benchmarks.sample import BadRow, text_of
from speceyes.evaluation.row import Item

KINDS = ("direct_attributes", "relative_position")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def read(folder: Path, only: str | None) -> Iterator[Draft | BadRow]:
    """The rows of one or both folders, by name.

    Raises:
        InputError: Neither folder is there.
    """
    kinds = [kind for kind in KINDS if only in (None, kind) and (folder / kind).is_dir()]
    if not kinds:
        wanted = " or ".join([only] if only else KINDS)
        raise InputError(f"{folder} holds no folder {wanted}: pass the folder that does")
    for kind in kinds:
        files = sorted(path for path in (folder / kind).iterdir() if path.is_file())
        pictures = {path.stem: path for path in files if path.suffix.lower() in PICTURES}
        notes = {path.stem: path for path in files if path.suffix.lower() == ".json"}
        for stem in sorted(pictures.keys() | notes.keys()):
            name = f"{kind}/{stem}"
            if stem not in notes:
                yield BadRow(name, f"there is a picture, and no {stem}.json")
            elif stem not in pictures:
                yield BadRow(name, f"there is a {stem}.json, and no picture")
            else:
                yield _row(name, kind, pictures[stem], notes[stem])


def _row(name: str, kind: str, picture: Path, note: Path) -> Draft | BadRow:
    try:
        data = json.loads(text_of(note.read_bytes()))
    except InputError as exc:
        return BadRow(name, str(exc))
    except (OSError, ValueError, RecursionError):
        return BadRow(name, f"{note.name} can't be read as JSON")
    question = data.get("question") if isinstance(data, dict) else None
    options = data.get("options") if isinstance(data, dict) else None
    if not isinstance(question, str):
        return BadRow(name, f"{note.name} has no question")
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        return BadRow(name, f"{note.name} has no list of options")
    if not options:
        return BadRow(name, f"{note.name} has an empty list of options")
    choices = tuple(options)
    prompt = lettered_prompt(question, choices)
    return Draft(name, name, question, choices, choices[0], kind, (picture,), prompt)


def write(items: Iterable[Item], folder: Path) -> int:
    """Writes the items in this layout, as JPEG of quality 95; how many they are.

    Raises:
        InputError: An item has no choices, or its answer isn't among them.
    """
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    count = 0
    for count, item in enumerate(items, 1):
        query = item.query
        if item.answer not in query.choices:
            raise InputError(
                f"item {query.id!r}: the answer {item.answer!r} isn't among the choices "
                f"{query.choices}; V* has multiple-choice questions only"
            )
        kind = KINDS[1] if "position" in item.kind else KINDS[0]
        stem = folder / kind / f"item_{count:05d}"
        query.images[0].save(stem.with_suffix(".jpg"), quality=95, subsampling=0)
        wrong = [choice for choice in query.choices if choice != item.answer]
        note = {
            "target_object": [],
            "bbox": [],
            "question": query.question,
            "options": [item.answer, *wrong],
        }
        stem.with_suffix(".json").write_text(json.dumps(note, ensure_ascii=False), encoding="utf-8")
    return count


def _holds(path: Path) -> bool:
    return path.is_dir() and any((path / kind).is_dir() for kind in KINDS)


LAYOUTS = (Layout("vstar", read, _holds, write, hub="craigwu/vstar_bench"),)
