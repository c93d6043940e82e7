"""Checks on a checkpoint's folder before any of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import safetensors
import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from speceyes.errors import ConfigError

_POINTER: Final = b"version https://git-lfs.github.com/spec"
_TOKENIZERS: Final = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json",
    "sentencepiece.bpe.model", "*.tiktoken", "*.spm",
)  # fmt: skip
_PROCESSORS: Final = ("processor_config.json", "preprocessor_config.json")
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_LAYOUTS: Final = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
_SMALL: Final = 1 << 12
"""Bytes; a Git LFS pointer has about 130."""


def check_folder(folder: Path, *, own_code: bool = False) -> None:
    """Refuses a folder that no model can be loaded from, by the file that is at fault.

    Args:
        folder: With config.json.
        own_code: The checkpoint may bring code, and with it files and families of its own.

    Raises:
        ConfigError: Files that Git LFS has yet to fetch, weights that are missing or cut off, a
            configuration that can't be read, a family that reads no images, or no tokenizer or
            image processor beside the model.
    """
    check_pointers(folder)
    kind = _family(folder)
    if not own_code and kind:
        _check_family(folder, kind)
    if not own_code:
        _check_beside(folder)
    _check_weights(folder)


def check_pointers(folder: Path) -> None:
    """Refuses files that hold a reference of Git LFS in place of their content.

    Raises:
        ConfigError: Names the first of them.
    """
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < _SMALL:
            with path.open("rb") as file:
                if file.read(len(_POINTER)) == _POINTER:
                    raise ConfigError(
                        f"{str(folder)!r}: {path.name} is a Git LFS pointer, not the file itself: "
                        "run `git lfs install && git lfs pull` in that folder, or download it anew"
                    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{str(path.parent)!r}: {path.name} can't be read ({type(exc).__name__}): download or "
            "save the checkpoint anew"
        ) from exc


def _family(folder: Path) -> str:
    config = _read(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) and not (isinstance(config, dict) and config.get("auto_map")):
        raise ConfigError(
            f"{str(folder)!r}: config.json names no model_type, so it is none of transformers' "
            "checkpoints: pass a folder that save_pretrained wrote"
        )
    return kind or ""


def _check_family(folder: Path, kind: str) -> None:
    if kind not in CONFIG_MAPPING_NAMES:
        raise ConfigError(
            f"{str(folder)!r}: transformers {transformers.__version__} knows no family {kind!r}: "
            "update transformers, or pass trust_remote_code=True if the checkpoint brings code "
            "that you trust"
        )
    tables = ("IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")
    names = [getattr(modeling_auto, f"MODEL_FOR_{name}_MAPPING_NAMES", None) for name in tables]
    if all(names) and not any(kind in (some or ()) for some in names):
        raise ConfigError(
            f"{str(folder)!r} is of the family {kind!r}, no vision-language model, perhaps one of "
            "text alone: pass one that AutoModelForImageTextToText knows"
        )


def _holds(folder: Path, patterns: Iterable[str]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _check_beside(folder: Path) -> None:
    for what, patterns in (("tokenizer", _TOKENIZERS), ("image processor", _PROCESSORS)):
        if not _holds(folder, patterns):
            some = " or ".join(patterns[:2])
            raise ConfigError(
                f"{str(folder)!r} has no {what} beside the model ({some}): copy the files of the "
                "checkpoint that it was made from, as processor.save_pretrained(folder) does"
            )


def _check_weights(folder: Path) -> None:
    if not _holds(folder, _WEIGHTS):
        raise ConfigError(
            f"{str(folder)!r} has no weights (model.safetensors): finish the download, or save "
            "the model there"
        )
    for whole, index in _LAYOUTS:  # the first is the one that is loaded
        if (folder / whole).is_file():
            parts = {whole}
        elif (folder / index).is_file():
            named = _read(folder / index)
            parts = set(map(str, (named.get("weight_map") or {}).values()))
        else:
            continue
        missing = sorted(part for part in parts if not (folder / part).is_file())
        if missing:
            raise ConfigError(
                f"{str(folder)!r} lacks {len(missing)} of the files of weights that {index} "
                f"names, {missing[0]} among them: finish the download"
            )
        for part in sorted(parts):
            if part.endswith(".safetensors"):
                _check_whole(folder / part)
        return


def _check_whole(path: Path) -> None:
    """Refuses a file of weights that isn't as long as its own header says. Reads the header only.

    Raises:
        ConfigError: It isn't, or has no header.
    """
    try:
        with safetensors.safe_open(path, "pt"):
            pass
    except (safetensors.SafetensorError, OSError) as exc:
        raise ConfigError(
            f"{str(path.parent)!r}: {path.name} ({path.stat().st_size:,} bytes) is cut off or "
            f"damaged, or no file of safetensors at all ({exc}): download or save it anew"
        ) from exc
