"""Trains models by a recipe, a file of stages: `python -m speceyes.tiny.training.recipe --out DIR`.

The recipe that comes with the package (`reasoner.toml`) trains the pair that reasons from nothing:
the drafter, the small model, the large one, then heads, rule and transcripts. Each stage is a run
of a trainer in a folder of its own, which goes on from its last checkpoint; a stage that has ended
isn't run again, so the same command continues what was stopped.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from speceyes.errors import ConfigError
from speceyes.tiny.training import reasoning, reasoning_report, train

RECIPE: Final = Path(__file__).with_name("reasoner.toml")
TRAINERS: Final[Mapping[str, Callable[[list[str]], None]]] = {
    "train": train.main,
    "reasoning": reasoning.main,
}
_OPTIONS: Final = {
    "train": {"steps", "scenes", "lr", "seed", "warm", "easy"},
    "reasoning": {"steps", "scenes", "lr", "seed", "looked"},
}
_NAMED: Final = {"name", "trainer", "model"}


def load(path: Path) -> dict[str, Any]:
    """A recipe: "stage", a list of tables, and "report", a table that may be left out.

    Raises:
        ConfigError: It can't be read, or a stage is none.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} is no recipe: {exc}") from exc
    if unknown := told.keys() - {"stage", "report"}:
        raise ConfigError(f"{path}: {sorted(unknown)}; a recipe has [[stage]] and [report]")
    before: list[str] = []
    for stage in told.get("stage", ()):
        _check(path, stage, before)
        before.append(stage["name"])
    if not before:
        raise ConfigError(f"{path} has no [[stage]]")
    if report := told.get("report"):
        if report.keys() != {"large", "small", "calibration", "transcripts"}:
            raise ConfigError(f"{path}: [report] needs large, small, calibration and transcripts")
        if missing := [report[r] for r in ("large", "small") if report[r] not in before]:
            raise ConfigError(f"{path}: [report] names {missing}; there are {before}")
    return told


def _check(path: Path, stage: Mapping[str, Any], before: Sequence[str]) -> None:
    if missing := _NAMED - stage.keys():
        raise ConfigError(f"{path}: a stage without {sorted(missing)}")
    name, trainer = stage["name"], stage["trainer"]
    if trainer not in TRAINERS:
        raise ConfigError(f"{path}: trainer={trainer!r}; it must be one of {list(TRAINERS)}")
    if unknown := stage.keys() - _NAMED - {"start"} - _OPTIONS[trainer]:
        raise ConfigError(
            f"{path}: stage {name!r} has {sorted(unknown)}; allowed are {sorted(_OPTIONS[trainer])}"
        )
    if not (isinstance(name, str) and name.isidentifier()) or name in before:
        raise ConfigError(f"{path}: name={name!r}; each stage needs a name of its own, as a word")
    if "start" in stage and stage["start"] not in before:
        raise ConfigError(f"{path}: stage {name!r} starts from {stage['start']!r}, not yet made")


def run(recipe: Mapping[str, Any], out: Path, *, threads: int = 0) -> None:
    """Runs what of a recipe hasn't ended in `out`.

    Args:
        recipe: See `load`.
        out: Holds a folder for each stage, with its model, log and facts, and "report".
        threads: CPU threads; 0 means all.

    Raises:
        ConfigError: `out` holds runs of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    told, kept = json.dumps(recipe, indent=1) + "\n", out / "recipe.json"
    if kept.exists() and kept.read_text(encoding="utf-8") != told:
        raise ConfigError(f"{out} holds runs of another recipe ({kept}): use another folder")
    kept.write_text(told, encoding="utf-8")
    for stage in recipe["stage"]:
        folder = out / stage["name"]
        if (folder / "facts.json").exists():
            continue
        words = [stage["model"], "--out", str(folder), "--threads", str(threads)]
        if "start" in stage:
            words += ["--start", str(out / stage["start"] / "model")]
        for option in sorted(stage.keys() & _OPTIONS[stage["trainer"]]):
            words += [f"--{option}", str(stage[option])]
        TRAINERS[stage["trainer"]](words)
    if "report" in recipe and not (out / "report" / "transcripts.md").exists():
        words = ["--out", str(out / "report")]
        for role in ("large", "small"):
            words += [f"--{role}", str(out / recipe["report"][role] / "model")]
        for option in ("calibration", "transcripts"):
            words += [f"--{option}", str(recipe["report"][option])]
        reasoning_report.main(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.recipe", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: the pair's own")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all")
    options = parser.parse_args(argv)
    run(load(options.recipe), options.out, threads=options.threads)


if __name__ == "__main__":
    main()
