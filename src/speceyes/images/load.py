"""The one way from a source of any kind to pixels.

Every way in ends in a plain RGB image that stands upright (EXIF orientation applied), with no file
behind it.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from speceyes.errors import ImageError
from speceyes.images.decode import check_size, decode, upright
from speceyes.images.deferred import DeferredImage
from speceyes.images.limits import DEFAULT_LIMITS, ImageLimits
from speceyes.images.rgb import to_uint8
from speceyes.images.sources import (
    check_bytes,
    encoded_text,
    from_base64,
    is_base64,
    read_data_url,
    read_file,
    short,
    unquoted,
)
from speceyes.types import Image

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image | npt.NDArray[Any]"
    " | Mapping[str, Any] | Any"
)
"""See `load_image`; the last stands for a torch tensor, which is not imported here."""


def load_image(
    source: ImageSource,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    allow_hosts: Set[str] = frozenset(),
    url_timeout_s: float = 10.0,
    views: Sequence[int] = (),
) -> Image:
    """The image as RGB, upright, decoded.

    Alpha is laid on white. 16-bit greys are scaled to 8 bits. Of an animation the first frame is
    taken; of a PIL image the frame it stands on. A PIL image that is plain RGB already is
    returned as it is, not copied.

    Args:
        source: A path; encoded bytes; a data URL, or the base64 of a file; a PIL image; an array
            [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], or a torch tensor, colours last or, as torch
            has them, first, of uint8, uint16, bool, or floats in [0, 1]; a mapping with "bytes" or
            "path", as `datasets` has for images that aren't decoded; an http(s) URL where
            `allow_urls` is given.
        limits: Limits of the image.
        allow_urls: Fetch http(s) URLs. Hosts in private networks are refused.
        allow_hosts: Names of hosts that may be fetched from although their address is private.
        url_timeout_s: Seconds for the whole fetch.
        views: Most pixels of the smaller views that phases look at first (`max_pixels`). A JPEG
            larger than each is then decoded at the scale of 1/2, 1/4 or 1/8 that serves the
            largest of them, and in full, once, when its own pixels are first asked for. Errors
            in its data are found here in either case.

    Raises:
        ImageError: It can't be read, or is outside the limits.

    Example:
        >>> import numpy as np
        >>> load_image(np.zeros((48, 64, 3), dtype=np.uint8)).size
        (64, 48)
    """
    read = functools.partial(decode, limits=limits, views=views)
    if isinstance(source, DeferredImage):
        check_size(source.size, "the image", limits)
        return source
    if isinstance(source, PILImage.Image):
        return upright(source, f"the PIL image of mode {source.mode}", limits)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if type(source).__module__ == "torch":
        return _from_array(_array_of(source), limits)
    if isinstance(source, Mapping):
        inner = source.get("bytes") or source.get("path")
        if not isinstance(inner, str | bytes | os.PathLike):
            raise ImageError(f"a mapping needs 'bytes' or 'path'; it has {sorted(source)!r}")
        source = inner
    if isinstance(source, bytes | bytearray) and (text := encoded_text(bytes(source))):
        source = text
    if isinstance(source, bytes | bytearray | memoryview):
        what = f"the image given as {type(source).__name__}"
        check_bytes(memoryview(source).nbytes, what, limits.max_bytes)
        return read(bytes(source), what)
    if isinstance(source, str):
        source = unquoted(source)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return read(read_data_url(source, limits.max_bytes), "the data URL")
    if isinstance(source, str) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)):
        if scheme[1].lower() not in ("http", "https"):
            raise ImageError(f"{scheme[1]}:// URLs are not read; pass a path, or an http(s) URL")
        if not allow_urls:
            raise ImageError(
                f"{short(source)!r} is a URL, and URLs are not fetched unless asked for: "
                "pass allow_urls=True, or a file"
            )
        from speceyes.images.fetch import fetch, shown

        data = fetch(
            source, max_bytes=limits.max_bytes, timeout_s=url_timeout_s, allow_hosts=allow_hosts
        )
        return read(data, shown(source))
    if isinstance(source, str) and is_base64(source):
        return read(from_base64(source, "the base64 text", limits.max_bytes), "the image")
    if isinstance(source, str | os.PathLike):
        return read(read_file(source, limits.max_bytes), short(source))
    raise ImageError(
        f"an image can't be loaded from a {type(source).__name__}; pass a path, bytes, a data "
        "URL, a PIL image, a numpy array or a torch tensor"
    )


def _from_array(array: npt.NDArray[Any], limits: ImageLimits) -> Image:
    what = f"the array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        hint = " (colours come last: array.transpose(1, 2, 0))" if array.ndim == 3 else ""
        raise ImageError(f"{what} is not an image; [H, W], [H, W, 3] or [H, W, 4] is read{hint}")
    check_size((array.shape[1], array.shape[0]), what, limits)
    image = PILImage.fromarray(np.ascontiguousarray(to_uint8(array, what)))
    return upright(image, what, limits)


def _array_of(tensor: Any) -> npt.NDArray[Any]:
    """A torch tensor's values, colours last.

    Raises:
        ImageError: Its values can't be read, as those of a meta or a sparse tensor.
    """
    try:
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()  # numpy has no bfloat16
        array: npt.NDArray[Any] = tensor.numpy()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as exc:
        raise ImageError(
            f"the tensor can't be read: {type(exc).__name__}; pass a dense one"
        ) from exc
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    return array
