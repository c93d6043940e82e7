"""Devices that models can be loaded on."""

from __future__ import annotations


def devices() -> list[str]:
    """A line for each device of this machine: the CPU, then GPUs with their memory.

    Example:
        >>> devices()[0][:3]
        'cpu'
    """
    import torch

    found = [f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = about.total_memory / 2**30
        found.append(f"cuda:{index}, {about.name}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found
