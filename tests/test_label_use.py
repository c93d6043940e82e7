"""Labels used more than once keep their promise: rows of an image, many settings, looking on."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from speceyes.bench.promises import labels
from speceyes.calibration import (
    Calibration,
    Ledger,
    Scoring,
    SequentialCalibration,
    Setting,
    calibrate,
    calibrate_groups,
    calibrate_many,
    labels_hash,
)
from speceyes.calibration.risk import default_start
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.evaluation.benchmarks.sample import Entry, Samples, split
from speceyes.gate import SeparabilityGate
from speceyes.gates import certify
from speceyes.gates.joint_thresholds import Chosen, RecordedDrafts, choose_thresholds
from speceyes.gates.margin import MarginGate
from speceyes.images import content_key
from speceyes.images.similarity import alike, clusters, look
from speceyes.types import Completion

MADE = Scoring("small", "ab12")


@pytest.mark.parametrize(
    "experiment",
    [
        lambda: [labels.rows_of_one_image(6, 60)],
        lambda: [labels.cascade_rows(6, 30)],
        lambda: labels.best_of_many(4, 20, 100),
        lambda: [labels.until_certified(12, 400)],
    ],
)
def test_what_was_promised_of_labels_is_kept(experiment: Any) -> None:
    for found in experiment():
        assert found.kept, found


# --- images -----------------------------------------------------------------------------------


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture with structure at several scales, as a photograph has it."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12):
        rough = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(rough.resize(size, Image.Resampling.BICUBIC), float) / cells
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


def saved(image: Image.Image, kind: str, **how: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return Image.open(io.BytesIO(buffer.getvalue()))


def variants(image: Image.Image) -> list[Image.Image]:
    wide, high = image.size
    return [
        saved(image, "JPEG", quality=80),
        image.resize((wide // 2, high // 2)),
        image.crop((2, 2, wide, high)),
        image.crop((0, 0, wide - 2, high - 2)).resize((wide, high)),
        saved(image.resize((wide * 2, high * 2)), "JPEG", quality=60),
    ]


def test_an_image_is_known_under_another_format_and_mode() -> None:
    image = photo(0)
    key = content_key(image)
    assert {content_key(saved(image, kind)) for kind in ("PNG", "BMP", "TIFF")} == {key}
    assert content_key(image.convert("RGBA")) == key
    turned = Image.Exif()
    turned[0x0112] = 3  # saved upside down, to be shown upright
    upside = image.transpose(Image.Transpose.ROTATE_180)
    assert content_key(saved(upside, "PNG", exif=turned)) == key
    assert content_key(image.crop((1, 0, 160, 120))) != key


def drawing(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Figures of one colour each on a light ground."""
    random = np.random.default_rng([seed, 1])
    image = Image.new("RGB", size, tuple(random.integers(190, 256, 3).tolist()))
    for _ in range(random.integers(4, 9)):
        wide, high = random.integers(20, 110, 2).tolist()
        left, top = (int(random.integers(0, side - 20)) for side in size)
        image.paste(
            tuple(random.integers(0, 256, 3).tolist()), (left, top, left + wide, top + high)
        )
    return image


def in_another_light(image: Image.Image) -> dict[str, Image.Image]:
    return {
        "darker": ImageEnhance.Brightness(image).enhance(0.7),
        "less contrast": ImageEnhance.Contrast(image).enhance(0.75),
        "grey": image.convert("L"),
        "mirrored": ImageOps.mirror(image),
        "mirrored, smaller, saved again": saved(
            ImageOps.mirror(image).resize((120, 90)), "JPEG", quality=70
        ),
    }


@pytest.mark.parametrize("kind", [photo, drawing])
def test_copies_in_another_light_or_a_mirror_look_alike(kind: Any) -> None:
    originals = [kind(seed) for seed in range(40)]
    missed = {
        (name, number)
        for number, image in enumerate(originals)
        for name, copy in in_another_light(image).items()
        if alike([look(image), look(copy)]) != [(0, 1)]
    }
    assert len(missed) <= 10, missed  # 5 % of 200


def test_the_same_layout_in_other_colours_is_another_picture() -> None:
    """A scale and a shift for all colours together turn no red into a blue."""
    for seed in range(20):
        image = drawing(seed)
        red, green, blue = image.split()
        for other in ((green, blue, red), (blue, red, green)):
            turned = Image.merge("RGB", other)
            if np.abs(np.asarray(image, float) - np.asarray(turned, float)).mean() > 40:
                assert alike([look(image), look(turned)]) == []
    reds = [Image.new("RGB", (64, 64), shade) for shade in ("red", "blue", "grey", "white")]
    assert alike([look(image) for image in reds]) == []


def test_different_drawings_do_not_look_alike() -> None:
    assert alike([look(drawing(seed)) for seed in range(150)]) == []


def test_copies_look_alike_and_other_pictures_do_not() -> None:
    originals = [photo(seed) for seed in range(60)]
    looks = [look(image) for image in originals]
    assert alike(looks) == []
    missed = [
        (i, j)
        for i, image in enumerate(originals)
        for j, copy in enumerate(variants(image))
        if alike([looks[i], look(copy)]) != [(0, 1)]
    ]
    assert missed == []


def test_a_split_keeps_copies_and_all_images_of_a_query_together() -> None:
    entries, family = [], []
    for seed in range(20):
        image = photo(seed)
        for n, one in enumerate([image, *variants(image)]):
            keys, looks = (content_key(one),), (look(one),)
            known = (f"{seed}-{n}", "?", (), "a", "k", keys[0], "b", ())
            entries.append(Entry(*known, image_keys=keys, looks=looks))
            family.append(seed)
    # A query with two images ties their families together.
    both = (entries[0].image_keys[0], entries[6].image_keys[0])
    entries.append(Entry("two", "?", (), "a", "k", both[0], "b", (), image_keys=both))
    family = [0 if one == 1 else one for one in family] + [0]
    for seed in range(5):
        sides = [{e.id for e in part.entries} for part in split(Samples(entries), 0.5, seed)]
        for number in set(family):
            ids = {e.id for e, f in zip(entries, family, strict=True) if f == number}
            assert sum(bool(ids & side) for side in sides) == 1
        assert 0.3 < len(sides[0]) / len(entries) < 0.7


def test_clusters_follow_chains() -> None:
    assert clusters([("a", "b"), "c", ["b", "d"], "d"]) == [0, 1, 0, 0]
    assert clusters(["a", "b", "c"], [(2, 0)]) == [0, 1, 0]


def test_one_row_of_each_image_counts() -> None:
    scores, bad = np.full(120, 9.0), np.zeros(120)
    keys = [str(i // 3) for i in range(120)]
    found = calibrate(scores, bad, MADE, image_key=keys)
    assert (found.n, found.rows) == (40, 120) and not found.certified
    assert calibrate(scores, bad, MADE, image_key=[str(i) for i in range(120)]).n == 120
    assert "one of each image" in calibrate(scores, bad, MADE, target=0.1, image_key=keys).statement
    pictures = [photo(i // 60, (32, 24)) for i in range(120)]
    assert calibrate(scores, bad, MADE, image_key=pictures).n == 2
    again = calibrate(scores, bad, MADE, image_key=keys, seed=5, created=found.created)
    assert again == found  # all rows of an image are alike here
    with pytest.raises(InputError, match="image keys"):
        calibrate(scores, bad, MADE, image_key=keys[:-1])
    with pytest.raises(InputError, match="no image key"):
        calibrate(scores, bad, MADE, image_key=[""] * 120)


def test_images_that_only_look_alike_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    image = photo(3)
    with caplog.at_level(logging.WARNING):
        found = calibrate([9.0, 9.0], [0, 0], MADE, image_key=[image, variants(image)[0]])
    assert found.n == 2 and "look alike" in caplog.text


def test_the_row_that_counts_is_drawn_by_lot() -> None:
    """Each image's first row is right and its second wrong: half of what counts is bad."""
    bad = [0, 1] * 300
    keys = [i // 2 for i in range(600)]
    found = calibrate([9.0] * 600, bad, MADE, image_key=keys, target=0.9)
    assert found.n == 300 and 100 < found.bad < 200


def test_groups_certify_and_cascades_take_images_too() -> None:
    keys = [i // 6 for i in range(300)]
    groups = calibrate_groups([9.0] * 300, [0] * 300, MADE, ["a", "b"] * 150, image_key=keys)
    assert {one.n for one in groups.values()} == {50}
    drafts = [Completion("x", (1,), np.log([[0.9, 0.1]])) for _ in range(300)]
    assert certify(MarginGate(), drafts, [False] * 300, image_key=keys).n == 50
    scores = np.random.default_rng(0).gamma(4, 2, (300, 1))
    found = choose_thresholds(
        RecordedDrafts(scores, np.zeros((300, 1), bool), (1.0,), 9.0, keys), target=0.2
    )
    assert found.n == 25


def test_a_category_without_labels_goes_to_the_agent() -> None:
    found = calibrate_groups([9.0] * 60, [0] * 60, MADE, ["a"] * 60)
    unseen = found["another"]
    assert not unseen.certified and "go to the agent" in unseen.statement
    assert SeparabilityGate.from_calibration(unseen).threshold == 1
    assert Calibration.from_json(unseen.to_json()) == unseen
    assert list(found) == ["a"] and "another" not in found


def test_thresholds_are_certified_by_labels_that_the_search_has_not_seen() -> None:
    scores = np.linspace(9, 5, 60)[:, None]

    def found(bad: np.ndarray, held_out: float = 0.5) -> Chosen:
        drafts = RecordedDrafts(scores, bad[:, None], (1.0,), 9.0)
        return choose_thresholds(drafts, target=0.2, held_out=held_out, size=4)

    good = np.zeros(60, dtype=bool)
    assert found(good).certified and found(good).accepted == found(good).n == 30
    assert found(good, 0.8).n == 48
    # A row that certifies is one whose label alone is counted among the accepted.
    held = np.array([found(np.arange(60) == at).bad == 1 for at in range(60)])
    assert held.sum() == 30
    assert not found(held).certified  # the search saw no fault, and all of the others are bad
    assert not found(~held).certified


@pytest.mark.parametrize(
    ("total", "start"),
    [(10, 10), (45, 45), (100, 45), (200, 45), (231, 77), (300, 77), (2000, 200)],
)
def test_the_default_start_forgives_what_fits_into_a_third(total: int, start: int) -> None:
    """45, 77, 105 and 132 drafts forgive 0 to 3 errors at 5 % and a delta of 0.1."""
    assert default_start(total, 0.05, 0.1) == start


# --- many settings, and looking on --------------------------------------------------------------


def test_many_settings_share_delta() -> None:
    rng = np.random.default_rng(0)
    scores = rng.gamma(4, 3, 900)
    bad = rng.random(900) < 0.4 * np.exp(-0.4 * scores)
    settings = {str(i): Setting(scores + i, MADE) for i in range(4)}
    many = calibrate_many(settings, bad, delta=0.1)
    assert {one.delta for one in many.calibrations.values()} == {0.025}
    assert many.chosen.certified and many.best is not None
    keys = [i // 3 for i in range(900)]
    halves = calibrate_many(settings, bad, correction="split", image_key=keys)
    assert len(halves.calibrations) == 1 and halves.chosen.delta == 0.1
    assert 100 < halves.chosen.n < 200 and halves.chosen.rows == 3 * halves.chosen.n
    with pytest.raises(ConfigError, match="no settings"):
        calibrate_many({}, bad)
    with pytest.raises(InputError, match="'0'"):
        calibrate_many({"0": Setting(scores[:5], MADE)}, bad)


def test_the_ledger_only_grows_and_adds_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calibrations.jsonl")
    bad = [0] * 100
    used = labels_hash(["q"] * 100, bad)
    spent = [
        ledger.note(calibrate([9.0] * 100, bad, MADE, target=target), used)
        for target in (0.05, 0.1, 0.05, 0.2)
    ]
    assert spent == pytest.approx([0.1, 0.2, 0.2, 0.3])
    before = ledger.path.read_text()
    other = labels_hash(["q"] * 100, [1, *bad[1:]])
    assert Ledger(ledger.path).note(calibrate([9.0] * 100, bad, MADE), other) == 0.1
    assert ledger.path.read_text().startswith(before) and len(ledger.entries()) == 4
    ledger.path.write_text(before + "{}\n")
    with pytest.raises(CalibrationError, match="line 4"):
        ledger.entries()


def test_labelling_goes_on_until_it_is_certified() -> None:
    rng = np.random.default_rng(1)
    labelling = SequentialCalibration(MADE, target=0.1, judge="large at 0.5")
    assert labelling.threshold is None
    seen = []
    while labelling.threshold is None:
        score = float(rng.gamma(4, 3))
        labelling.add(score, bool(rng.random() < 0.4 * np.exp(-0.4 * score)))
        assert labelling.n < 2000
    for _ in range(1500):
        score = float(rng.gamma(4, 3))
        labelling.add(score, bool(rng.random() < 0.4 * np.exp(-0.4 * score)))
        seen.append(labelling.threshold)
    assert seen == sorted(seen, reverse=True)  # it only gets looser
    found = labelling.calibration()
    assert found.certified and found.method == "betting" and found.judge == "large at 0.5"
    assert Calibration.from_json(found.to_json()) == found
    assert SeparabilityGate.from_calibration(found).threshold == found.threshold


def test_labelling_leaves_rows_of_a_known_image_out() -> None:
    labelling = SequentialCalibration(MADE)
    for _ in range(50):
        labelling.add(9.0, False, image_key="one")
    labelling.add(None, False)
    labelling.add(9.0, True, let_through=False)
    assert labelling.n == 3
    with pytest.raises(InputError, match="infinite"):
        labelling.add(float("inf"), False)
    with pytest.raises(ConfigError, match="thresholds"):
        SequentialCalibration(MADE, thresholds=[1.5])


def test_groups_that_are_merged_still_send_unseen_categories_to_the_agent() -> None:
    one = calibrate_groups([9.0] * 60, [0] * 60, MADE, ["a"] * 60)
    other = calibrate_groups([8.0] * 60, [0] * 60, MADE, ["a"] * 30 + ["b"] * 30)
    both = one | other
    assert sorted(both) == ["a", "b"] and both["a"] == other["a"]
    for groups in (both, copy.copy(both), copy.deepcopy(both), pickle.loads(pickle.dumps(both))):
        assert not groups["never seen"].certified
        assert SeparabilityGate.from_calibration(groups["never seen"]).threshold == 1


# --- files ------------------------------------------------------------------------------------


def edited(made: Calibration, **changes: Any) -> str:
    return json.dumps({**json.loads(made.to_json()), **changes})


def test_a_file_that_contradicts_itself_is_refused() -> None:
    rng = np.random.default_rng(0)
    scores = rng.gamma(4, 3, 400)
    made = calibrate(scores, scores < 4, MADE)
    assert Calibration.from_json(made.to_json()) == made
    curve = json.loads(made.to_json())["curve"]
    for wrong in (
        edited(made, bad=made.accepted),
        edited(made, bad=made.accepted, curve=[]),
        edited(made, target=0.0001),
        edited(made, delta=1e-9, curve=[]),
        edited(made, n=made.n + 5),
        edited(made, curve=curve[::-1]),
        edited(made, curve=[[*point[:3], 0.5] for point in curve]),
        edited(made, curve=[point for point in curve if point[0] != made.threshold]),
        edited(made, accepted=0, bad=0, curve=[]),
        edited(made, method="hoeffding-bentkus"),
    ):
        with pytest.raises(CalibrationError, match="contradicts itself"):
            Calibration.from_json(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"test": "hoeffding-bentkus"},
        {"risk": "overall"},
        {"risk": "overall", "delta": None},
        {"thresholds": [0.9, 0.99, 0.999]},
        {"target": 0.001},
        {"start": 60},
    ],
)
def test_what_calibrating_made_is_never_refused(options: Any) -> None:
    rng = np.random.default_rng(2)
    for n in (1, 60, 400):
        scores = np.round(rng.gamma(4, 3, n), 1)
        bad = rng.random(n) < 0.4 * np.exp(-0.4 * scores)
        made = calibrate(scores, bad, MADE, **options)
        assert Calibration.from_json(made.to_json()) == made


def test_a_calibration_is_refused_behind_another_judge() -> None:
    from speceyes.answerer import SpeculativeAnswerer
    from speceyes.judge import ToolJudge
    from speceyes.models.scripted import ScriptedModel
    from speceyes.pipeline import SpecPipeline

    answerer = SpeculativeAnswerer(ScriptedModel("red", name="small"))
    judge = ToolJudge(ScriptedModel("no", name="large"), dialect=None)
    scoring = Scoring("small", answerer.prompt_hash)
    made = calibrate([9.0] * 100, [0] * 100, scoring, judge=judge.identity)

    def piped(**parts: Any) -> Any:
        gate = SeparabilityGate.from_calibration(made)
        return SpecPipeline(answerer=answerer, gate=gate, **parts)

    assert piped(judge=judge).gate.calibration.judge == "large at 0.5"
    for other in (
        None,
        ToolJudge(ScriptedModel("no", name="small"), dialect=None),
        ToolJudge(ScriptedModel("no", name="large"), dialect=None, threshold=0.9),
    ):
        with pytest.raises(CalibrationError, match="judge"):
            piped(judge=other)
    made = dataclasses.replace(made, judge=None)
    assert piped(judge=None).judge is None
