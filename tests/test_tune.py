"""`speceyes tune`: what is recorded, what is chosen from it, and what the settings then do."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speceyes.bench.measure import Measured, markdown, summarise
from speceyes.calibration import Scoring
from speceyes.cli import main
from speceyes.errors import ConfigError, InputError
from speceyes.evaluation import benchmarks
from speceyes.evaluation.prices import Price, Prices, Usage
from speceyes.evaluation.runs import Run
from speceyes.tuning.candidates import Candidate, grid, judge_named
from speceyes.tuning.choice import Choice, choose, spent_seconds
from speceyes.tuning.forecast import AsAWhole
from speceyes.tuning.observed import Drafted, Judged, Observed, Spent, observed
from speceyes.tuning.page import lines, summary
from speceyes.tuning.recording import record
from support.demo_models import cards
from support.eval_models import context_of

PRICES = Prices(Price(2.0, 8.0, 0.5), Price(0.1, 0.4))


def drawn(n: int, seed: int, *, noise: int = 0, draft_s: float = 0.1, images: int = 0) -> Observed:
    """n queries whose drafts are wrong the likelier the lower they score.

    With noise, each resolution's scores say nothing, and a fifth of its drafts are wrong.
    """
    random = np.random.default_rng(seed)
    drafts: dict[int | None, Drafted] = {}
    for at in range(max(1, noise)):
        margin = random.gamma(4, 2, n)
        wrong = random.random(n) < (0.2 if noise else 0.9 * np.exp(-0.35 * margin))
        # Two competitors a unit apart, and the first so far above them as the score is to be.
        rows = [np.array([[0.0, -m + 0.5, -m - 0.5]], np.float32) for m in margin]
        spent = Spent(np.full(n, draft_s), (Usage(100, 0, 2),) * n)
        drafts[None if at == 0 else at] = Drafted((None,) * n, tuple(rows), ~wrong, wrong, spent)
    agent = Spent(random.gamma(4, 0.25, n), (Usage(1000, 0, 100),) * n)
    keys = np.arange(n) if not images else random.integers(0, images, n)
    return Observed(
        tuple(map(str, range(n))),
        tuple((str(key),) for key in keys),
        np.arange(n) // 20,
        np.ones(n, dtype=bool),
        agent,
        {},
        drafts,
    )


def chosen(found: Observed, candidates: list[Candidate], **options: Any) -> Choice:
    return choose(
        found,
        candidates,
        lambda one: Scoring("small", f"h{one.draft_pixels}", top_k=3, aggregate=one.aggregate),
        lambda one: one.judge,
        lambda one: ~found.drafts[one.draft_pixels].right,
        **{"target": 0.05, **options},
    )


def test_the_choice_keeps_its_promise_where_the_best_of_many_calibrations_would_not() -> None:
    # A fifth of all drafts are wrong whatever they score, so that any certificate is a mistake.
    broken = {"split": 0, "bonferroni": 0}
    runs = 30
    for seed in range(runs):
        found = drawn(160, seed, noise=6)
        candidates = grid(["none"], list(found.drafts), [3], aggregates=["min"])
        for correction in broken:
            made = chosen(found, candidates, correction=correction, target=0.15, seed=seed)
            broken[correction] += made.best.calibration.certified
    # One in ten may fail; 8 of 30 or more has a chance below 1 in 100 then.
    assert max(broken.values()) < 8, broken


def test_the_cheapest_certified_setting_is_taken_and_its_gain_told() -> None:
    found = drawn(800, 1)
    dear = Spent(np.full(800, 0.9), found.drafts[None].spent.usage)
    found = dataclasses.replace(
        found,
        drafts={None: dataclasses.replace(found.drafts[None], spent=dear), 64: found.drafts[None]},
    )
    made = chosen(found, grid(["none"], [None, 64], [3], aggregates=["min"]))
    assert made.best.candidate.draft_pixels == 64 and made.on
    assert "other questions" in "\n".join(lines(made, found, None, labelled=True))
    told = made.best.time
    # The agent takes 1 s on average, a draft 0.1 s, whoever is asked.
    assert told.gain == pytest.approx(1 / (0.1 + (1 - made.best.accepted)), rel=0.1)
    assert 1 < told.low < told.gain < told.high and told.settled and told.more == 0


def test_a_plan_goes_by_the_same_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = drawn(800, 1)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]))
    file = tmp_path / "tune.json"
    file.write_text(json.dumps(summary(made, found, None)))
    costs = json.loads(file.read_text())["costs"]
    by_hand = costs["c_draft"] + (1 - costs["alpha"]) * costs["l_rejected"]
    assert by_hand == pytest.approx(made.best.time.funnel)
    assert main(["plan", "--from", str(file), "--rate", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["costs"]
    assert told["alpha"] == pytest.approx(made.best.accepted) and told["beta"] == 1.0


def test_a_loss_is_told_with_its_interval_and_no_drafter_is_switched_on() -> None:
    found = drawn(600, 2, draft_s=0.95)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]))
    text = "\n".join(lines(made, found, None, labelled=True))
    assert made.best.calibration.certified and not made.on
    assert text.startswith(f"leave it off: predicted gain {made.best.time.gain:.2f}x (")
    assert made.best.time.high < 1 and json.loads(json.dumps(summary(made, found, None)))


def test_a_run_as_a_whole_puts_the_forecast_right_and_may_switch_it_off() -> None:
    found = drawn(600, 2, draft_s=0.2)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]))
    assert made.on
    rounds = tuple(sorted(set(found.rounds.tolist())))[:12]
    recorded = [float(found.agent.seconds[found.rounds == r].sum()) for r in rounds]
    spent = spent_seconds(
        found,
        made.best.candidate,
        np.ones(600, dtype=bool),
        found.scores(made.best.candidate) >= (made.best.calibration.raw_threshold or 0.0),
    )
    reckoned = [float(spent[found.rounds == r].sum()) for r in rounds]
    parts = made.best.time
    # The machine is half as fast by then; the funnel takes more than its parts foresee.
    for slower, on in ((parts.gain**0.5, True), (parts.gain / 0.99, False)):
        whole = AsAWhole(
            rounds,
            tuple(2 * one for one in recorded),
            tuple(2 * slower * one for one in reckoned),
        )
        right = made.put_right(found, whole)
        time = right.best.time
        assert time.gain == pytest.approx(parts.gain / slower) and right.on == on
        assert time.funnel == pytest.approx(time.agent / time.gain)
        # All rounds agree, so that only the parts' own interval is left.
        assert time.high / time.low == pytest.approx(parts.high / parts.low)
        text = "\n".join(lines(right, found, None, labelled=True))
        assert text.startswith("switch it on" if on else "leave it off: predicted gain 0.99x (")
        assert f"the parts by themselves foresee {parts.gain:.2f}x" in text
        assert json.loads(json.dumps(summary(right, found, None)))["best"]["time"]["parts"]


def test_what_would_settle_it_is_told_where_the_interval_holds_one() -> None:
    found = drawn(200, 3)
    at = np.full(200, 0.0)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]), target=0.2)
    # Make the draft cost just so much that nothing is gained or lost.
    share = made.best.accepted
    spent = Spent(at + share * 0.97, found.drafts[None].spent.usage)
    found = dataclasses.replace(
        found, drafts={None: dataclasses.replace(found.drafts[None], spent=spent)}
    )
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]), target=0.2)
    told = made.best.time
    assert not told.settled and (told.more is None or told.more > 0)
    assert "questions" in lines(made, found, None, labelled=True)[0]


def test_nothing_certified_says_how_many_more_labels_would_do() -> None:
    found = drawn(40, 4)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]), target=0.01)
    text = "\n".join(lines(made, found, None, labelled=True))
    assert not made.on and "leave it off: no threshold can be certified" in text
    assert "more labels" in text


def test_rows_of_one_image_count_once_in_the_certificate() -> None:
    found = drawn(600, 5, images=40)
    made = chosen(found, grid(["none"], [None], [3], aggregates=["min"]))
    assert made.best.calibration.n <= 40 and made.best.calibration.rows == made.certified


def test_money_may_be_what_is_least() -> None:
    found = drawn(800, 6)
    candidates = grid(["none"], [None], [3], aggregates=["min"])
    with pytest.raises(ConfigError, match="prices"):
        chosen(found, candidates, by="money")
    made = chosen(found, candidates, by="money", prices=PRICES)
    told = made.best.money
    assert told is not None
    assert told.agent == pytest.approx((1000 * 2 + 100 * 8) / 1e6)
    draft = (100 * 0.1 + 2 * 0.4) / 1e6
    assert told.funnel == pytest.approx(draft + (1 - made.best.accepted) * told.agent)
    assert made.best.forecast("money") is told


def test_a_judge_saves_the_agent_what_both_have_read() -> None:
    found = drawn(100, 7)
    through = np.arange(100) % 2 == 0
    judged = Judged(
        np.where(through, 0.1, 0.9), ~through, Spent(np.full(100, 0.3), (Usage(1000, 0, 1),) * 100)
    )
    found = dataclasses.replace(found, judges={("large", None): judged}, shared_s=0.25)
    one = Candidate("large", None, 0.5, None, "min", 3)
    taken = np.zeros(100, dtype=bool)
    spent = spent_seconds(found, one, found.through(one), taken)
    left = np.maximum(found.agent.seconds - 0.25, 0)
    assert spent == pytest.approx(0.3 + 0.1 * through + left)
    assert found.through(dataclasses.replace(one, judge_threshold=0.95)).all()


def test_a_judge_that_cant_be_read_lets_nothing_through() -> None:
    judged = Judged(np.array([np.nan, 0.2]), np.array([True, False]), Spent(np.zeros(2), ()))
    assert judged.through(1.0).tolist() == [False, True]


@pytest.mark.parametrize("text", ["big", "large@", "large@x", "none@9", "small@0", ""])
def test_a_judge_that_isnt_one_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="judge"):
        judge_named(text)


def test_candidates_have_names_of_their_own() -> None:
    every = grid(
        ["none", "small", "large@64"],
        [None, 64],
        [8, 16],
        spans=["whole", "answer"],
        judge_thresholds=[0.3, 0.5],
    )
    assert len({one.name for one in every}) == len(every) == (1 + 2 + 2) * 2 * 2 * 7


class _Terminal(io.StringIO):
    """Where a bar is drawn at each step."""

    def isatty(self) -> bool:
        return True


def _recorded(folder: Path, *, count: int = 30, progress: io.StringIO | None = None) -> Run:
    items = cards(count)
    benchmarks.write("jsonl", items, folder / "questions")
    samples = benchmarks.load(folder / "questions" / "questions.jsonl").samples
    return record(
        samples,
        context_of(items),
        [("large", None), ("small", None)],
        [None],
        folder=folder / "run",
        fixed={"models": {}},
        progress=progress,
        max_failures=0.5,
    )


def test_everything_is_recorded_once_a_query_and_a_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speceyes.evaluation import harness

    count = 0
    take = harness._Turns.take

    def interrupted(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 7:
            raise KeyboardInterrupt
        return take(self, *arguments)

    monkeypatch.setattr(harness._Turns, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _recorded(tmp_path)
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert before
    drawn = _Terminal()
    done = _recorded(tmp_path, progress=drawn)
    assert (tmp_path / "run" / "records.jsonl").read_bytes().startswith(before)
    assert " 0/" not in drawn.getvalue() and "| judge-small |" in drawn.getvalue()
    found = observed(done, [("large", None), ("small", None)], [None])
    assert len(found) == 30
    for arm in ("agent", "draft", "judge-large", "judge-small"):
        asked = [row.result.query_id for row in done.of("tune", arm)]
        assert sorted(asked) == sorted(found.ids)
    total = sum(block.wall for block in done.blocks if block.key[::2] == ("tune", "agent"))
    assert found.agent.seconds.sum() == pytest.approx(total)
    by_cpu = observed(done, [("large", None), ("small", None)], [None], clock="cpu")
    worked = sum(block.cpu or 0.0 for block in done.blocks if block.key[::2] == ("tune", "agent"))
    assert by_cpu.agent.seconds.sum() == pytest.approx(worked)
    assert 0 < len(done.of("together", "judged")) < 30
    # The large judge sends some small squares to the agent, the small one none.
    assert found.judges["small", None].through(0.5).all()
    assert not found.judges["large", None].through(0.5).all()
    assert sum(not usage.written for usage in found.agent.usage) == 1  # it failed on one card
    with pytest.raises(InputError, match="draft@64"):
        observed(done, [], [None, 64])


def test_questions_without_answers_promise_agreement_with_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = cards(8)
    benchmarks.write("jsonl", items, tmp_path)
    file = tmp_path / "questions.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for row in rows:
        row.pop("answer")
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert not len(benchmarks.load(file).samples)
    loaded = benchmarks.load(file, labels=False)
    assert [entry.answer for entry in loaded.samples.entries] == [""] * 8
    rows[3]["answer"] = "red"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert main(["tune", str(file), "--out", str(tmp_path / "out"), "--labels", "wrong"]) == 2
    assert "7 of 8 questions have no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "money"], "--prices"),
        (["--judges", "huge"], "judge 'huge'"),
        (["--judge-thresholds", "2"], "from 0 to 1"),
        (["--small", "none"], "without a drafter"),
        (["--ks", "2"], "at least 3"),
        (["--pixels", "0"], "at least 1"),
        (["--spans", "half"], "--spans"),
        (["--aggregates", "median"], "--aggregates"),
        (["--prices", "nowhere.json"], "can't be read"),
    ],
)
def test_what_cant_be_tuned_is_refused_before_anything_runs(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["tune", "scenes", "--limit", "4", "--out", str(out), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (out / "records.jsonl").exists()


def test_prices_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text("[large]\ninput = 2.5\noutput = 10\n[small]\ninput = 0.1\noutput = 0.4\n")
    found = Prices.load(file)
    assert found.of("large", Usage(1000, 400, 100)) == pytest.approx(0.0035)
    assert Prices.from_dict(found.to_dict()) == found
    for wrong, said in (
        ({"large": {"input": 1}}, "lacks output"),
        ({"large": {"input": 1, "output": -1}, "small": {}}, "finite number"),
        ({"large": {"input": 1, "output": True}, "small": {}}, "finite number"),
        ({"large": {"input": 1, "output": 1, "images": 2}, "small": {}}, "images"),
        ({"large": {"input": 1, "output": 1}}, '"small" is missing'),
        ([], '"large" and "small"'),
        ({"large": {"input": math.nan, "output": 1}, "small": {}}, "finite number"),
    ):
        file.with_suffix(".json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=said):
            Prices.load(file.with_suffix(".json"))


def test_a_bench_tells_money_by_the_tokens_of_both_models() -> None:
    usage = (Usage(1000, 400, 100), Usage(500, 0, 10))
    answers = (("red", "draft"),) * 10
    run = Measured(1.0, None, 1100, 400, 110, 0, answers, usage=usage)
    table = summarise({"speceyes": [run]}, 10, PRICES)
    spent = (600 * 2 + 400 * 0.5 + 100 * 8 + 500 * 0.1 + 10 * 0.4) / 1e6
    assert table["speceyes"]["money"] == pytest.approx(100 * spent)
    assert "| way | USD a thousand queries |" in markdown(table)
    assert "money" not in summarise({"speceyes": [run]}, 10)["speceyes"]
