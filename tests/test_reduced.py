"""Judging and drafting on smaller views of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes import SpecPipeline, SpeculativeAnswerer, ToolJudge
from speceyes.errors import ConfigError
from speceyes.images.pixel_cache import frozen
from speceyes.images.reduced import reduced, reduced_size
from speceyes.models.scripted import ScriptedModel
from speceyes.pipeline import DraftConfig, JudgeConfig
from speceyes.types import Completion, Conversation, Query, Sampling

NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


class Seeing:
    """A scripted model that notes the sizes of the images it is shown."""

    def __init__(self, script: object, name: str) -> None:
        self.name = name
        self.sizes: list[tuple[int, int]] = []
        self._model = ScriptedModel(script, name=name, margin=12.0)  # type: ignore[arg-type]

    def seen_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        for conversation in conversations:
            self.sizes += [image.size for image in conversation.images]
        return self._model.generate(conversations, sampling)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 1 << 24))
def test_a_view_keeps_to_its_pixels_and_to_the_shape(width: int, height: int, most: int) -> None:
    across, down = reduced_size(width, height, most)
    assert 1 <= across <= width and 1 <= down <= height
    assert across * down <= most
    if width * height <= most:
        assert (across, down) == (width, height)
    elif min(across, down) > 50:
        assert across / down == pytest.approx(width / height, rel=0.05)
        assert across * down > 0.9 * most


def test_a_view_is_made_once_and_follows_the_pixels() -> None:
    image = frozen(Image.fromarray(NOISE))
    query = Query("?", (image,))
    [first], [second] = reduced(query, 10_000).images, reduced(query, 10_000).images
    assert first is second and first.size == (115, 86)
    image.paste("white", (0, 0, *image.size))
    [after] = reduced(query, 10_000).images
    assert after.getextrema() == ((255, 255),) * 3, "a view of pixels that are gone"


def test_images_small_enough_are_the_same_objects() -> None:
    query = Query("?", (Image.fromarray(NOISE),))
    assert reduced(query, None) is query
    assert reduced(query, 120_000) is query


def test_each_phase_sees_what_it_may_and_the_agent_sees_all() -> None:
    large = Seeing({"Reply with one word": "no", "": "<answer>blue</answer>"}, "large")
    small = Seeing("red", "small")
    pipe = SpecPipeline.from_pretrained(
        large,
        small,
        dialect="deepeyes",
        gate=1.0,
        judge=JudgeConfig(max_pixels=20_000),
        draft=DraftConfig(max_pixels=5_000),
    )
    assert pipe(Image.fromarray(NOISE), "Which colour?").answer == "blue"
    assert large.sizes == [(163, 122), (400, 300)]
    assert small.sizes == [(81, 61)]


def test_a_calibration_belongs_to_the_size_that_drafts_were_made_from() -> None:
    model = ScriptedModel("red")
    hashes = {SpeculativeAnswerer(model, max_pixels=n).prompt_hash for n in (None, 1000, 2000)}
    assert len(hashes) == 3
    assert SpeculativeAnswerer(model).prompt_hash in hashes


@pytest.mark.parametrize("n", [0, -3])
def test_no_pixels_are_refused(n: int) -> None:
    model = ScriptedModel("red")
    with pytest.raises(ConfigError, match=f"max_pixels={n}; it must be at least 1"):
        SpeculativeAnswerer(model, max_pixels=n)
    with pytest.raises(ConfigError, match=f"max_pixels={n}; it must be at least 1"):
        ToolJudge(model, dialect=None, max_pixels=n)


def test_what_is_no_model_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match="a dict is no model"):
        SpecPipeline.from_pretrained(small={"model": 1}, judge=None)  # type: ignore[arg-type]
