"""Loads a Hugging Face checkpoint: which device, which dtype, and plain words if it fails."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, AutoProcessor

from speceyes.errors import ConfigError

logger = logging.getLogger(__name__)

_UNLISTED = "Unrecognized configuration class"


def load(
    source: str,
    *,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    revision: str | None,
    local_files_only: bool,
    trust_remote_code: bool,
    **model_kwargs: Any,
) -> tuple[Any, Any]:
    """(model, processor), the model on its device and in evaluation mode.

    A tokenizer without a padding token pads with its end-of-sequence token; padding is never
    looked at, so any token does.

    Raises:
        ConfigError: The checkpoint can't be loaded, or not onto this device.
    """
    processors: Any = AutoProcessor  # transformers' factories carry no types
    where = choose_device(device)
    kind = choose_dtype(dtype, where)
    common: dict[str, Any] = {
        "local_files_only": local_files_only,
        "trust_remote_code": trust_remote_code,
    }
    if revision is not None:
        common["revision"] = revision
    try:
        processor = processors.from_pretrained(source, **common)
        model = _weights(source, dtype=kind, **common, **model_kwargs)
        if "device_map" not in model_kwargs and "quantization_config" not in model_kwargs:
            model = model.to(where)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as exc:
        raise ConfigError(
            f"{source!r} could not be loaded ({reason(exc)}): pass a Hugging Face id or a "
            "directory that holds a vision-language checkpoint with its processor"
        ) from exc
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and tokenizer.pad_token is None and tokenizer.eos_token:
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s names no padding token: it is padded with %s", source, tokenizer.pad_token)
    return model.eval(), processor


def _weights(source: str, **options: Any) -> Any:
    """The model. What reads images and more besides, such as Phi-4-multimodal, is listed by
    transformers among the multimodal models only.
    """
    models: Any = AutoModelForImageTextToText
    try:
        return models.from_pretrained(source, **options)
    except ValueError as exc:
        wider: Any = getattr(transformers, "AutoModelForMultimodalLM", None)
        if wider is None or _UNLISTED not in str(exc):
            raise
    return wider.from_pretrained(source, **options)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or else CUDA where there is one.

    Raises:
        ConfigError: No such device, or CUDA where torch finds none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as exc:
        raise ConfigError(f"device={device!r} is not one: use 'cuda', 'cuda:0' or 'cpu'") from exc
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}, but torch finds no CUDA GPU here: use 'cpu'")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> str | torch.dtype:
    """The dtype asked for, or else float32 on the CPU and the GPU's best half precision.

    Raises:
        ConfigError: No such dtype.
    """
    if dtype is None:
        if device.type != "cuda":
            return torch.float32
        # Emulated bfloat16 is slower than float32 on the GPUs that lack it.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    named = getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype):
        raise ConfigError(f"dtype={dtype!r} is not one: use 'float32', 'bfloat16' or 'float16'")
    return named


def short_name(source: str) -> str:
    """A Hub id as it is; of a path only the last part, so that results name no directories."""
    path = Path(source)
    return path.resolve().name if path.is_dir() or path.is_absolute() else source


def reason(exc: BaseException) -> str:
    """What happened, on one line."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def out_of_memory(exc: BaseException) -> bool:
    """Whether memory ran out; not all of torch's backends have a type for it."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "alloc_failed" in text
    )
