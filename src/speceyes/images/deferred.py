"""A JPEG that phases first see small: decoded at a reduced scale now, in full when it is asked for.

The format stores frequencies, so that a half, a quarter or an eighth of the size comes out of the
decoder at once. Where judge and drafter see no more than so many pixels, that is all they need,
and only what goes to the agent pays for the whole picture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, final

from PIL import Image as PILImage
from PIL.JpegImagePlugin import JpegImageFile

from speceyes.images.pixel_cache import decoded, defer, frozen, views
from speceyes.images.reduced import reduced_size, shrunk
from speceyes.images.rgb import lies_down
from speceyes.types import Image

_FEWEST_TIMES: Final = 2  # that the smallest reduction divides a side by


@final
class DeferredImage(PILImage.Image):
    """An RGB image whose pixels are decoded when they are first asked for, as those of a file that
    Pillow has opened are. Threads may ask at the same time.

    Args:
        size: (width, height) in pixels, upright.
        decode: Gives the pixels.
    """

    def __init__(self, size: tuple[int, int], decode: Callable[[], Image]) -> None:
        super().__init__()
        self._mode, self._size = "RGB", size
        self._decode: Callable[[], Image] | None = decode
        self._lock = threading.Lock()
        # So that whoever writes to it writes to a copy, as to any image that is kept.
        self.readonly = 1
        defer(self)

    @property
    def undecoded(self) -> bool:
        """True while nobody has asked for the pixels."""
        return self._decode is not None

    def load(self) -> Any:
        """Decodes it, the first time.

        Raises:
            ImageError: It can't be decoded.
        """
        if self._decode is not None:
            with self._lock:
                if self._decode is not None:
                    self.im = self._decode().im
                    decoded(self)
                    self._decode = None
        return super().load()

    def __reduce__(self) -> Any:
        """Its pixels: what decodes them stays in this process."""
        return _itself, (self.copy(),)


def _itself(image: Image) -> Image:
    return image


def at_a_scale(image: JpegImageFile, most: Sequence[int]) -> bool:
    """Sets an opened file to the reduced scale that serves the largest of its views; False where
    none does, so that it has to be decoded in full anyway: it is left as it was then.

    Args:
        image: The opened file.
        most: Most pixels of each view, at least one.
    """
    width, height = image.size
    if any(width * height <= pixels for pixels in most):
        return False
    across, down = reduced_size(width, height, max(most))
    if min(width // across, height // down) < _FEWEST_TIMES:
        return False
    image.draft(None, (across, down))
    return True


def smaller(read: Image, size: tuple[int, int], most: Sequence[int]) -> list[Image]:
    """Views of an image, largest first, each size once.

    Args:
        read: It, decoded at a reduced scale, upright.
        size: (width, height) of the whole of it, upright.
        most: Most pixels of each view.
    """
    sizes = dict.fromkeys(reduced_size(*size, one) for one in sorted(most, reverse=True))
    return [shrunk(read, one) for one in sizes]


def deferred(
    size: tuple[int, int], seen: Iterable[Image], whole: Callable[[], Image]
) -> DeferredImage:
    """An image that has its smaller views already.

    Args:
        size: (width, height) in pixels, upright.
        seen: The views, which nobody else holds.
        whole: Decodes it in full, upright.
    """
    made = DeferredImage(size, whole)
    known = views(made)
    assert known is not None
    known.update((one.size, frozen(one, ours=True)) for one in seen)
    return made


def whole_size(image: JpegImageFile) -> tuple[int, int]:
    """(width, height) of an opened file once it stands upright."""
    width, height = image.size
    return (height, width) if lies_down(image) else (width, height)
