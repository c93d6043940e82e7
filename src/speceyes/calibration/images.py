"""Labelled rows that share an image: one of them counts, drawn by lot.

Several questions about one image are right or wrong together, so that as many rows tell less than
as many images. Where one row of each image is drawn, the rows are independent again.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from speceyes.errors import InputError
from speceyes.images.similarity import alike, clusters, content_key, look

_log = logging.getLogger(__name__)

Keys: TypeAlias = Sequence[Hashable | Image | Sequence[Hashable | Image]]
"""A row's image, images, or their keys. Rows that share any are of one cluster."""


def clusters_of(image_key: Keys, rows: int) -> npt.NDArray[np.int64]:
    """int64[n], the number of each row's cluster; a warning where further images look alike.

    Args:
        image_key: See `Keys`; images are known by their pixels, whatever their name or format.
        rows: n.

    Raises:
        InputError: There is another number of keys, or one is missing or can't be compared.

    Example:
        >>> clusters_of(["a.png", "b.png", "a.png"], 3).tolist()
        [0, 1, 0]
    """
    given = list(image_key)
    if len(given) != rows:
        raise InputError(f"{len(given)} image keys for {rows} rows; there must be one each")
    looks: dict[str, bytes] = {}
    keys = [keys_of(one, looks) for one in given]
    if near := alike(list(looks.values())):
        _log.warning(
            "%d pairs of images look alike without having the same pixels, such as a picture that "
            "was saved again: if they are the same, give them one key",
            len(near),
        )
    return np.array(clusters(keys), dtype=np.int64)


def keys_of(
    given: Hashable | Image | Iterable[Hashable | Image], looks: dict[str, bytes] | None = None
) -> tuple[Hashable, ...]:
    """Keys of a row's images.

    Args:
        given: An image or its key, or several in a list, tuple or set.
        looks: Takes what each image looks like, by its key.

    Raises:
        InputError: There is none, or one can't be compared.
    """
    several = given if isinstance(given, list | tuple | set | frozenset) else (given,)
    keys: list[Hashable] = []
    for one in several:
        key: Any = one
        if isinstance(one, Image):
            key = content_key(one)
            if looks is not None and key not in looks:
                looks[key] = look(one)
        if not isinstance(key, Hashable):
            raise InputError(
                f"a {type(key).__name__} is no image key: give an image, or text or a number that "
                "tells it from others"
            )
        if key is None or key == "" or key != key:
            raise InputError("a row has no image key: give each row its image, or a key of it")
        keys.append(key)
    if not keys:
        raise InputError("a row has no image key: give each row its image, or a key of it")
    return tuple(keys)


def one_each(found: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Places of one row of each cluster, drawn by lot, in the rows' order.

    Example:
        >>> one_each(np.array([0, 1, 1, 2]), 0).shape
        (3,)
    """
    order = np.random.default_rng([seed, 1]).permutation(found.size)
    _, first = np.unique(found[order], return_index=True)
    drawn: npt.NDArray[np.int64] = np.sort(order[first])
    return drawn
