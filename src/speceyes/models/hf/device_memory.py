"""Memory that is there, and that is in use: of a GPU, or of this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import torch


def is_gpu(device: str | torch.device) -> bool:
    """True where the device is a CUDA GPU, which has memory of its own."""
    return bool(torch.device(device).type == "cuda")


def used(device: str | torch.device) -> int | None:
    """Bytes in use: the most that torch has allocated on a GPU since its peak was last reset,
    or what of this process is in memory; None where the system doesn't tell.
    """
    if is_gpu(device):
        return int(torch.cuda.max_memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def reset(device: str | torch.device) -> None:
    """Begins a new peak, once all that was asked of a GPU is done."""
    if is_gpu(device):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)


def settle() -> None:
    """Gives the system what was freed, where the C library can: what it holds back would make
    the next run seem to take nothing. What comes next pays for having it back.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


def free(device: str | torch.device) -> int | None:
    """Bytes that can still be allocated; None where the system doesn't tell."""
    if is_gpu(device):
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if sys.platform != "win32":
        with contextlib.suppress(OSError, ValueError):
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
