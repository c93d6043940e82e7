"""Whether speculation is worth it: from measured costs, and from sizes alone."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes.errors import ConfigError
from speceyes.models.sizes import named
from speceyes.tuning import roofline
from speceyes.tuning.roofline import Accelerator, Workload, phase_costs
from speceyes.tuning.worth import PhaseCosts, worth

VSTAR = Workload(2246, 1582)
costs = st.builds(
    lambda a, j, d, s, f: PhaseCosts(a, j * a, d * a, s * a, f),
    st.floats(0.01, 10),
    st.floats(0, 2),
    st.floats(0, 2),
    st.floats(0, 0.9),
    st.floats(0.5, 2),
)


@given(costs, st.floats(0, 1), st.floats(0, 1))
def test_the_best_choice_comes_first_and_a_kept_image_never_costs_more(
    found: PhaseCosts, beta: float, alpha: float
) -> None:
    choices = worth(found, beta=beta, alpha=alpha)
    gains = {one.judge: one.gain for one in choices}
    assert [one.gain for one in choices] == sorted(gains.values(), reverse=True)
    assert gains["large, image kept"] >= gains["large"]


@given(costs, st.floats(0.05, 1))
def test_at_the_break_even_the_gain_is_one(found: PhaseCosts, beta: float) -> None:
    for one in worth(found, beta=beta, alpha=0.5):
        if one.break_even is None:
            [same] = [w for w in worth(found, beta=beta, alpha=1) if w.judge == one.judge]
            assert same.gain < 1 or same.gain == pytest.approx(1)
        else:
            at = worth(found, beta=beta, alpha=min(1.0, one.break_even))
            [same] = [w for w in at if w.judge == one.judge]
            assert same.gain == pytest.approx(1) or (one.break_even == 0 and same.gain >= 1)


def test_without_costs_of_its_own_the_gain_is_the_papers_bound() -> None:
    free = PhaseCosts(agent=1, judge=0, draft=0)
    for one in worth(free, beta=0.8, alpha=0.7):
        assert one.gain == pytest.approx(1 / (1 - 0.8 * 0.7))
        assert one.break_even == 0


@pytest.mark.parametrize(
    "wrong", [{"agent": 0}, {"judge": -1}, {"draft": math.inf}, {"shared": 2}, {"harder": 0}]
)
def test_costs_that_can_not_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PhaseCosts(**{"agent": 1.0, "judge": 0.1, "draft": 0.1, **wrong})


@pytest.mark.parametrize("shares", [{"beta": 1.1, "alpha": 0.5}, {"beta": 0.5, "alpha": -0.1}])
def test_shares_out_of_range_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        worth(PhaseCosts(1, 0.1, 0.1), **shares)


def test_sizes_give_the_weights_that_the_checkpoints_have() -> None:
    """The Hub states 8.29 billion weights in all for Qwen2.5-VL-7B and 2.13 for Qwen3-VL-2B; a
    decoding step reads all but the vision tower and the input embedding."""
    for name, billions, tower in (("qwen2.5-vl-7b", 8.29, 0.68), ("qwen3-vl-2b", 2.13, 0.41)):
        shape = named(name)
        embedding = shape.text["vocab_size"] * shape.text["hidden_size"] / 1e9
        read = roofline.ModelCounts(shape).decoder_bytes / 2e9
        total = read + tower + (0 if shape.tied else embedding)
        assert total == pytest.approx(billions, rel=0.03)


def test_a_large_judge_before_a_full_engine_is_a_loss_and_a_small_one_is_not() -> None:
    gains = {one.judge: one.gain for one in worth(phase_costs(VSTAR), beta=0.8, alpha=0.7)}
    assert gains["large"] < gains["large, image kept"] < 1 < gains["small"]
    few = phase_costs(Workload(2246, 1582, draft_image_tokens=1024))
    [best, *_] = worth(few, beta=0.8, alpha=0.7)
    assert best.judge == "small" and best.gain > 1.5 > gains["small"]


def test_one_by_one_decoding_rules_and_a_large_judge_pays() -> None:
    alone = phase_costs(Workload(2246, 1582, batch=1))
    assert alone.agent > 4 * phase_costs(VSTAR).agent
    assert {w.judge: w.gain > 1 for w in worth(alone, beta=0.8, alpha=0.7)}["large"]


def test_costs_grow_with_the_work_and_fall_with_the_device() -> None:
    base = phase_costs(VSTAR)
    assert phase_costs(Workload(4032, 3024)).agent > base.agent
    assert phase_costs(Workload(2246, 1582, agent_tokens=1000, turns=3)).agent > base.agent
    assert phase_costs(VSTAR, accelerator="H200").agent < base.agent
    half = Accelerator(989e12 / 2, 3.35e12 / 2)
    assert phase_costs(VSTAR, accelerator=half).agent == pytest.approx(2 * base.agent)


def test_a_device_or_a_number_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"accelerator='abacus' is not known; there are A100"):
        phase_costs(VSTAR, accelerator="abacus")
    with pytest.raises(ConfigError, match="batch=0"):
        Workload(100, 100, batch=0)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert roofline.main(["--draft-image-tokens", "512", "--batch", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(roofline.IMAGES) and "512 image tokens" in lines[0]
    assert all(len(re.findall(r"\d\.\d\dx", line)) == 4 for line in lines[2:])
    with pytest.raises(SystemExit):
        roofline.main(["--beta", "2"])
    assert "beta=2.0" in capsys.readouterr().err
