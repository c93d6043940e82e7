"""Images as text come back as they were."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from speceyes import load_image
from speceyes.encoded import data_url, in_base64

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_a_data_url_holds_every_pixel(mode: str) -> None:
    image = NOISE.convert(mode)
    there = load_image(data_url(image))
    assert there.tobytes() == image.convert("RGB").tobytes()


def test_options_go_to_the_format_and_the_kind_is_told() -> None:
    small, large = (data_url(NOISE, "JPEG", quality=quality) for quality in (10, 95))
    assert small.startswith("data:image/jpeg;base64,") and len(small) < len(large)
    file = io.BytesIO(base64.b64decode(in_base64(NOISE, "WEBP")))
    assert Image.open(file).format == "WEBP"
