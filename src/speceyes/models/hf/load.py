"""Loads a Hugging Face checkpoint: which device, which dtype, and plain words if it fails."""

from __future__ import annotations

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor

from speceyes.errors import ConfigError
from speceyes.models.hf.checkpoint import check_folder, check_pointers

logger = logging.getLogger(__name__)

_UNLISTED = "Unrecognized configuration class"
_ADAPTER = "adapter_config.json"
_ADDRESS = re.compile(r"\s*(?:https?://|[\w.-]+:[0-9]+(?:[/#]|$))", re.IGNORECASE)
"""With its scheme, or a host with a port; no Hub id has a colon."""
_PLACED = ("device_map", "quantization_config")
"""Arguments under which transformers itself puts the weights where they belong."""


def load(
    source: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    common: dict[str, Any] | None = None,
    model_kwargs: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """(model, processor), the model on its device and in evaluation mode.

    A tokenizer without a padding token pads with its end-of-sequence token; padding is never
    looked at, so any token does.

    Args:
        source: A Hugging Face id, a folder, or a folder with a LoRA adapter.
        device: See `choose_device`.
        dtype: See `choose_dtype`.
        min_pixels: Fewest pixels of an image after resizing; None for the checkpoint's own.
        max_pixels: Most pixels, likewise.
        common: Arguments for model and processor, such as revision or token.
        model_kwargs: Arguments for the model alone, such as device_map.

    Raises:
        ConfigError: The checkpoint can't be loaded, or not onto this device.
    """
    where = choose_device(device)
    options = {"dtype": choose_dtype(dtype, where), **(common or {}), **(model_kwargs or {})}
    base = _checked(source, bool((common or {}).get("trust_remote_code")))
    try:
        processor = _processor(base, min_pixels, max_pixels, **(common or {}))
        model = _weights(source, **options)
        if not any(options.get(name) for name in _PLACED):
            model = model.to(where)
        _check_placed(source, model)
    except ConfigError:
        raise
    # Whatever a checkpoint's own code or another release raises; the cause is kept.
    except Exception as exc:
        raise ConfigError(
            f"{source!r} could not be loaded ({reason(exc)}): {_advice(source, exc)}"
        ) from exc
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and tokenizer.pad_token is None and tokenizer.eos_token:
        tokenizer.pad_token = tokenizer.eos_token
        logger.info("%s names no padding token: it is padded with %s", source, tokenizer.pad_token)
    return model.eval(), processor


def _checked(source: str, own_code: bool) -> str:
    """Where the processor is, which for a LoRA adapter may be its base model.

    Raises:
        ConfigError: A path without a folder, a folder without a whole checkpoint, or a LoRA
            adapter that can't be loaded here.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if _ADDRESS.match(source):
            raise ConfigError(
                f"{source[:120]!r:.120} is an engine's address, not a checkpoint: pass "
                "OpenAIModel('http://...') of speceyes.models, or on the command line the address "
                "with its http://"
            )
        # A Hub id has one slash at most, and begins with neither a dot nor a slash.
        if source.startswith((".", "~")) or folder.is_absolute() or source.count("/") > 1:
            raise ConfigError(
                f"there is no folder {source!r}: pass one that holds a vision-language "
                "checkpoint, or a Hugging Face id such as 'Qwen/Qwen3-VL-2B-Instruct'"
            )
        return source
    if (folder / _ADAPTER).is_file():
        try:
            named = json.loads((folder / _ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            check_pointers(folder)
            raise ConfigError(
                f"{source!r} holds a LoRA adapter whose {_ADAPTER} names no base model "
                f"({reason(exc)}): set base_model_name_or_path in it"
            ) from exc
        if find_spec("peft") is None:
            raise ConfigError(
                f"{source!r} is a LoRA adapter for {named!r}: pip install peft to load both, or "
                "save the merged model (merge_and_unload) and pass its folder"
            )
        check_pointers(folder)
        try:
            _checked(str(named), own_code)
        except ConfigError as exc:
            raise ConfigError(
                f"{source!r} is a LoRA adapter whose base model can't be loaded: {exc} (set "
                f"base_model_name_or_path in its {_ADAPTER} to where that is)"
            ) from exc
        own = (folder / "processor_config.json", folder / "preprocessor_config.json")
        return source if any(file.is_file() for file in own) else str(named)
    if not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ConfigError(
            f"{source!r} could not be loaded: it has no config.json (it holds {held}): pass a "
            "folder that save_pretrained wrote, with the processor's files beside the model's"
        )
    check_folder(folder, own_code=own_code)
    return source


def _processor(source: str, min_pixels: int | None, max_pixels: int | None, **options: Any) -> Any:
    """The processor, under limits of its own for the pixels of an image.

    Raises:
        ConfigError: Limits that can't be, or an image processor that has none.
    """
    processors: Any = AutoProcessor  # transformers' factories carry no types
    processor = processors.from_pretrained(source, **options)
    if min_pixels is None and max_pixels is None:
        return processor
    images: Any = getattr(processor, "image_processor", None)
    size = dict(getattr(images, "size", None) or {})
    if not {"shortest_edge", "longest_edge"} <= size.keys() or size["longest_edge"] < 3136:
        raise ConfigError(
            f"min_pixels and max_pixels don't fit {type(images).__name__}, which counts no "
            "pixels: leave them out"
        )
    least = size["shortest_edge"] if min_pixels is None else min_pixels
    most = size["longest_edge"] if max_pixels is None else max_pixels
    if not 0 < least <= most:
        raise ConfigError(
            f"min_pixels={least} and max_pixels={most}; they must be above 0, and the fewest not "
            "above the most"
        )
    kind: Any = type(images)
    processor.image_processor = kind.from_dict(
        {**images.to_dict(), "size": {"shortest_edge": least, "longest_edge": most}}
    )
    return processor


def _weights(source: str, **options: Any) -> Any:
    """The model. What reads images and more besides, such as Phi-4-multimodal, is listed by
    transformers among the multimodal models only.

    Raises:
        ConfigError: The files lack some of its weights, which would be random numbers.
    """
    models: Any = AutoModelForImageTextToText
    try:
        model, info = models.from_pretrained(source, output_loading_info=True, **options)
    except ValueError as exc:
        wider: Any = getattr(transformers, "AutoModelForMultimodalLM", None)
        if wider is None or _UNLISTED not in str(exc):
            raise
        model, info = wider.from_pretrained(source, output_loading_info=True, **options)
    missing = sorted(info.get("missing_keys") or ())
    if missing and not Path(source, _ADAPTER).is_file():
        raise ConfigError(
            f"{source!r} lacks {len(missing)} of the model's weights, {missing[0]} among them, "
            "which would be random numbers: download or save the checkpoint anew"
        )
    return model


def _check_placed(source: str, model: Any) -> None:
    """Refuses a model none of whose layers is on a device.

    Raises:
        ConfigError: They are all on the disk, or nowhere.
    """
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    nowhere = all(weight.is_meta for weight in model.parameters())
    if nowhere or (places and places <= {"disk", "meta"}):
        raise ConfigError(
            f"{source!r}: device_map leaves no layer on a device "
            f"({', '.join(sorted(places)) or 'meta'}): put some of them on 'cpu' or 'cuda', or use "
            "device_map='auto'"
        )


def _advice(source: str, exc: Exception) -> str:
    """Advice about a checkpoint that can't be loaded."""
    if _UNLISTED in str(exc):
        return (
            "it is no vision-language model, perhaps one of text alone: pass one that "
            "AutoModelForImageTextToText knows"
        )
    said = str(exc)
    if isinstance(exc, SafetensorError | EOFError | UnpicklingError) or re.search(
        "deserializ|PytorchStreamReader|unpickling", said
    ):
        return "a file of weights is cut off or damaged: download or save it anew"
    unknown = re.search("unexpected keyword argument '([^']+)'", said)
    if unknown:
        return f"the model takes no argument {unknown[1]}: leave it out"
    if isinstance(exc, ImportError):
        return "install the package that it names, or leave out the option that needs it"
    if "NVIDIA driver" in said or "not compiled with CUDA" in said:
        return "torch finds no CUDA GPU here: use device='cpu' and no device_map"
    return (
        "pass a Hugging Face id or a directory that holds a vision-language checkpoint with its "
        "processor"
    )


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


def device_of(model: Any) -> torch.device:
    """Where a model takes its inputs: where its weights are, or the first of them that aren't on
    the disk.
    """
    device: torch.device = model.device
    if device.type != "meta":
        return device
    real = (weight.device for weight in model.parameters() if not weight.is_meta)
    return next(real, device)


def short_name(source: str) -> str:
    """A Hub id as it is; of a path only the last part, so that results name no directories."""
    path = Path(source)
    return path.resolve().name if path.is_dir() or path.is_absolute() else source


def reason(exc: BaseException) -> str:
    """An exception on one line."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def out_of_memory(exc: BaseException) -> bool:
    """True where memory ran out; not all of torch's backends have a type for it."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "alloc_failed" in text
    )


def hide_progress() -> None:
    """Shows no progress bars of weights from now on, in the whole process."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
