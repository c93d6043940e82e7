"""`speceyes tune` with drafts that judge and with ladders, and the settings that it writes then."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speceyes import SpecPipeline, tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.calibration import Scoring, calibrate
from speceyes.calibration.many import choosing_rows
from speceyes.cli import main
from speceyes.errors import ConfigError
from speceyes.evaluation.prices import Price, Prices, Usage
from speceyes.gates.span import AnswerSpanGate
from speceyes.judge import behind_ladder
from speceyes.models.hf import HFModel
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import DraftConfig, JudgeConfig, Rung
from speceyes.pipeline.model_settings import GateSettings, ModelSettings
from speceyes.pipeline.settings import FunnelSettings
from speceyes.scoring.scales import to_raw
from speceyes.tuning.candidates import Candidate, grid
from speceyes.tuning.choice import Choice, choose, spent_seconds, tried
from speceyes.tuning.ladders import with_ladders
from speceyes.tuning.observed import Drafted, Observed, Spent
from speceyes.types import Completion

weights = pytest.mark.skipif(not tiny.LARGE.is_dir(), reason="the weights are not here")
N = 900
PRICES = Prices(Price(2.0, 8.0, 0.5), Price(0.1, 0.4))


def _drafts(margin: Any, wrong: Any, seconds: float, texts: Any = None) -> Drafted:
    rows = tuple(np.array([[0.0, -m + 0.5, -m - 0.5]], np.float32) for m in margin)
    said = tuple(
        Completion("red" if texts is None else texts[at], (), finish="stop")
        for at in range(len(rows))
    )
    spent = Spent(np.full(len(rows), seconds), (Usage(100, 0, 2),) * len(rows))
    return Drafted(said, rows, ~wrong, wrong, spent)


def seen(seed: int, *, n: int = N) -> Observed:
    """Queries of which the easy half is seen on few pixels, at a fifth of a draft's cost; three in
    four of the others are seen on all pixels.
    """
    random = np.random.default_rng(seed)
    easy = random.random(n) < 0.5
    clear = easy | (random.random(n) < 0.75)
    low = _drafts(np.where(easy, 30, 3) + random.random(n), ~easy & (random.random(n) < 0.8), 0.04)
    full = _drafts(
        np.where(clear, 30, 3) + random.random(n), ~clear & (random.random(n) < 0.8), 0.2
    )
    texts = np.where(clear, "red", "Look closer.")
    looks = _drafts(30 + random.random(n), ~clear, 0.2, texts)
    return Observed(
        tuple(map(str, range(n))),
        tuple((str(at),) for at in range(n)),
        np.arange(n) // 20,
        np.ones(n, dtype=bool),
        Spent(random.gamma(4, 0.25, n), (Usage(1000, 0, 100),) * n),
        {},
        {None: full, 64: low},
        looks={None: looks},
    )


def wrong(drafts: Drafted) -> Any:
    return ~drafts.right


def chosen(found: Observed, candidates: list[Candidate], *, seed: int = 0) -> Choice:
    return choose(
        found,
        candidates,
        lambda one: Scoring("small", str(one.draft), top_k=3, aggregate=one.aggregate),
        lambda one: behind_ladder(one.judge, [] if one.rung is None else [one.rung]),
        lambda one: found.answering(one, wrong),
        seed=seed,
        target=0.05,
        prices=PRICES,
    )


def laddered(found: Observed, judges: list[str], *, seed: int = 0) -> list[Candidate]:
    plain = grid(judges, [None, 64], [3], aggregates=["min"])
    chose = choosing_rows(len(found), list(found.image_keys), seed)
    return with_ladders(found, plain, wrong, chose, 0.05)


def test_a_ladder_is_chosen_where_few_pixels_do_for_half_of_the_queries() -> None:
    found = seen(1)
    candidates = laddered(found, ["none"])
    rungs = [one for one in candidates if one.rung is not None]
    assert rungs and all(one.rung[0] == 64 and one.draft_pixels is None for one in rungs)  # type: ignore[index]
    made = chosen(found, candidates)
    best = made.best
    assert made.on and best.candidate.rung is not None
    # By hand: every query is drafted on few pixels, half of them on all, an eighth goes on.
    assert best.time.funnel == pytest.approx(0.04 + 0.5 * 0.2 + 0.125, abs=0.06)
    assert best.accepted == pytest.approx(0.875, abs=0.05) and best.bad <= 0.05
    with_full = [row for row in made.table if row.candidate.rung is None]
    assert best.time.gain > max(row.time.gain for row in with_full)
    assert best.costs["c_draft"] == pytest.approx(0.04 + 0.5 * 0.2, abs=0.02)
    draft = (100 * 0.1 + 2 * 0.4) / 1e6
    spent = best.money
    assert spent is not None
    whole = (1 + 0.5) * draft + (1 - best.accepted) * spent.agent
    assert spent.funnel == pytest.approx(whole, rel=0.05)


def test_what_a_ladder_answers_is_what_its_certificate_counts() -> None:
    found = seen(2)
    one = next(c for c in laddered(found, ["none"]) if c.rung is not None)
    assert one.rung is not None
    made = chosen(found, [one]).best
    threshold = made.calibration.threshold
    assert threshold is not None
    low = found.scores(dataclasses.replace(one, draft_pixels=64, rung=None))
    full = found.scores(dataclasses.replace(one, rung=None))
    by_low = low >= to_raw(one.rung[1], log=False)
    by_full = ~by_low & (full >= to_raw(threshold, log=False))
    on = ~choosing_rows(len(found), list(found.image_keys), 0)
    bad = np.where(by_low, ~found.drafts[64].right, ~found.drafts[None].right)
    taken = (by_low | by_full) & on
    assert made.accepted == pytest.approx(taken.sum() / on.sum())
    assert made.bad == pytest.approx(bad[taken].mean())
    seconds = spent_seconds(found, one, found.through(one), by_low | by_full)
    by_hand = 0.04 + 0.2 * ~by_low + found.agent.seconds * ~(by_low | by_full)
    assert seconds == pytest.approx(by_hand)


def test_rungs_are_chosen_without_a_look_at_the_rows_that_certify() -> None:
    found, other = seen(3), seen(3)
    chose = choosing_rows(len(found), list(found.image_keys), 0)
    spoiled = np.where(chose, found.drafts[64].right, ~found.drafts[64].right)
    low = dataclasses.replace(found.drafts[64], right=spoiled)
    other = dataclasses.replace(found, drafts={**found.drafts, 64: low})
    assert laddered(found, ["none"]) == laddered(other, ["none"])


def test_ladders_keep_the_promise_where_drafts_are_wrong_whatever_they_score() -> None:
    broken, runs = 0, 30
    for seed in range(runs):
        random = np.random.default_rng(seed)
        n = 200
        found = seen(seed, n=n)
        # The rung's scores say nothing: a fifth of the drafts are wrong.
        noise = {
            at: _drafts(random.gamma(4, 2, n), random.random(n) < 0.2, 0.1) for at in (None, 64)
        }
        found = dataclasses.replace(found, drafts=noise)
        candidates = laddered(found, ["none"], seed=seed)
        broken += chosen(found, candidates, seed=seed).best.calibration.certified
    assert broken < 8, broken  # one in ten may fail


def test_a_draft_that_judges_costs_every_query_a_draft_and_keeps_what_it_asks_to_look_at() -> None:
    found = seen(4)
    one = grid(["draft"], [None], [3], aggregates=["min"])[0]
    through = found.through(one)
    clear = np.array([d is not None and d.text == "red" for d in found.looks[None].drafts])
    assert through.tolist() == clear.tolist()
    made = chosen(found, [one])
    best = made.best
    assert best.candidate.judge_words == "draft" and best.beta == pytest.approx(0.875, abs=0.05)
    assert best.costs["c_judge"] == pytest.approx(0.2) and best.costs["c_draft"] == 0.0
    by_hand = 0.2 + found.agent.seconds * ~(through & (found.scores(one) >= -1e9))
    got = spent_seconds(found, one, through, through)
    assert got == pytest.approx(by_hand)
    told = tried(
        found, one, best.calibration, ~found.looks[None].right, np.ones(N, bool), PRICES, quick=True
    )
    assert told.money is not None and told.money.funnel > 10.8e-6
    assert laddered(found, ["draft"]) == grid(["draft"], [None, 64], [3], aggregates=["min"])


# --- settings -----------------------------------------------------------------------------------

LARGE = ScriptedModel("<answer>blue</answer>", name="large")
SMALL = ScriptedModel({"plate": "look closer", "": "red"}, name="small", margin=12.0)


def settings(**more: Any) -> FunnelSettings:
    return FunnelSettings(
        **{
            "large": ModelSettings.of(LARGE, "large"),
            "small": ModelSettings.of(SMALL, "small"),
            "gate": GateSettings(0.5, 8),
            "judge": JudgeConfig(None),
            **more,
        }
    )


def test_a_ladder_comes_back_as_it_was_written_and_is_climbed(tmp_path: Path) -> None:
    one = settings(draft=DraftConfig(ladder=(Rung(900, 0.25), Rung(2500))))
    one.save(tmp_path / "settings.json")
    back = FunnelSettings.load(tmp_path / "settings.json")
    assert back == one
    parts = back.parts(LARGE, SMALL)
    assert [(a.max_pixels, g.threshold) for a, g in parts.ladder] == [(900, 0.25), (2500, 0.5)]  # type: ignore[attr-defined]
    assert "ladder" not in json.loads(settings().to_json())["draft"]


@pytest.mark.parametrize(
    ("ladder", "said"),
    [
        ("900", "draft.ladder='900'; it must be a list"),
        ([900], r"draft.ladder\[0\]=900; it must be an object"),
        ([{"max_pixels": True}], r"draft.ladder\[0\].max_pixels=True"),
        ([{"max_pixels": 900, "threshold": 2}], r"draft.ladder\[0\].threshold=2"),
        ([{"max_pixels": 900, "pixels": 2}], "unknown pixels"),
        ([{"max_pixels": 900}, {"max_pixels": 100}], "more pixels than the one before"),
        ([{"threshold": 0.5}], r"max_pixels=None"),
    ],
)
def test_a_wrong_ladder_is_refused_by_its_name(ladder: Any, said: str) -> None:
    data = json.loads(settings().to_json())
    data["draft"]["ladder"] = ladder
    with pytest.raises(ConfigError, match=said):
        FunnelSettings.from_json(json.dumps(data))


def test_a_certificate_of_a_ladder_holds_for_that_ladder_alone() -> None:
    hashed = SpeculativeAnswerer(SMALL).prompt_hash
    judge = behind_ladder("none", [(900, 0.25)])
    made = calibrate([9.0] * 60, [0] * 60, Scoring("small", hashed, top_k=8), judge=judge)
    gate = GateSettings(made.threshold or 0.0, 8, calibration=made)
    there = settings(gate=gate, draft=DraftConfig(ladder=(Rung(900, 0.25),)))
    assert len(there.parts(LARGE, SMALL).ladder) == 1
    for ladder in ((), (Rung(900, 0.5),), (Rung(400, 0.25),)):
        with pytest.raises(ConfigError, match="calibration is for something else"):
            settings(gate=gate, draft=DraftConfig(ladder=ladder)).parts(LARGE, SMALL)


@weights
def test_rungs_score_the_tokens_that_the_gate_scores() -> None:
    small = HFModel.from_pretrained(tiny.SMALL)
    one = settings(
        small=ModelSettings.of(small, str(tiny.SMALL)),
        gate=GateSettings(0.5, 8, span="answer"),
        draft=DraftConfig(ladder=(Rung(900),)),
    )
    parts = one.parts(LARGE, small)
    assert isinstance(parts.gate, AnswerSpanGate)
    assert all(isinstance(gate, AnswerSpanGate) for _, gate in parts.ladder)


def test_settings_let_a_draft_judge() -> None:
    pipe = SpecPipeline.from_settings(
        settings(judge=JudgeConfig("draft")), large=LARGE, small=SMALL
    )
    picture = Image.new("RGB", (64, 64))
    assert pipe(picture, "Which colour?").route == "draft"
    far = pipe(picture, "What is on the plate?")
    assert far.route == "agent" and far.judgement is not None and far.judgement.needs_tools


@weights
@pytest.mark.exhaustive  # test_tune.py has its quick form, on scripted models
def test_tune_tries_drafts_that_judge_and_ladders_and_serves_what_it_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    words = ["tune", "scenes", "--split", "calibration", "--limit", "16", "--out", str(out)]
    words += ["--judges", "none,draft", "--pixels", "full,3600", "--aggregates", "min"]
    words += ["--target", "0.6", "--no-check", "--quiet", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    asked = {(row["setting"]["judge"], row["setting"]["draft_pixels"]) for row in told["table"]}
    assert ("none", None) in asked
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text("utf-8").splitlines()]
    arms = {row["arm"] for row in rows if row.get("arm")}
    assert {"agent", "draft", "draft@3600", "draft-look", "draft-look@3600"} <= arms
    made = FunnelSettings.load(out / "settings.json")
    assert made.judge.model in (None, "draft")
