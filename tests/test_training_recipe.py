"""A recipe trains the pair that reasons by one command, stage after stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from speceyes import tiny
from speceyes.errors import ConfigError
from speceyes.models.hf import HFModel
from speceyes.strategies import TransferRule, questions
from speceyes.tiny import puzzles
from speceyes.tiny.training import reasoning, recipe
from speceyes.types import Sampling

SHORT = {
    "drafter": {"steps": 1, "easy": 1, "scenes": 1},
    "small": {"steps": 1, "scenes": 1, "looked": 4},
    "large": {"steps": 1, "scenes": 1, "looked": 4},
}


def shortened(told: dict[str, Any]) -> dict[str, Any]:
    """The bundled recipe with a step a stage, and no report, which needs models that reason."""
    return {"stage": [{**stage, **SHORT[stage["name"]]} for stage in told["stage"]]}


def test_the_bundled_recipe_runs_from_nothing_to_models_that_load(tmp_path: Path) -> None:
    told = recipe.load(recipe.RECIPE)
    assert [stage["name"] for stage in told["stage"]] == ["drafter", "small", "large"]
    assert "start" not in told["stage"][0], "the first stage begins with nothing"
    out = tmp_path / "runs"
    recipe.run(shortened(told), out, threads=1)
    facts = {name: json.loads((out / name / "facts.json").read_text("utf-8")) for name in SHORT}
    assert [facts[name]["steps"] for name in SHORT] == [1, 1, 1]
    assert facts["large"]["layers"] == reasoning.LAYERS > facts["small"]["layers"]
    [item] = puzzles.questions("heldout", 1)
    for name in SHORT:
        model = HFModel.from_pretrained(out / name / "model")
        [said] = model.generate([questions.short(item.query)], Sampling(max_tokens=2))
        assert said.error is None
    # What has ended isn't run again; another recipe isn't mixed into the same folder.
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != "recipe.json"}
    recipe.run(shortened(told), out, threads=1)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != "recipe.json"} == before
    with pytest.raises(ConfigError, match="another recipe"):
        recipe.run(told, out)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stage = 3 4", "is no recipe"),
        ("", "has no"),
        ("[other]\na = 1", "a recipe has"),
        ("[[stage]]\nname = 'a'", "a stage without"),
        ("[[stage]]\nname = 'a'\ntrainer = 'b'\nmodel = 'small'", "trainer='b'"),
        ("[[stage]]\nname = 'a'\ntrainer = 'train'\nmodel = 'small'\nlooked = 3", "'looked'"),
        ("[[stage]]\nname = '../a'\ntrainer = 'train'\nmodel = 'small'", "name='../a'"),
        ("[[stage]]\nname = 'a'\ntrainer = 'train'\nmodel = 'small'\nstart = 'b'", "not yet made"),
        (
            "[report]\nlarge = 'b'\nsmall = 'a'\ncalibration = 40\ntranscripts = 1\n"
            "[[stage]]\nname = 'a'\ntrainer = 'train'\nmodel = 'small'",
            r"names \['b'\]",
        ),
    ],
)
def test_recipes_that_are_none(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        recipe.load(path)


@pytest.mark.exhaustive  # the stages before its end are run above
def test_a_recipe_ends_with_settings_and_transcripts(tmp_path: Path) -> None:
    """Stages that have ended aren't run again: the bundled pair stands for what they made."""
    told = recipe.load(recipe.RECIPE)
    told = {**told, "report": {**told["report"], "calibration": 30, "transcripts": 1}}
    made = {
        "drafter": tiny.SMALL,
        "small": tiny.REASONER_SMALL,
        "large": tiny.REASONER_LARGE,
    }
    for name, weights in made.items():
        shutil.copytree(weights, tmp_path / name / "model")
        (tmp_path / name / "facts.json").write_text("{}\n", encoding="utf-8")
    recipe.run(told, tmp_path)
    chosen = json.loads((tmp_path / "report" / "settings.json").read_text("utf-8"))
    assert chosen.keys() == tiny.reasoner_settings().keys()
    assert chosen["place"] == "turn" and -1 < chosen["credible"] < 0
    assert TransferRule.from_dict(chosen["rule"]).reasons
    text = (tmp_path / "report" / "transcripts.md").read_text("utf-8")
    assert text.count("### ") == 1 and "| kept, 50 % by attention |" in text
    assert (tmp_path / "report" / "puzzle-1.png").exists()
