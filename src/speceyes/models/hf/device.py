"""A device that models take turns on, and how many rows fit into its memory."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from speceyes.models.hf.memory_fit import MemoryFit

logger = logging.getLogger(__name__)

_ROWS = 32
_MOST = 256


@dataclass(slots=True)
class _Meter:
    """Batches that are, and were, measured on a device."""

    active: int = 0
    begun: int = 0


@final
class Device:
    """A model's use of its device: its turn, its stream, the size of its batches.

    Args:
        name: The model's name, for the log.
        device: The device.
        max_batch: Most rows of a batch; None for 32 on the CPU, and on CUDA for as many as the
            memory that earlier batches took says there is room for.
        lock: Taken while the model works; shared by all that use the same weights.
    """

    _meters: ClassVar[defaultdict[torch.device, _Meter]] = defaultdict(_Meter)
    _meters_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        name: str,
        device: torch.device,
        max_batch: int | None,
        lock: threading.Lock | None = None,
    ) -> None:
        self.name, self.device = name, device
        # Tokenizers hold state while they pad, and models keep positions between steps.
        self.lock = lock or threading.Lock()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.fit: MemoryFit | None = None
        if max_batch is None and self._stream is not None:
            self.fit = MemoryFit(_MOST, self._free)
        self._most = _MOST if self.fit is not None else max_batch or _ROWS

    def rows(self, tokens: int | None = None) -> int:
        """Most rows of so many tokens in one batch; of the longest seen, if None."""
        return self._most if self.fit is None else min(self._most, self.fit.rows(tokens))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Around all that touches the model; on CUDA its own stream, so that two models on one
        device, called from two threads, work side by side.
        """
        with self.lock, torch.inference_mode():
            if self._stream is None:
                yield
                return
            self._stream.wait_stream(torch.cuda.default_stream(self.device))
            with torch.cuda.stream(self._stream):
                yield

    @contextmanager
    def measured(self, rows: int, tokens: int) -> Iterator[None]:
        """Learns what the batch inside takes, unless another model works on the device too."""
        if self.fit is None:
            yield
            return
        meter = self._meters[self.device]
        with self._meters_lock:
            alone = meter.active == 0
            meter.active += 1
            meter.begun += 1
            begun = meter.begun
            if alone:
                torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        try:
            yield
            # A peak is the device's, whoever caused it.
            if alone and meter.begun == begun:
                peak = torch.cuda.max_memory_allocated(self.device)
                self.fit.took(rows, tokens, peak - before)
        finally:
            with self._meters_lock:
                meter.active -= 1

    def shrink(self, size: int) -> None:
        """Makes room after memory ran out with `size` rows."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            self._most = min(self._most, size // 2)
            if self.fit is not None:
                self.fit.shrink(size // 2)
            logger.warning(
                "%s: out of memory with %d rows; going on with %d", self.name, size, size // 2
            )

    def _free(self) -> int:
        """Bytes that a batch can have on this GPU: free ones, and those that torch holds unused."""
        free, _ = torch.cuda.mem_get_info(self.device)
        held = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(free + held)
