"""A run's records that were damaged or edited are noticed, and a folder that can't be written is
found at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speceyes.agent.outcome import trajectory_of
from speceyes.cli import main
from speceyes.errors import ConfigError, InputError
from speceyes.evaluation.runs import (
    PICTURES,
    RECORDS,
    TEST,
    Block,
    Record,
    Writer,
    check_folder,
    read,
)
from speceyes.types import Result

FIXED = {"plan": {"arms": ["agent"]}}


def _record(number: int, arm: str) -> Record:
    return Record(
        TEST, number, arm, "set", "kind", "Which?", ("a", "b"), "a", False, 0.5,
        Result(f"q{number}", "b", "agent"),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of three rounds with two records each."""
    with Writer(tmp_path / "run", FIXED) as writer:
        for number in range(3):
            records = [_record(number, "agent"), _record(number, "agent")]
            writer.block(Block(TEST, number, "agent", 1.0, 2), records, [{"at": number}])
    return tmp_path / "run"


def _edit(folder: Path, change: Callable[[list[str]], object], name: str = RECORDS) -> None:
    lines = (folder / name).read_text().splitlines(keepends=True)
    change(lines)
    (folder / name).write_text("".join(lines))


def test_a_run_that_nobody_touched_is_read(folder: Path) -> None:
    found = read(folder)
    assert len(found.records) == 6 and [block.round for block in found.blocks] == [0, 1, 2]
    with Writer(folder, FIXED) as writer:
        writer.block(Block(TEST, 3, "agent", 1.0, 0), [])
    assert len(read(folder).blocks) == 4


DAMAGE: dict[str, Callable[[list[str]], object]] = {
    "a grade": lambda t: t.__setitem__(0, t[0].replace('"correct":false', '"correct":true')),
    "a later grade": lambda t: t.__setitem__(7, t[7].replace('"correct":false', '"correct":true')),
    "an answer": lambda t: t.__setitem__(3, t[3].replace('"answer":"b"', '"answer":"a"')),
    "the right answer": lambda t: t.__setitem__(1, t[1].replace('"gold":"a"', '"gold":"b"')),
    "seconds": lambda t: t.__setitem__(0, t[0].replace('"seconds":0.5', '"seconds":0.1')),
    "a wall clock": lambda t: t.__setitem__(2, t[2].replace('"wall":1.0', '"wall":0.1')),
    "a blank": lambda t: t.__setitem__(0, t[0].replace('"gold":', '"gold": ')),
    "no JSON": lambda t: t.__setitem__(0, "nonsense\n"),
    "an empty line": lambda t: t.insert(1, "\n"),
    "half a line, ended": lambda t: t.__setitem__(4, t[4][:40] + "\n"),
    "null bytes": lambda t: t.__setitem__(1, "\0" * 50 + "\n"),
    "a list": lambda t: t.__setitem__(0, "[1]\n"),
    "a number": lambda t: t.__setitem__(0, "7\n"),
    "deep nesting": lambda t: t.__setitem__(0, "[" * 100_000 + "\n"),
    "a record gone": lambda t: t.pop(0),
    "a record twice": lambda t: t.insert(0, t[0]),
    "a block gone": lambda t: t.__delitem__(slice(0, 3)),
    "two blocks in another order": lambda t: t.__setitem__(slice(0, 6), t[3:6] + t[0:3]),
    "an end without its block": lambda t: t.__setitem__(2, '{"done":{}}\n'),
    "an end of another kind": lambda t: t.__setitem__(2, '{"done":7,"pictures":0}\n'),
    "an end with texts": lambda t: t.__setitem__(2, t[2].replace('"n":2', '"n":"2"')),
    "an end without a checksum": lambda t: t.__setitem__(8, re.sub(r',"sha256":"\w+"', "", t[8])),
    "another checksum": lambda t: t.__setitem__(2, re.sub(r'"sha256":"\w', '"sha256":"x', t[2])),
    "an end without pictures": lambda t: t.__setitem__(2, t[2].replace('"pictures"', '"p"')),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_and_nothing_is_made_of_it(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / RECORDS).read_text()
    _edit(folder, DAMAGE[damage])
    assert (folder / RECORDS).read_text() != before
    with pytest.raises(InputError, match=r"damaged or changed.*(line|block)"):
        read(folder)
    with pytest.raises(InputError, match="damaged or changed"):
        Writer(folder, FIXED)
    for command in ("report", "calibrate"):
        assert main([command, str(folder)]) != 0
        said = capsys.readouterr().err
        assert "damaged or changed" in said and "Traceback" not in said


@pytest.mark.parametrize("end", ["", '{"torn', "no JSON\n", "\0\0\n", '{"phase":"test"}\n'])
def test_what_a_kill_leaves_at_the_end_is_cut_off(end: str, folder: Path) -> None:
    with (folder / RECORDS).open("a") as file:
        file.write(end)
    assert len(read(folder).records) == 6
    with Writer(folder, FIXED) as writer:
        writer.block(Block(TEST, 3, "agent", 1.0, 1), [_record(3, "agent")])
    assert len(read(folder).records) == 7


def test_runs_of_before_there_were_checksums_are_read_and_go_on(folder: Path) -> None:
    _edit(
        folder, lambda t: t.__setitem__(slice(None), [re.sub(r',"sha256":"\w+"', "", x) for x in t])
    )
    assert len(read(folder).records) == 6
    with Writer(folder, FIXED) as writer:
        writer.block(Block(TEST, 3, "agent", 1.0, 1), [_record(3, "agent")])
    assert len(read(folder).records) == 7
    assert "sha256" not in (folder / RECORDS).read_text()


def test_a_damaged_picture_is_named(folder: Path) -> None:
    _edit(folder, lambda t: t.__setitem__(1, "{\n"), PICTURES)
    with pytest.raises(InputError, match=r"pictures\.jsonl was damaged: line 2"):
        list(read(folder).pictures())


# --- where to write -------------------------------------------------------------------------------


def _eval(folder: Path) -> list[str]:
    """A command whose models aren't there: an error about them means that they were looked for."""
    models = ["--large", "/no/such/model", "--small", "/no/such/model"]
    return ["eval", "scenes", "--limit", "4", *models, "--out", str(folder)]


def test_a_folder_that_is_being_written_is_found_before_models_load(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Writer(folder, FIXED), pytest.raises(ConfigError, match="another run writes"):
        check_folder(folder)
    with Writer(folder, FIXED):
        assert main(_eval(folder)) != 0
    said = capsys.readouterr().err
    assert "another run writes" in said and "/no/such/model" not in said


def test_a_place_that_is_no_folder_is_found_before_models_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        assert main(_eval(place)) != 0
        said = capsys.readouterr().err
        assert "can't be written" in said and "/no/such/model" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_found_before_models_load(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="can't be written"):
        check_folder(tmp_path / "run")


def test_a_check_leaves_the_folder_to_the_run(tmp_path: Path) -> None:
    check_folder(tmp_path / "run")
    with Writer(tmp_path / "run", FIXED) as writer:
        writer.block(Block(TEST, 0, "agent", 1.0, 1), [_record(0, "agent")])
    last = (tmp_path / "run" / RECORDS).read_text().splitlines()[-1]
    assert len(json.loads(last)["sha256"]) == 64


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no plan": lambda m: m["fixed"].pop("plan"),
    "a plan that is none": lambda m: m["fixed"].update(plan="x"),
    "a plan without its threshold": lambda m: m["fixed"]["plan"].pop("threshold"),
    "no context": lambda m: m["fixed"].update(context=None),
    "no benchmark": lambda m: m["fixed"].pop("benchmark"),
    "another run": lambda m: m.update(fixed={}),
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_manifest_that_was_changed_is_told(
    change: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    said["fixed"] = {
        "plan": {"arms": [], "seed": 0, "batch_size": 1, "threshold": 0.5, "sweep_batch": []},
        "benchmark": {"name": "x", "bad": [], "parity": False},
        "models": {},
        "context": {"top_k": 8},
    }
    MANIFESTS[change](said)
    (folder / "manifest.json").write_text(json.dumps(said))
    assert main(["report", str(folder)]) == 2
    told = capsys.readouterr().err
    assert "manifest.json was damaged or changed" in told and "Traceback" not in told


@pytest.mark.parametrize("text", ["", "\0", "[]", "null", "7", "{}", "[" * 100_000, '{"fixed'])
def test_what_is_no_manifest_is_told(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "manifest.json").write_text(text)
    for command in ("report", "calibrate"):
        assert main([command, str(folder)]) == 2
        assert "is no manifest of a run" in capsys.readouterr().err


def test_a_folder_of_tune_is_not_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    said["fixed"]["tune"] = True
    (folder / "manifest.json").write_text(json.dumps(said))
    assert main(["report", str(folder)]) == 2
    assert "was written by speceyes tune" in capsys.readouterr().err


@pytest.mark.parametrize("line", [b"[1]\n", b"7\n", b"null\n", b'{"a": "\xe9"}\n', b"{\n"])
def test_pictures_of_another_kind_are_told(line: bytes, folder: Path) -> None:
    with (folder / PICTURES).open("ab") as file:
        file.write(line)
    with pytest.raises(InputError, match=r"pictures.jsonl was damaged: line 4"):
        list(read(folder).pictures())


def test_an_answer_that_no_encoding_takes_is_written_and_read(tmp_path: Path) -> None:
    said = Result("q", "\ud83d half", "agent")
    assert Result.from_json(said.to_json()) == said and said.to_json().encode()
    record = Record(
        TEST, 0, "agent", "set", "kind", "Which?", (), "a", False, 0.5, said
    )  # fmt: skip
    with Writer(tmp_path / "run", FIXED) as writer:
        writer.block(Block(TEST, 0, "agent", 1.0, 1), [record])
    assert read(tmp_path / "run").records[0].result.answer == "\ud83d half"


@pytest.mark.parametrize(
    "said", ["\ud83d half", {"answer": "half \udc00"}, Result("q", "a\ud800b", "agent")]
)
def test_an_agents_answer_can_be_encoded(said: object) -> None:
    answer = trajectory_of(said).answer
    assert answer is not None and "?" in answer and answer.encode()
