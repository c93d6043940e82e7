"""speceyes as a part of other people's programs, one file each, imported when they ask for it."""

from __future__ import annotations

from importlib import metadata
from typing import Any


def lmms_eval_manifest() -> Any:
    """The manifest for the entry point `speceyes` in lmms-eval's group `lmms_eval.models`.

    Returns:
        An `lmms_eval.models.registry_v2.ModelManifest`. The model's own file is imported when the
        model is asked for, not when lmms-eval lists what there is.
    """
    from lmms_eval.models.registry_v2 import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        ModelManifest,
    )

    return ModelManifest(
        model_id="speceyes", simple_class_path="speceyes.integrations.lmms_eval.SpecEyesModel"
    )


def installed() -> str:
    """The version of this package, for those that want to be told; empty in a bare checkout."""
    try:
        return metadata.version("speceyes")
    except metadata.PackageNotFoundError:
        return ""
