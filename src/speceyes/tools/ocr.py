"""OCR: the text in an image, read by RapidOCR's neural networks on the CPU.

The package brings its networks with it (PP-OCR, Latin and Chinese script), so nothing is
downloaded. It is an extra: `pip install "speceyes[ocr]"`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._places import BOX, INDEX, image_at, region_of
from speceyes.types import Image, Observation

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {"bbox_2d": BOX, "img_idx": INDEX},
    "required": [],
}


@dataclass(frozen=True, slots=True)
class Ocr:
    """Reads the text in an image or a part of it, each line with its place in the image.

    The networks are loaded at the first call. Calls are made one after another: an engine
    keeps to one thread.

    Args:
        min_confidence: Lines that the engine is less sure of (0 to 1) are left out.
        max_lines: Most lines that are told.
        threads: CPU threads of the engine; -1 leaves it to the engine.

    Raises:
        ConfigError: The extra isn't installed, or an argument is out of range.
    """

    stateless: ClassVar[bool] = True
    reads: ClassVar[Literal["image"]] = "image"

    min_confidence: float = 0.5
    max_lines: int = 100
    threads: int = -1
    name: str = "ocr_tool"
    description: str = "Reads the text in an image or a part of it; tells where each line stands."
    _engine: _Engine = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence={self.min_confidence}; it must be in [0, 1]")
        if self.max_lines < 1:
            raise ConfigError(f"max_lines={self.max_lines}; it must be at least 1")
        if self.threads < 1 and self.threads != -1:
            raise ConfigError(f"threads={self.threads}; at least 1, or -1 for the engine's choice")
        try:
            importlib.import_module("onnxruntime")  # RapidOCR misses it only when it reads
            importlib.import_module("rapidocr")
        except ImportError as exc:
            raise ConfigError(
                f'OCR needs an extra ({exc}): install it by pip install "speceyes[ocr]"'
            ) from exc
        object.__setattr__(self, "_engine", _engine(self.threads))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `bbox_2d` and `img_idx`."""
        return _PARAMETERS

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """A line for each line of text, from top to bottom, or one that says there is none.

        Args:
            images: Every image so far, full resolution.
            arguments: `bbox_2d` in pixels of the image; `img_idx` (default 0).

        Raises:
            ToolError: The box lies outside the image, or the image isn't there.
        """
        index, image = image_at(images, arguments)
        region = region_of(image, arguments)
        rgb = np.asarray(image.crop(region).convert("RGB"))
        lines = []
        for text, sure, corners in self._engine.read(rgb):
            if sure < self.min_confidence:
                continue
            low, high = corners.min(axis=0), corners.max(axis=0)
            place = [round(float(value)) + region[at % 2] for at, value in enumerate((*low, *high))]
            lines.append(f"{text} {place}")
        if len(lines) > self.max_lines:
            lines[self.max_lines :] = [f"({len(lines) - self.max_lines} more lines)"]
        told = "\n".join(lines) or "No text was found."
        whole = region == (0, 0, image.width, image.height)
        return Observation((told,), box=None if whole else region, source=index)


@functools.cache
def _engine(threads: int) -> _Engine:
    """One engine serves all tools of a process that ask for as many threads."""
    return _Engine(threads)


class _Engine:
    """RapidOCR, loaded when it is first asked."""

    __slots__ = ("_loaded", "_lock", "_threads")

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._loaded: Any = None
        self._lock = threading.Lock()

    def read(self, rgb: np.ndarray[Any, Any]) -> list[tuple[str, float, np.ndarray[Any, Any]]]:
        """(text, confidence 0 to 1, float[4, 2] corners in pixels) of each line.

        Args:
            rgb: uint8[height, width, 3].
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = importlib.import_module("rapidocr").RapidOCR(
                    params={
                        "Global.log_level": "critical",
                        "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
                    }
                )
                logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
            try:
                found = self._loaded(rgb[:, :, ::-1])  # it reads BGR, as OpenCV does
            except Exception as exc:
                raise ToolError(f"the text could not be read: {exc}") from exc
        if found.txts is None:
            return []
        return list(zip(found.txts, map(float, found.scores), np.asarray(found.boxes), strict=True))
