"""Every loader on real files: the scenes are written in each layout and read back, and broken."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from speceyes import images
from speceyes.errors import InputError
from speceyes.evaluation import benchmarks
from speceyes.evaluation.benchmarks import _tsv
from speceyes.evaluation.benchmarks.sample import BadRow, Cell, Entry, Loaded, Samples
from speceyes.evaluation.benchmarks.scenes import SceneItem, items
from speceyes.evaluation.grading import is_correct
from speceyes.images import ImageLimits
from speceyes.types import Query

N = 6


def _reduced(item: SceneItem) -> SceneItem:
    """The same item, quick to encode."""
    query = item.query
    small = query.images[0].resize((96, 96))
    return SceneItem(
        Query(query.question, (small,), query.choices, query.id), item.answer, item.kind
    )


@pytest.fixture(scope="module")
def asked() -> list[SceneItem]:
    return [_reduced(item) for item in items("heldout", N)]


@pytest.fixture(scope="module")
def yes_no() -> list[SceneItem]:
    some = items("heldout", N, answers={"yes", "no"}, with_choices=False)
    return [_reduced(item) for item in some]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, asked, yes_no) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    assert benchmarks.write("vstar", asked, folder / "vstar") == N
    assert benchmarks.write("jsonl", asked, folder / "jsonl") == N
    rows = sum(len(item.query.choices) for item in asked)
    assert benchmarks.write("hr-bench-4k", asked, folder / "hr") == rows
    pytest.importorskip("pyarrow")
    assert benchmarks.write("pope", yes_no, folder / "pope") == N
    return folder


def _copy(written: Path, name: str, to: Path) -> Path:
    return Path(shutil.copytree(written / name, to / name))


def _what(found) -> Counter:
    return Counter((s.query.question, frozenset(s.query.choices), s.answer) for s in found)


@pytest.mark.parametrize(("name", "where"), [("vstar", "vstar"), ("jsonl", "jsonl")])
def test_questions_come_back_as_they_were(name: str, where: str, written: Path, asked) -> None:
    loaded = benchmarks.load(name, folder=written / where)
    assert loaded.bad == ()
    assert _what(loaded.samples) == _what(asked)
    assert len({sample.query.id for sample in loaded.samples}) == N


def test_hr_bench_turns_each_question_and_knows_its_answer(written: Path, asked) -> None:
    loaded = benchmarks.load("hr-bench-4k", folder=written / "hr", parity=True)
    assert loaded.bad == ()
    counts = _what(loaded.samples)
    assert set(counts) == set(_what(asked))
    for (_, choices, _), count in counts.items():
        assert count % len(choices) == 0
    ids = {sample.query.id for sample in loaded.samples}
    assert len(ids) == len(loaded.samples)
    by_question: dict[str, set] = {}
    for sample in loaded.samples:
        place = sample.query.choices.index(sample.answer)
        by_question.setdefault(sample.query.question + sample.image_key, set()).add(place)
    assert all(len(places) >= 2 for places in by_question.values())


def test_pope_has_three_categories(written: Path, yes_no) -> None:
    loaded = benchmarks.load("pope", folder=written / "pope")
    assert loaded.bad == ()
    assert _what(loaded.samples) == _what(yes_no)
    assert Counter(s.kind for s in loaded.samples) == dict.fromkeys(benchmarks.pope.KINDS, N // 3)
    some = benchmarks.load("pope", folder=written / "pope", split="popular").samples
    assert [s.kind for s in some] == ["popular"] * (N // 3)
    assert {s.answer for s in loaded.samples} <= {"yes", "no"}


def test_png_comes_back_bit_by_bit(written: Path, asked) -> None:
    loaded = benchmarks.load("jsonl", folder=written / "jsonl")
    for sample, item in zip(loaded.samples, asked, strict=True):
        assert sample.image_key == images.fingerprint(item.query.images[0])
        assert sample.image_key == images.fingerprint(sample.query.images[0])
        assert sample.kind == item.kind
        assert sample.query.id == item.query.id


@pytest.mark.parametrize("name", ["vstar", "hr", "pope", "jsonl"])
def test_the_layout_is_recognised(name: str, written: Path) -> None:
    loaded = benchmarks.load(written / name)
    assert len(loaded.samples) >= N
    files = {"hr": "hr_bench_4k.tsv", "jsonl": "questions.jsonl"}
    if name in files:
        again = benchmarks.load(written / name / files[name])
        assert [s.query.id for s in again.samples] == [s.query.id for s in loaded.samples]


def test_only_encoded_images_are_held(written: Path) -> None:
    for name, kind in (("vstar", Path), ("hr", Cell), ("pope", bytes)):
        loaded = benchmarks.load(written / name)
        assert {type(source) for e in loaded.samples.entries for source in e.sources} <= {
            kind,
            type(Path("x")),
        }
        first = loaded.samples[0].query.images[0]
        assert loaded.samples[0].query.images[0] is not first


def test_options_are_shuffled_by_seed_and_by_nothing_else(written: Path) -> None:
    def orders(**how) -> dict[str, tuple[str, ...]]:
        found = benchmarks.load("hr-bench-4k", folder=written / "hr", **how).samples
        return {sample.query.id: sample.query.choices for sample in found}

    whole = orders(seed=3)
    assert orders(seed=3) == whole
    some = orders(seed=3, limit=4)
    assert len(some) == 4
    assert some.items() <= whole.items()
    single = orders(seed=3, split="single")
    assert len(single) > 0
    assert single.items() <= whole.items()
    assert orders(seed=4) != whole


def test_a_limit_is_nested_and_keeps_published_order(written: Path) -> None:
    whole = [s.query.id for s in benchmarks.load(written / "vstar").samples]
    last: set[str] = set()
    for limit in (1, 3, 5, 50):
        ids = [s.query.id for s in benchmarks.load(written / "vstar", limit=limit).samples]
        assert len(ids) == min(limit, N)
        assert ids == [one for one in whole if one in set(ids)]
        assert last <= set(ids)
        last = set(ids)


def test_right_options_stand_everywhere(tmp_path: Path) -> None:
    """In V* the right one is always first: after shuffling it is not."""
    picture = Image.new("RGB", (32, 32))
    many = [
        SceneItem(Query(f"Question {i}?", (picture,), ("a", "b", "c", "d")), "c", "colour")
        for i in range(200)
    ]
    benchmarks.write("vstar", many, tmp_path)
    plain = benchmarks.load("vstar", folder=tmp_path, parity=True).samples
    assert {s.query.choices.index(s.answer) for s in plain} == {0}
    places = Counter(e.choices.index(e.answer) for e in benchmarks.load(tmp_path).samples.entries)
    assert sorted(places) == [0, 1, 2, 3]
    assert min(places.values()) > 25  # 50 each on average


def test_parity_gives_the_published_prompt(written: Path) -> None:
    sample = benchmarks.load("vstar", folder=written / "vstar", parity=True).samples[0]
    assert sample.query.choices[0] == sample.answer
    expected = f"Question: {sample.query.question}\nOptions: \nA. {sample.answer}\nB. "
    assert sample.parity_prompt is not None
    assert sample.parity_prompt.startswith(expected)
    asked = benchmarks.load("pope", folder=written / "pope", parity=True).samples[0]
    assert asked.parity_prompt == f"Question: {asked.query.question}\n"
    assert benchmarks.load("pope", folder=written / "pope").samples[0].parity_prompt is None


def test_broken_rows_of_v_star_are_named(written: Path, tmp_path: Path) -> None:
    folder = _copy(written, "vstar", tmp_path)
    notes = sorted(folder.rglob("*.json"))
    notes[0].with_suffix(".jpg").unlink()
    notes[1].write_text('{"question": "what"')
    whole = notes[2].with_suffix(".jpg").read_bytes()
    notes[2].with_suffix(".jpg").write_bytes(whole[: len(whole) // 2])
    notes[3].write_bytes('{"question": "quéstion", "options": ["a", "b"]}'.encode("latin-1"))
    data = json.loads(notes[4].read_text())
    notes[4].write_text(json.dumps({**data, "options": ["a", "a", "b"]}))
    (folder / "direct_attributes" / "lost.jpg").write_bytes(whole)
    loaded = benchmarks.load("vstar", folder=folder)
    reasons = {row.name: row.reason for row in loaded.bad}
    names = ["/".join(note.with_suffix("").parts[-2:]) for note in notes]
    assert set(reasons) == {*names[:5], "direct_attributes/lost"}
    assert "no picture" in reasons[names[0]]
    assert "JSON" in reasons[names[1]]
    assert "truncated" in reasons[names[2]]
    assert "not UTF-8" in reasons[names[3]]
    assert "2 times" in reasons[names[4]]
    assert len(loaded.samples) == N - 5


def test_broken_rows_of_hr_bench_are_named(written: Path, tmp_path: Path) -> None:
    file = _copy(written, "hr", tmp_path) / "hr_bench_4k.tsv"
    lines = file.read_bytes().rstrip(b"\n").split(b"\n")
    head, rows = lines[0], [line.split(b"\t") for line in lines[1:]]
    rows[0][2] = b"!" * 200
    picture = base64.b64decode(rows[1][2])
    rows[1][2] = base64.b64encode(picture[: len(picture) // 2])
    rows[2][7] = b"E"
    rows[3][1] = b"caf\xe9"
    rows[4] = rows[4][:5]
    rows[5][0], rows[5][9] = rows[6][0], rows[6][9]
    rows[7][2] = b""
    rows[8][1] = b'5" pipe'  # a quote inside a cell that isn't quoted is a quote
    rows[9][1] = b'"never closed'
    file.write_bytes(b"\n".join([head, *(b"\t".join(row) for row in rows)]) + b"\n")
    loaded = benchmarks.load("hr-bench-4k", folder=file.parent)
    reasons = {int(row.name.split("row ")[1].split()[0]): row.reason for row in loaded.bad}
    assert set(reasons) == {1, 2, 3, 4, 5, 7, 8, 10}
    assert "base64" in reasons[1]
    assert "truncated" in reasons[2]
    assert "none of A, B" in reasons[3]
    assert "not UTF-8" in reasons[4]
    assert "5 cells" in reasons[5]
    assert "too" in reasons[7]
    assert "no image" in reasons[8]
    assert "quotes" in reasons[10]
    assert len(loaded.samples) == len(rows) - 8
    assert any(sample.query.question == '5" pipe' for sample in loaded.samples)


def test_broken_rows_of_pope_are_named(written: Path, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    file = _copy(written, "pope", tmp_path) / "Full" / "adversarial-00000-of-00001.parquet"
    row = parquet.read_table(file).to_pylist()[0]
    data = row["image"]["bytes"]
    rows = [
        row,
        {**row, "question_id": "2", "answer": "maybe"},
        {**row, "question_id": "3", "image": {"bytes": data[: len(data) // 2], "path": None}},
        {**row, "question_id": "4", "image": {"bytes": None, "path": "lost.jpg"}},
        row,
        {**row, "question_id": "6", "question": "?" * 7},
    ]
    table = arrow.Table.from_pylist(rows)
    texts = [r["question"].encode() for r in rows]
    texts[5] = b"caf\xe9?"
    broken = arrow.array(texts, arrow.binary()).view(arrow.string())  # what a broken writer makes
    table = table.set_column(table.schema.get_field_index("question"), "question", broken)
    parquet.write_table(table, file)
    loaded = benchmarks.load("pope", folder=tmp_path / "pope", split="adversarial")
    reasons = {int(row.name.split("row ")[1]): row.reason for row in loaded.bad}
    assert set(reasons) == {2, 3, 4, 5, 6}
    assert "neither yes nor no" in reasons[2]
    assert "truncated" in reasons[3]
    assert "no image" in reasons[4]
    assert "too" in reasons[5]
    assert "not UTF-8" in reasons[6]
    assert len(loaded.samples) == 1


def test_broken_lines_of_jsonl_are_named(written: Path, tmp_path: Path) -> None:
    folder = _copy(written, "jsonl", tmp_path)
    picture = "images/00001_0.png"
    lines = [
        {"image": picture, "question": "q", "answer": "A", "choices": ["x", "y"]},
        {"image": picture, "question": "q", "answer": 3},
        {"image": "images/none.png", "question": "q", "answer": "x"},
        {"image": "../../secret.png", "question": "q", "answer": "x"},
        {"image": picture, "question": "q", "answer": "z", "choices": ["x", "y"]},
        {"image": picture, "question": "q"},
        {"image": picture, "question": " ", "answer": "x"},
        [1],
        {"id": "line-1", "image": picture, "question": "q", "answer": "x"},
        {"image": [picture, "images/00002_0.png"], "question": "q", "answer": True},
    ]
    text = "\n".join(json.dumps(line) for line in lines).encode()
    (folder / "questions.jsonl").write_bytes(text + b"\n\n{broken\n\xff\xfe\n")
    loaded = benchmarks.load(folder)
    assert [s.answer for s in loaded.samples] == ["x", "3", "yes"]
    assert len(loaded.samples[2].query.images) == 2
    reasons = {int(row.name.split("line ")[1]): row.reason for row in loaded.bad}
    assert set(reasons) == {3, 4, 5, 6, 7, 8, 9, 12, 13}
    assert "none.png" in reasons[3]
    assert "outside" in reasons[4]
    assert "0 times" in reasons[5]
    assert "UTF-8" in reasons[13]


def test_a_file_from_inside_its_folder_reads_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for place in ("../other.png", "own.png"):
        Image.new("RGB", (8, 8)).save(place)
    rows = [{"image": name, "question": "q", "answer": "a"} for name in ("../other.png", "own.png")]
    Path("q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = benchmarks.load("q.jsonl")
    assert [row.name for row in loaded.bad] == ["q.jsonl, line 1"]
    assert len(loaded.samples) == 1


def _questions(folder: Path, rows: list[dict | str]) -> Path:
    """A JSONL file of these rows, each about one picture unless it names another."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / "own.png")
    plain = {"image": "own.png", "question": "q?"}
    lines = [row if isinstance(row, str) else json.dumps(plain | row) for row in rows]
    path = folder / "q.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": float("nan")}, "NaN, which is no JSON"),
        ({"answer": float("inf")}, "Infinity, which is no JSON"),
        ({"answer": float("-inf")}, "-Infinity, which is no JSON"),
        ({"answer": "red", "choices": ["red", float("nan")]}, "NaN, which is no JSON"),
        ({"answer": "red", "id": float("nan")}, "NaN, which is no JSON"),
        ('{"image": "own.png", "question": "q?", "answer": 1e999}', "finite numbers"),
        ({"answer": "red", "category": 3.5}, "category is 3.5"),
        ({"answer": "red", "category": True}, "category is True"),
        ({"answer": "red", "category": ["a"]}, r"category is \['a'\]"),
        ({"answer": "red", "choices": False}, "choices is False"),
        ({"answer": "red", "choices": 0}, "choices is 0"),
        ({"answer": "red", "choices": {}}, "choices is {}"),
        ({"answer": "red", "choices": ""}, "choices is ''"),
        ({"answer": "red", "choices": "red|blue"}, "choices is 'red|blue'"),
        ({"answer": "red", "choices": ["red", None]}, "choices holds None"),
        ({"answer": "red", "id": 1.5}, "id is 1.5"),
        ({"answer": "red", "id": True}, "id is True"),
        ({"answer": "red", "id": [1]}, r"id is \[1\]"),
        ({"answer": "red", "id": {}}, "id is {}"),
        ({"answer": "red", "image": " "}, "image must be a path"),
        ({"answer": "red", "image": "https://x.test/1.png"}, "is an address.*download the pict"),
        ({"answer": "red", "image": " file:///x/1.png"}, "is an address"),
        ({"answer": "red", "image": "s3://x/1.png"}, "is an address"),
        ({"answer": "red", "image": "data:image/png;base64,iVBO"}, "written out as text"),
        ({"answer": "red", "image": "base64,iVBO"}, "written out as text"),
        ({"answer": "red", "image": "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAw"}, "written out as text"),
        ({"answer": True, "choices": ["red", "blue"]}, "'true' stands 0 times"),
        ({"answer": ["red"]}, "answer holds"),
        ({"answer": "red", "choices": ["red", " red."]}, "can't be told apart"),
        ({"answer": "red", "choices": ["blue", "green"]}, "'red' stands 0 times"),
        ({"answer": "E", "choices": ["blue", "green"]}, "'E' stands 0 times"),
        ({"answer": "A", "choices": ["B. blue", "A. red"]}, "may be the letter"),
        ({"answer": "A. red", "choices": ["A. red", "B. red"]}, "without their letters"),
    ],
)
def test_rows_that_could_mean_something_else_are_named(
    tmp_path: Path, row: dict | str, says: str
) -> None:
    loaded = benchmarks.load(_questions(tmp_path, [row, {"answer": "x"}]))
    assert [bad.name for bad in loaded.bad] == ["q.jsonl, line 1"]
    assert re.search(says, loaded.bad[0].reason)
    assert len(loaded.samples) == 1


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        (True, ["True", "False"], "True"),
        (False, ["True", "False"], "False"),
        (True, ["No", "Yes"], "Yes"),
        (False, ["No.", "Yes."], "No."),
        (True, [True, False], "yes"),
        ("True", [True, False], "yes"),
        ("false", ["Yes", "No", "Not sure"], "No"),
        (True, None, "yes"),
        (True, [], "yes"),
        (3, [2, 3], "3"),
        ("B", ["True", "False"], "False"),
    ],
)
def test_truth_values_are_the_option_that_says_so(
    tmp_path: Path, answer: object, choices: object, right: str
) -> None:
    rows = [{"answer": answer, "choices": choices, "id": None}]
    [sample] = benchmarks.load(_questions(tmp_path, rows)).samples
    assert sample.answer == right
    assert sample.query.id.endswith("line-1")


def test_categories_may_be_whole_numbers(tmp_path: Path) -> None:
    given = (3, "three", None, " ", " three ")
    rows = [{"answer": "x", "id": str(i), "category": c} for i, c in enumerate(given)]
    loaded = benchmarks.load(_questions(tmp_path, rows))
    assert [sample.kind for sample in loaded.samples] == ["3", "three", "all", "all", "three"]
    assert len(benchmarks.load(tmp_path / "q.jsonl", split="3").samples) == 1


def test_letters_of_their_own_are_taken_off_options(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "answer": "A. red", "choices": ["B. blue", "A. red"]},
        {"id": "2", "answer": "B", "choices": ["(A) red", "(B) blue"]},
        {"id": "3", "answer": "red", "choices": ["A) red", "B) blue"]},
        {"id": "4", "answer": "S (small)", "choices": ["S (small)", "M (medium)"]},
        {"id": "5", "answer": "x > y", "choices": ["x > y", "x < y"]},
        {"id": "6", "answer": "Red", "choices": ["red", "Red"]},
    ]
    loaded = benchmarks.load(_questions(tmp_path, rows))
    assert loaded.bad == ()
    answers = [sample.answer for sample in loaded.samples]
    assert answers == ["red", "blue", "red", "S (small)", "x > y", "Red"]
    for sample in loaded.samples:
        choices = sample.query.choices
        letter = chr(65 + choices.index(sample.answer))
        assert is_correct(sample.answer, sample.answer, choices)
        assert is_correct(f"({letter})", sample.answer, choices)


def test_options_that_are_letters_keep_their_places(tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "answer": "C", "choices": ["A", "B", "C", "D"][: 3 + i % 2]}
        for i in range(20)
    ]
    for sample in benchmarks.load(_questions(tmp_path, rows)).samples:
        assert sample.query.choices.index("C") == 2


@pytest.mark.parametrize("field", ["id", "question", "answer", "category"])
def test_half_a_character_anywhere_leaves_the_row_out(tmp_path: Path, field: str) -> None:
    """It could be read, and later on neither be tokenized nor written down."""
    good = {"id": "a", "question": "Which?", "answer": "x", "category": "c"}
    loaded = benchmarks.load(_questions(tmp_path, [good, {**good, "id": "b", field: "\ud800x"}]))
    assert [entry.id for entry in loaded.samples.entries] == ["a"]
    [line] = loaded.left_out()
    assert "line 2" in line and "half a character" in line


def test_many_bad_rows_are_summed_up(tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    rows: list[dict | str] = [
        {"image": f"../beside/{i}.png", "answer": "x", "id": str(i)} for i in range(300)
    ]
    loaded = benchmarks.load(_questions(tmp_path / "in", [*rows, {"answer": "x", "category": 0.5}]))
    lines = loaded.left_out()
    assert len(lines) == 2
    assert lines[0].startswith("300 rows: image '../beside/0.png' lies outside")
    assert lines[0].endswith("(first: q.jsonl, line 1)")
    with pytest.raises(
        InputError, match="no usable samples: 301 of 301 left out, because 300 rows"
    ):
        loaded.check()
    many = tuple(BadRow(f"line {i}", "because of " + "abcdefgh"[i]) for i in range(8))
    assert len(Loaded(loaded.samples, many).left_out(3)) == 3
    assert Loaded(loaded.samples, many).left_out(3)[-1] == "6 rows for 6 other reasons"


def test_limits_hold_and_can_be_raised(tmp_path: Path) -> None:
    query = Query("What colour?", (Image.new("RGB", (300, 200), "red"),), ("red", "blue"))
    benchmarks.write("hr-bench-8k", [SceneItem(query, "red", "colour")], tmp_path)
    tight = benchmarks.load(tmp_path, limits=ImageLimits(max_pixels=50_000))
    assert len(tight.samples) == 0
    assert len(tight.bad) == 2
    assert "max_pixels=50000" in tight.bad[0].reason
    assert len(benchmarks.load(tmp_path, limits=ImageLimits(max_pixels=60_000)).samples) == 2


def test_hr_bench_reads_what_pandas_writes(tmp_path: Path) -> None:
    """Quoted cells with tabs, quotes and line ends, other columns, a picture named by index."""
    encoded = io.BytesIO()
    Image.new("RGB", (32, 32), "blue").save(encoded, "PNG")
    picture = base64.b64encode(encoded.getvalue()).decode()
    question = 'What does the\nsign\tsay: "stop"\nor\n"go"?'
    with (tmp_path / "hr_bench_8k.tsv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\r\n")
        columns = "hint question A B C D answer category image index".split()
        table.writerow(columns)
        table.writerow(["", question, "stop", 'go "now"', "", "", "b", "single", picture, 7])
        table.writerow(["x", "And this?", "1", "2", "3", "4", "D", "cross", "7", 8])
        table.writerow(["x", "And this?", "1", "2", "3", "4", "D", "cross", "99", 9])
    loaded = benchmarks.load(tmp_path)
    first, second = loaded.samples
    assert first.query.question == question
    assert (first.answer, first.kind, first.query.id) == ('go "now"', "single", "7")
    assert second.image_key == first.image_key
    assert second.query.images[0].getpixel((0, 0)) == (0, 0, 255)
    assert [row.reason for row in loaded.bad] == ["its image names row '99', which has none"]


cells = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=12
)


@settings(max_examples=60)
@given(st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=5))
def test_the_tsv_reader_agrees_with_the_csv_module(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([*"abc"] for _ in range(1))
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows(rows)
    file = io.BytesIO(text.getvalue().encode())
    head = _tsv.cells_of(file.readline(), 0)
    assert head is not None
    found = []
    for offset, record in _tsv.records(file, 3):
        parsed = _tsv.cells_of(record, offset)
        assert parsed is not None
        found.append([cell.decode() for cell, _ in parsed])
    assert found == rows


def test_the_scenes_are_drawn_as_they_are_asked_for() -> None:
    loaded = benchmarks.load("scenes", limit=3, seed=5)
    originals = list(items("heldout", 3))
    for sample, item in zip(loaded.samples, originals, strict=True):
        assert sample.query.question == item.query.question
        assert images.fingerprint(sample.query.images[0]) == images.fingerprint(
            item.query.images[0]
        )
        assert sorted(sample.query.choices) == sorted(item.query.choices)
    assert len(benchmarks.load("scenes").samples) == 200


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"name_or_path": "vstar"}, "folder="),
        ({"name_or_path": "nothing"}, "neither a benchmark"),
        ({"name_or_path": "nothing", "folder": "."}, "no benchmark"),
        ({"name_or_path": "vstar", "folder": "not-there"}, "isn't there"),
        ({"name_or_path": "scenes", "folder": "."}, "leave folder out"),
        ({"name_or_path": "scenes", "split": "test"}, "heldout"),
        ({"name_or_path": "scenes", "limit": 0}, "limit=0"),
    ],
)
def test_what_cannot_be_loaded_says_why(how: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        benchmarks.load(**how)


def test_empty_and_foreign_folders_say_why(tmp_path: Path, written: Path) -> None:
    for name in ("vstar", "pope", "jsonl", "hr-bench-4k"):
        with pytest.raises(InputError):
            benchmarks.load(name, folder=tmp_path)
    with pytest.raises(InputError, match="no rows"):
        benchmarks.load("pope", folder=written / "pope", split="unheard")
    (tmp_path / "hr_bench_4k.tsv").write_text("question\timage\n")
    with pytest.raises(InputError, match="no column A, B, answer"):
        benchmarks.load(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="can't be read as parquet"):
        benchmarks.load("pope", folder=tmp_path)


def test_what_does_not_fit_a_layout_is_refused(tmp_path: Path, yes_no) -> None:
    for name in ("vstar", "hr-bench-4k"):
        with pytest.raises(InputError, match="among"):
            benchmarks.write(name, yes_no, tmp_path)
    pytest.importorskip("pyarrow")
    odd = SceneItem(Query("What?", (Image.new("RGB", (8, 8)),)), "red", "colour")
    with pytest.raises(InputError, match="yes-or-no"):
        benchmarks.write("pope", [odd], tmp_path)
    with pytest.raises(InputError, match="no layout"):
        benchmarks.write("coco", [], tmp_path)


def _listed(keys: list[int]) -> Samples:
    return Samples(
        [
            Entry(str(i), "q", (), "a", "k", f"{key:04x}", "made", (Path("x.png"),))
            for i, key in enumerate(keys)
        ]
    )


@given(st.lists(st.integers(0, 12), max_size=60), st.floats(0, 1), st.integers(0, 3))
def test_no_image_is_on_both_sides_of_a_split(keys: list[int], share: float, seed: int) -> None:
    samples = _listed(keys)
    parts = benchmarks.split(samples, share, seed)
    left, right = ([e for e in part.entries] for part in parts)
    assert not {e.image_key for e in left} & {e.image_key for e in right}
    assert sorted([*left, *right], key=lambda e: int(e.id)) == list(samples.entries)
    again = benchmarks.split(samples, share, seed)
    assert [part.entries for part in again] == [part.entries for part in parts]
    largest = max(Counter(keys).values(), default=0)
    assert abs(len(left) - share * len(keys)) <= largest


def test_splits_differ_by_seed_and_hold_their_share() -> None:
    samples = _listed([i // 2 for i in range(400)])
    first, second = (benchmarks.split(samples, 0.3, seed)[0] for seed in (0, 1))
    assert len(first) == len(second) == 120
    assert first.entries != second.entries
    with pytest.raises(InputError, match="between 0 and 1"):
        benchmarks.split(samples, 1.5)
