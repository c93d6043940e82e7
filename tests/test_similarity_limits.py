"""Looks of images just on the limits of being alike, and clusters by their definition."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from speceyes.images import similarity
from speceyes.images.similarity import alike, clusters, content_key, look

Grid = npt.NDArray[np.float64]
MIDDLE = np.full((4, 4, 3), 100.0)


def made(bits: int = 0, mirrored: int = 32, colours: Any = MIDDLE) -> bytes:
    """A look with so many bits set in its hash, and in its mirror image's."""
    hashes = b"".join((2**n - 1).to_bytes(8, "big") for n in (bits, mirrored))
    return hashes + np.asarray(np.round(colours), dtype=np.uint8).tobytes()


def are(one: bytes, other: bytes) -> bool:
    found = alike([one, other])
    assert found in ([], [(0, 1)])
    return bool(found)


@pytest.mark.parametrize("counts", [True, False])
def test_so_many_bits_may_differ_and_no_more(counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With numpy 1, too, which doesn't count bits."""
    if not counts or hasattr(np, "bitwise_count"):
        monkeypatch.setattr(similarity, "COUNTS", counts)
    for bits in range(20):
        assert are(made(0), made(bits)) is (bits <= 10)
        assert are(made(0), made(32, bits)) is (bits <= 8)
    looks = [made(0), made(64, 64), made(10), made(20, 5), made(63, 63)]
    assert alike(looks) == [(0, 2), (0, 3), (1, 4), (2, 3)]
    assert alike(looks[:1]) == alike([]) == []


def test_a_mirror_image_has_its_colours_the_other_way_round() -> None:
    left = MIDDLE.copy()
    left[:, :2] += 100
    here, there = made(0, 32, left), made(0, 32, left[:, ::-1])
    assert are(here, here) and not are(here, there)
    assert are(here, made(32, 0, left[:, ::-1])) and not are(here, made(32, 0, left))
    upside = MIDDLE.copy()
    upside[:2] += 100
    assert not are(made(0, 32, upside), made(32, 0, upside[::-1]))


@pytest.mark.parametrize("sign", [1, -1])
def test_colours_may_differ_by_five_on_the_mean(sign: int) -> None:
    for more in range(80):
        other = MIDDLE.copy()
        other.flat[: more % 48] += sign
        other += sign * (more // 48 + 4)
        mean = float(np.abs(other - MIDDLE).mean())
        assert are(made(0), made(0, colours=other)) is (mean <= 5), mean


def waves(size: float, shift: float = 120.0) -> Grid:
    """A grid of colours with the standard deviation and the mean."""
    grid = np.random.default_rng(0).permutation(48).reshape(4, 4, 3) - 23.5
    return shift + grid * size / grid.std()


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((30, 120), (20, 90), True),
        ((30, 120), (55, 120), True),
        ((30, 120), (65, 120), False),
        ((55, 120), (30, 150), True),
        ((65, 120), (30, 150), False),
        ((9, 120), (8, 90), False),
        ((11, 120), (9, 90), False),
        ((9, 120), (11, 90), False),
        ((11, 120), (12, 90), True),
    ],
)
def test_light_scales_by_two_at_most_what_is_not_plain(first: Any, second: Any, same: bool) -> None:
    one, other = waves(*first), waves(*second)
    assert are(made(0, colours=one), made(0, colours=other)) is same
    turned = 2 * other.mean() - other  # as a negative
    assert not are(made(0, colours=one), made(0, colours=turned))


def test_what_light_does_not_explain_may_be_five_and_less_where_all_is_faint() -> None:
    """Three tenths of it, and a fortieth more for each shade that the colours vary by."""
    noise = np.where(np.random.default_rng(1).permutation(48).reshape(4, 4, 3) % 2, 1.0, -1.0)
    near = 0
    for size in np.arange(11.0, 34.0, 0.5):
        one = np.round(waves(float(size), 90))
        for by in range(1, 8):
            other = one + 40 + by * noise
            a, b = one - one.mean(), other - other.mean()
            scale = float((a * b).sum() / (a * a).sum())
            left = float(np.abs(scale * a - b).mean())
            most = 5 * min(1.0, 0.3 + float(other.std()) / 40)
            near += abs(left - most) < 0.05
            assert are(made(0, colours=one), made(0, colours=other)) is (left <= most), (size, by)
    assert near > 3


def test_a_grey_copy_keeps_its_brightness() -> None:
    random = np.random.default_rng(2)
    colours = np.round(random.integers(0, 256, (4, 4, 3)).astype(float))
    grey = colours @ (0.299, 0.587, 0.114)
    copy = np.repeat(grey[..., None], 3, axis=-1)
    for tint, same in ((0, True), (4, True), (5, False)):
        tinted = np.round(copy).clip(0, 240)
        tinted[0, 0, 0] += tint
        assert are(made(0, colours=colours), made(0, colours=tinted)) is same, tint
    mixed = colours[..., [1, 2, 0]]
    assert not are(made(0, colours=colours), made(0, colours=mixed)), "neither is grey"
    flat = np.repeat((colours @ (0.1, 0.1, 0.8))[..., None], 3, axis=-1)
    assert not are(made(0, colours=colours), made(0, colours=flat))


def test_a_hash_is_of_the_signs_of_the_lowest_waves() -> None:
    """By the sums that define the cosine transform, the mean of the picture left out."""
    random = np.random.default_rng(3)
    rough = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    image = rough.resize((64, 96), Image.Resampling.BICUBIC)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=float)

    def hashed(picture: Grid) -> bytes:
        found = []
        for down in range(8):
            for across in range(8):
                wave = np.outer(
                    [math.cos(math.pi / 32 * down * (at + 0.5)) for at in range(32)],
                    [math.cos(math.pi / 32 * across * (at + 0.5)) for at in range(32)],
                )
                found.append(float((wave * picture).sum()))
        most = max(abs(one) for one in found[1:])
        kept = [0.0 if abs(one) < most / 100 else one for one in found[1:]]
        middle = sorted(kept)[31]
        bits = "0" + "".join("1" if one > middle else "0" for one in kept)
        return int(bits, 2).to_bytes(8, "big")

    seen = look(image)
    assert len(seen) == 64
    assert seen[:8] == hashed(grey) and seen[8:16] == hashed(grey[:, ::-1])
    shown = np.asarray(image.resize((4, 4), Image.Resampling.BOX))
    assert seen[16:] == shown.tobytes()


def test_a_key_is_of_size_and_pixels() -> None:
    image = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    assert content_key(image) == hashlib.sha256(b"4x3:" + bytes(range(36))).hexdigest()
    turned = Image.frombytes("RGB", (3, 4), bytes(range(36)))
    assert content_key(turned) != content_key(image), "the same pixels in another shape"


def test_rows_that_a_chain_connects_are_one_cluster() -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        keys: list[Any] = []
        for _ in range(12):
            several = random.integers(0, 15, random.integers(1, 4)).tolist()
            keys.append(
                several[0]
                if len(several) == 1
                else [list, tuple, set, frozenset][seed % 4](several)
            )
        pairs = [tuple(random.integers(0, 12, 2).tolist()) for _ in range(seed % 3)]
        sets = [set(k) if isinstance(k, list | tuple | set | frozenset) else {k} for k in keys]
        linked = np.array([[bool(a & b) for b in sets] for a in sets])
        for a, b in pairs:
            linked[a, b] = linked[b, a] = True
        for _ in range(4):
            linked = linked @ linked
        numbers: dict[int, int] = {}
        expected = [numbers.setdefault(int(np.flatnonzero(row)[0]), len(numbers)) for row in linked]
        assert clusters(keys, pairs) == expected
    assert clusters([]) == []
