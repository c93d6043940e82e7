"""Training a tiny model on pictures of one's own: what a batch holds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes import prompts
from speceyes.errors import InputError
from speceyes.evaluation import benchmarks
from speceyes.tiny.training.models import LARGE_SIZE, SMALL_SIZE, build_tokenizer
from speceyes.tiny.training.pictures import AT_ONCE, PictureLessons


def lessons(folder: Path, *, large: bool, answer: str = "red", **row: Any) -> PictureLessons:
    rows = []
    for at, colour in enumerate(("red", "blue", "lime")):
        Image.new("RGB", (64, 48), colour).save(folder / f"{at}.png")
        rows += [
            {"image": f"{at}.png", "question": f"What is it, {n}?", "answer": answer, **row}
            for n in range(8)
        ]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    size = LARGE_SIZE if large else SMALL_SIZE
    samples = benchmarks.load(folder / "own.jsonl", labels=False).samples
    return PictureLessons(samples, build_tokenizer(), size, large=large, seed=1, scenes_a_batch=2)


@pytest.mark.parametrize("large", [False, True])
def test_a_batch_is_of_some_pictures_with_questions_on_them(tmp_path: Path, large: bool) -> None:
    mine = lessons(tmp_path, large=large)
    batch, again = mine.batch(3), mine.batch(3)
    side = (LARGE_SIZE if large else SMALL_SIZE).view
    assert batch.views.shape == (2, side, side, 3)
    assert np.array_equal(batch.views, again.views)
    assert len({view.mean(axis=(0, 1)).round().tobytes() for view in batch.views}) == 2
    assert len(batch.rows) == 2 * AT_ONCE
    assert {row.images for row in batch.rows} == {(0,), (1,)}
    assert (batch.labels[..., 2:] == -1).all() and (batch.labels[..., :2] >= 0).all()
    tokenizer = build_tokenizer()
    for row in batch.rows:
        text = tokenizer.decode(row.ids)
        said = tokenizer.decode(row.ids[row.roles > 0])
        if row.name.startswith("draft"):
            assert prompts.DRAFT in text and said.startswith("red")
        elif row.name.startswith("judge"):
            assert said.startswith("no")
        else:
            assert said.startswith("<think></think>\n<answer>red</answer>")
    assert mine.batch(3, rows=False).rows == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [({"answer": " "}, "no answer to learn"), ({"image": ["0.png", "0.png"]}, "2 pictures")],
)
def test_what_cant_be_learned_is_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lessons(tmp_path, large=False, **row)
