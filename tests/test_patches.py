"""Images cut into patches: what transformers' own image processor gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from speceyes import tiny
from speceyes.models.hf.patches import Patches
from support.random_models import FAMILIES, Family, build


@given(
    sides=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3),
    form=st.tuples(st.sampled_from([4, 10, 14]), st.integers(1, 3), st.integers(1, 2)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_they_are_those_of_the_image_processor(
    sides: list[tuple[int, int]], form: tuple[int, int, int], seed: int
) -> None:
    patch, merge, frames = form
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(0.2, 0.8, (2, 3)).tolist()
    theirs = Qwen2VLImageProcessor(
        patch_size=patch,
        merge_size=merge,
        temporal_patch_size=frames,
        image_mean=mean,
        image_std=std,
    )
    shapes = [(down * patch * merge, across * patch * merge, 3) for down, across in sides]
    images = [Image.fromarray(rng.integers(0, 256, one, dtype=np.uint8)) for one in shapes]
    wanted = theirs(images, do_resize=False, return_tensors="pt")
    ours = Patches.of(theirs)
    assert ours is not None
    values, grids = ours(images)
    torch.testing.assert_close(values, wanted["pixel_values"], atol=1e-5, rtol=0)
    assert grids.dtype == wanted["image_grid_thw"].dtype
    assert grids.tolist() == wanted["image_grid_thw"].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_the_families_are_driven_by_them(family: Family) -> None:
    assert Patches.of(build(family)[1].image_processor) is not None


def test_another_processor_keeps_its_own_way() -> None:
    own = AutoImageProcessor.from_pretrained(tiny.SMALL)
    assert Patches.of(own) is not None
    own.do_normalize = False
    assert Patches.of(own) is None
    assert Patches.of(object()) is None
