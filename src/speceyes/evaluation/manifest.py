"""Manifest of a run: versions, models' hashes, arguments, hardware, seeds, code."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speceyes.environment import versions
from speceyes.errors import ConfigError, InputError
from speceyes.files import write_whole

_VERSION = 1
_WEIGHTS = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model")


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_files(name: str) -> dict[str, str]:
    """SHA-256 of a model's files by name: weights, configuration, tokenizer.

    Args:
        name: A folder, or a model's name on the Hub that lies in the local cache.

    Returns:
        Nothing where the files are not on this machine, as behind an engine.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(name, local_files_only=True))
        except Exception:  # noqa: BLE001 - not there, not installed, or no such name: all the same
            return {}
    found = sorted(p for p in folder.iterdir() if p.suffix in _WEIGHTS and p.is_file())
    return {path.name: sha256(path) for path in found}


def folder_fingerprint(path: Path) -> str:
    """A short hash over names and sizes of the files under a path, to notice that data changed."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{p.relative_to(path)}\0{p.stat().st_size}" for p in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def surroundings() -> dict[str, Any]:
    """Versions, hardware and code of this very process."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions("tokenizers"),
        "hardware": _hardware(),
        "code": _code(),
    }


def _hardware() -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = models[0] if models else processor
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "simd": [k for k in ("AVX2", "AVX512F", "NEON") if _has(k)],
    }


def _has(feature: str) -> bool:
    config = getattr(np, "show_config", None)
    found = config(mode="dicts") if config is not None else {}
    simd = found.get("SIMD Extensions", {}) if isinstance(found, Mapping) else {}
    return feature in (*simd.get("baseline", ()), *simd.get("found", ()))


def _code() -> dict[str, Any]:
    """The package's own source, hashed, and its git revision where it is a checkout."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return {"source_sha256": digest.hexdigest()[:16], **_git(root)}


def _git(root: Path) -> dict[str, Any]:
    if not (root.parents[1] / ".git").exists():
        return {"revision": None}
    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        ]
    except (OSError, subprocess.SubprocessError):
        return {"revision": None}
    return {"revision": said[0], "changed": bool(said[1])}


def begin(path: Path, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The manifest of a run that starts here or goes on.

    Args:
        path: The manifest's file.
        fixed: What may not change within a run: arguments, models, data.

    Returns:
        The manifest as written, and whether the run goes on. Its "sessions" hold the
        surroundings of each time it was started.

    Raises:
        ConfigError: The run there was made with something else; the message says with what.
    """
    fixed = json.loads(json.dumps(fixed))  # as it will be read back
    before = read(path) if path.exists() else None
    if before is not None:
        differ = _differences(before["fixed"], fixed)
        if differ:
            raise ConfigError(
                f"{path.parent} holds a run made otherwise: {'; '.join(differ)}. Resume with the "
                "same arguments, or choose another folder"
            )
    sessions = [*(before["sessions"] if before else ()), surroundings()]
    manifest = {"format": "speceyes-run", "version": _VERSION, "fixed": fixed, "sessions": sessions}
    write_whole(path, json.dumps(manifest, indent=1) + "\n")
    return manifest, before is not None


def read(path: Path) -> dict[str, Any]:
    """The manifest that `begin` wrote.

    Raises:
        InputError: It isn't there, or isn't one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != "speceyes-run" or data["version"] != _VERSION:
            raise ValueError(f"format {data['format']!r}, version {data['version']!r}")
        if not (isinstance(data["fixed"], dict) and isinstance(data["sessions"], list)):
            raise ValueError("its parts are missing")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise InputError(
            f"{path} is no manifest of a run ({exc}): name a folder that speceyes eval wrote"
        ) from exc
    found: dict[str, Any] = data
    return found


def _differences(old: Any, new: Any, at: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in _differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        ]
    return [] if old == new else [f"{at} was {old!r}, is {new!r}"]
