"""Benchmarks in the layouts in which their authors publish them, on files that are written here."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from speceyes.errors import InputError
from speceyes.evaluation import benchmarks
from speceyes.evaluation.benchmarks import layout
from speceyes.evaluation.benchmarks._options import lettered
from speceyes.evaluation.benchmarks.sample import Cell, ParquetCell
from speceyes.evaluation.grading import is_correct

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COLOURS = ("red", "green", "blue", "white", "black")
OPTIONS = "A. cup\nB. jug\nC. pan\nD. pot"


def picture(colour: str = "red", size: int = 24) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(data, "PNG")
    return data.getvalue()


def stored(colour: str) -> dict[str, Any]:
    """A picture as the datasets library stores one."""
    return {"bytes": picture(colour), "path": f"{colour}.png"}


def text64(colour: str) -> str:
    return base64.b64encode(picture(colour)).decode()


def parquet(path: Path, rows: list[dict[str, Any]], group: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def treebench(folder: Path) -> None:
    kinds = ("Perception/OCR", "Reasoning/Ordering", "Perception/Material")
    rows = [
        {
            "index": n,
            "image": text64(COLOURS[n]),
            "question": f"What is number {n}?",
            "multi-choice options": OPTIONS,
            "answer": "ABC"[n],
            "category": kind,
            "target_instances": "[[1, 2, 3, 4]]",
        }
        for n, kind in enumerate(kinds)
    ]
    tsv(folder / "TreeBench.tsv", rows)


def visualprobe(folder: Path) -> None:
    for level, count in (("Hard", 2), ("Easy", 1)):
        own = folder / f"VisualProbe_{level}"
        (own / "data").mkdir(parents=True)
        rows = []
        for n in range(count):
            name = f"visual_probe_{level.lower()}_{n}.png"
            (own / "data" / name).write_bytes(picture(COLOURS[n]))
            images: Any = [f"VisualProbe_{level}/data/{name}"]
            rows.append(
                {
                    "doc_id": n,
                    "images": repr(images) if n else images,
                    "problem": f"<image>\nWhat does sign {n} say?",
                    "solution": f"Exit {n}",
                    "data_source": f"visual_probe_{level.lower()}",
                }
            )
        (own / "val.json").write_text(json.dumps(rows))


def zoombench(folder: Path) -> None:
    rows = [
        {
            "id": f"z{n}",
            "query": query,
            "response": response,
            "question_type": kind,
            "bbox": "[1, 2, 3, 4]",
            "image": stored(COLOURS[n]),
            "crop_image": stored("white"),
        }
        for n, (query, response, kind) in enumerate(
            [
                (f"What is it?\n{OPTIONS}", "B", "mcq"),
                ("What is it?\nA) cup\nB) jug\nAnswer with a letter.", "A", "mcq"),
                ("What is written on (A) the door?", "PULL", "blank"),
            ]
        )
    ]
    parquet(folder / "data" / "test.parquet", rows)


def mme(folder: Path) -> None:
    rows = [
        {
            "index": str(n),
            "bytes": text64(COLOURS[n]),
            "question": f"How many in {n}?",
            "multi-choice options": [f"({letter}) {n + i}" for i, letter in enumerate("ABCDE")],
            "answer": "CAE"[n],
            "category": ("Perception/Remote Sensing", "Reasoning/Monitoring")[n % 2],
            "l2-category": "count",
        }
        for n in range(3)
    ]
    parquet(folder / "data" / "train-00000-of-00001.parquet", rows)


def o3(folder: Path) -> None:
    own = folder / "test"
    rows = []
    for n, subset in enumerate(("map", "chart", "map")):
        name = f"images/{subset}/{n}.png"
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).write_bytes(picture(COLOURS[n]))
        rows.append(
            {
                "file_name": name,
                "subset": subset,
                "question": f"Which way in {n}?",
                "options": f"{OPTIONS}\nE. lid\nF. No right choice",
                "answer": "CFA"[n],
                "explanation": "Step 1 ...",
                "target_layouts": [1, 2],
            }
        )
    (own / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _cv(n: int, kind: str, task: str) -> dict[str, Any]:
    return {
        "idx": n,
        "type": kind,
        "task": task,
        "image": stored(COLOURS[n]),
        "question": f"Question {n}?",
        "choices": ["3", "1", "0", "2"] if task == "Count" else ["above", "below"],
        "answer": "(B)",
        "prompt": f"Question {n}? Select from the following choices. ...",
        "filename": f"{kind.lower()}/{n}.png",
        "source": "COCO",
    }


def cvbench(folder: Path) -> None:
    parquet(folder / "test_2d.parquet", [_cv(0, "2D", "Count"), _cv(1, "2D", "Relation")])
    parquet(folder / "test_3d.parquet", [_cv(2, "3D", "Depth")])


def blink(folder: Path) -> None:
    for task, images in (("Counting", 1), ("Jigsaw", 3)):
        rows = []
        for n in range(2):
            row: dict[str, Any] = {
                "idx": f"val_{task}_{n}",
                "sub_task": task,
                "question": f"Which is it in {n}?",
                "prompt": "Which is it? (A) one (B) two",
                "choices": ["one", "two"],
                "answer": "(B)",
            }
            for i in range(4):
                row[f"image_{i + 1}"] = stored(COLOURS[(i + n) % 5]) if i < images else None
            rows.append(row)
        schema = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.Table.from_pylist(rows)
        for i in range(4):
            place = table.schema.get_field_index(f"image_{i + 1}")
            typed = pa.array([row[f"image_{i + 1}"] for row in rows], schema)
            table = table.set_column(place, f"image_{i + 1}", typed)
        path = folder / task / "val-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path)
        hidden = [{**row, "answer": "hidden"} for row in rows]
        parquet(folder / task / "test-00000-of-00001.parquet", hidden)


Written = tuple[Callable[[Path], None], Counter[str], list[str], str, int]
LAYOUTS: dict[str, Written] = {
    "treebench": (
        treebench,
        Counter({"Perception/OCR": 1, "Reasoning/Ordering": 1, "Perception/Material": 1}),
        ["cup", "jug", "pan"],
        "Perception",
        2,
    ),
    "visualprobe": (
        visualprobe,
        Counter(hard=2, easy=1),
        ["Exit 0", "Exit 0", "Exit 1"],
        "hard",
        2,
    ),
    "zoombench": (zoombench, Counter(mcq=2, blank=1), ["jug", "cup", "PULL"], "mcq", 2),
    "mme-realworld-lite": (
        mme,
        Counter({"Perception/Remote Sensing": 2, "Reasoning/Monitoring": 1}),
        ["2", "1", "6"],
        "Reasoning",
        1,
    ),
    "o3-bench": (o3, Counter(map=2, chart=1), ["pan", "No right choice", "cup"], "chart", 1),
    "cv-bench": (
        cvbench,
        Counter({"2D/Count": 1, "2D/Relation": 1, "3D/Depth": 1}),
        ["1", "below", "below"],
        "2D",
        2,
    ),
    "blink": (blink, Counter(Counting=2, Jigsaw=2), ["two"] * 4, "Jigsaw", 2),
}


@pytest.fixture(params=LAYOUTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(name: str, tmp_path: Path) -> Path:
    LAYOUTS[name][0](tmp_path)
    return tmp_path


def test_rows_come_with_answers_kinds_and_pictures(name: str, folder: Path) -> None:
    _, kinds, answers, _, _ = LAYOUTS[name]
    loaded = benchmarks.load(name, folder=folder, parity=True)
    assert loaded.bad == ()
    assert Counter(sample.kind for sample in loaded.samples) == kinds
    assert Counter(sample.answer for sample in loaded.samples) == Counter(answers)
    assert len({sample.query.id for sample in loaded.samples}) == len(answers)
    for sample in loaded.samples:
        assert sample.benchmark == name
        assert all(image.width > 0 for image in sample.query.images)
        assert "<image>" not in sample.query.question
        assert not sample.query.choices or sample.answer in sample.query.choices
        assert is_correct(sample.answer, sample.answer, sample.query.choices)


def test_it_is_recognised_by_its_files(name: str, folder: Path) -> None:
    by_path = benchmarks.load(folder)
    assert {sample.benchmark for sample in by_path.samples} == {name}


def test_a_category_can_be_picked_and_a_wrong_one_is_named(name: str, folder: Path) -> None:
    category, count = LAYOUTS[name][3:]
    assert len(benchmarks.load(name, folder=folder, split=category).samples) == count
    with pytest.raises(InputError, match="no rows of split='nowhere'"):
        benchmarks.load(name, folder=folder, split="nowhere")


def test_options_are_shuffled_by_the_seed(name: str, folder: Path) -> None:
    one, same, other = (benchmarks.load(folder, seed=seed).samples for seed in (1, 1, 2))
    orders = [[sample.query.choices for sample in some] for some in (one, same, other)]
    assert orders[0] == orders[1]
    if name != "visualprobe":
        published = [s.query.choices for s in benchmarks.load(folder, parity=True).samples]
        seeds = {tuple(s.query.choices for s in benchmarks.load(folder, seed=n).samples)
                 for n in range(6)}  # fmt: skip
        assert len(seeds) > 1
        assert all(sorted(a) == sorted(b) for a, b in zip(orders[2], published, strict=True))


def test_pictures_of_tables_stay_in_their_file(tmp_path: Path) -> None:
    for name, kind in (("treebench", Cell), ("zoombench", ParquetCell), ("cv-bench", ParquetCell)):
        own = tmp_path / name
        LAYOUTS[name][0](own)
        loaded = benchmarks.load(own)
        assert {type(source) for entry in loaded.samples.entries for source in entry.sources} == {
            kind
        }
        # In any order, and again: a row group is read as often as it takes.
        shown = [loaded.samples[i].query.images[0].getpixel((1, 1)) for i in (2, 0, 1, 2)]
        assert shown[0] == shown[3]
        assert len(set(shown)) == 3


def test_blink_shows_each_picture_that_a_row_has(tmp_path: Path) -> None:
    blink(tmp_path)
    loaded = benchmarks.load("blink", folder=tmp_path)
    shown = {sample.kind: len(sample.query.images) for sample in loaded.samples}
    assert shown == {"Counting": 1, "Jigsaw": 3}
    first = benchmarks.load("blink", folder=tmp_path, split="Jigsaw").samples[0]
    pixels = [image.getpixel((1, 1)) for image in first.query.images]
    assert pixels == [(255, 0, 0), (0, 128, 0), (0, 0, 255)]


def test_the_test_split_of_blink_has_no_answers(tmp_path: Path) -> None:
    blink(tmp_path)
    for path in tmp_path.rglob("val-*"):
        path.unlink()
    with pytest.raises(InputError, match="test split only"):
        benchmarks.load("blink", folder=tmp_path)


def test_zoombench_under_its_card_s_names_and_without_options(tmp_path: Path) -> None:
    row = {
        "id": "1",
        "prompt": "Pick: cup or jug?",
        "answer": "B",
        "question_type": "mcq",
        "image": stored("red"),
        "crop_image": stored("red"),
    }
    parquet(tmp_path / "test.parquet", [row])
    (sample,) = benchmarks.load("zoombench", folder=tmp_path).samples
    assert (sample.query.question, sample.query.choices, sample.answer) == (
        "Pick: cup or jug?",
        (),
        "B",
    )


def test_cv_bench_from_lines_and_loose_pictures(tmp_path: Path) -> None:
    row = _cv(1, "2D", "Relation")
    del row["image"]
    file = tmp_path / "img" / row["filename"]
    file.parent.mkdir(parents=True)
    file.write_bytes(picture("blue"))
    lost = {**row, "idx": 9, "filename": "2d/none.png"}
    out = {**row, "idx": 8, "filename": "../../../etc/x.png"}
    lines = [json.dumps(one) for one in (row, lost, out)]
    (tmp_path / "test_2d.jsonl").write_text("\n".join([*lines, "{oops"]))
    loaded = benchmarks.load(tmp_path)
    assert [sample.answer for sample in loaded.samples] == ["below"]
    reasons = " ".join(bad.reason for bad in loaded.bad)
    assert len(loaded.bad) == 3
    assert "none.png" in reasons
    assert "outside" in reasons
    assert "JSON" in reasons


def test_treebench_and_hr_bench_as_parquet_too(tmp_path: Path) -> None:
    row = {
        "index": 0,
        "image": text64("red"),
        "question": "What?",
        "A": "cup",
        "B": "jug",
        "C": None,
        "answer": "B",
        "category": "Perception/OCR",
        "target_instances": "[]",
    }
    parquet(tmp_path / "tree" / "train.parquet", [row])
    assert [s.answer for s in benchmarks.load(tmp_path / "tree").samples] == ["jug"]
    del row["target_instances"]
    parquet(tmp_path / "hr" / "hr_bench_4k.parquet", [{**row, "category": "single"}])
    (sample,) = benchmarks.load(tmp_path / "hr").samples
    assert (sample.benchmark, sample.answer, sample.kind) == ("hr-bench-4k", "jug", "single")


def test_mme_realworld_as_vlmevalkit_has_it(tmp_path: Path) -> None:
    row = {
        "index": 5,
        "image": text64("red"),
        "question": "What?",
        "multi-choice options": "(A) cup\n(B) jug\n(C) pan",
        "answer": "C",
        "category": "Perception/Monitoring",
        "l2-category": "x",
    }
    tsv(tmp_path / "MME-RealWorld-Lite.tsv", [row])
    (sample,) = benchmarks.load(tmp_path).samples
    assert (sample.benchmark, sample.answer) == ("mme-realworld-lite", "pan")


def test_broken_rows_are_named_and_harm_no_other(tmp_path: Path) -> None:
    good = {
        "index": "0",
        "bytes": text64("red"),
        "question": "What?",
        "multi-choice options": ["(A) cup", "(B) jug"],
        "answer": "A",
        "category": "c",
        "l2-category": "x",
    }
    broken = [
        {"bytes": "!!!"},
        {"bytes": None},
        {"bytes": text64("red")[:40]},
        {"answer": "E"},
        {"answer": ""},
        {"multi-choice options": []},
        {"multi-choice options": ["(A) cup", "(B) cup"]},
        {"question": " "},
        {"index": "0"},
    ]
    rows = [good, *({**good, "index": str(n), **one} for n, one in enumerate(broken, 1))]
    parquet(tmp_path / "data" / "train.parquet", rows)
    loaded = benchmarks.load("mme-realworld-lite", folder=tmp_path)
    assert [sample.query.id for sample in loaded.samples] == ["0"]
    assert len(loaded.bad) == len(broken)
    reasons = " ".join(bad.reason for bad in loaded.bad)
    for word in ("base64", "no bytes", "times among", "no answer", "no options", "told apart"):
        assert word in reasons, word


@pytest.mark.parametrize(
    ("text", "around", "options"),
    [
        ("Which?\nA. red\nB. blue", "Which?", ("A. red", "B. blue")),
        ("(A) red\n(B) two\nlines\n(C) blue", "", ("(A) red", "(B) two\nlines", "(C) blue")),
        (r"A. red\nB. blue", "", ("A. red", "B. blue")),
        ("Which? A. red B. blue", "Which?", ("A. red", "B. blue")),
        ("A: 1\nB: 2\nC: 3", "", ("A: 1", "B: 2", "C: 3")),
        ("Is Plan A. good?", "Is Plan A. good?", ()),
        ("B. red\nA. blue", "B. red\nA. blue", ()),
        ("", "", ()),
        ("A. x\nB. y\nPlease answer.", "Please answer.", ("A. x", "B. y")),
    ],
)
def test_options_in_one_text(text: str, around: str, options: tuple[str, ...]) -> None:
    assert lettered(text) == (around, options)


def test_a_benchmark_is_one_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside the others is found, loaded by name and recognised; nothing names it."""
    (tmp_path / "countbench.py").write_text(
        '"""A benchmark of one question."""\n'
        "from speceyes.evaluation.benchmarks._gather import Draft\n"
        "from speceyes.evaluation.benchmarks.layout import Layout\n"
        "def read(path, only):\n"
        "    yield Draft('row', 'one', 'How many?', ('1', '2'), '2', 'count',"
        " (path / 'x.png',))\n"
        "def holds(path):\n"
        "    return (path / 'x.png').is_file()\n"
        "LAYOUTS = (Layout('count-bench', read, holds),)\n"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.png").write_bytes(picture())
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])
    layout.layouts.cache_clear()
    try:
        assert "count-bench" in benchmarks.names()
        assert benchmarks.load(tmp_path / "data").samples[0].answer == "2"
    finally:
        monkeypatch.undo()
        layout.layouts.cache_clear()
    assert "count-bench" not in benchmarks.names()


def test_two_benchmarks_in_one_folder_are_told_apart_by_name(tmp_path: Path) -> None:
    treebench(tmp_path)
    o3(tmp_path)
    with pytest.raises(InputError, match="o3-bench, treebench"):
        benchmarks.load(tmp_path)
    assert len(benchmarks.load("o3-bench", folder=tmp_path).samples) == 3


def test_a_constant_in_a_field_that_is_not_used_leaves_no_row_out(tmp_path: Path) -> None:
    """As pandas writes an empty cell; the project's own layout takes none."""
    o3(tmp_path)
    [file] = tmp_path.rglob("metadata.jsonl")
    file.write_text(file.read_text().replace("{", '{"spare": NaN, ', 1))
    loaded = benchmarks.load("o3-bench", folder=tmp_path)
    assert len(loaded.samples) == 3 and "NaN" not in str(loaded.left_out())
