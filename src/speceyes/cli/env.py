"""`speceyes env`: what a report of a fault needs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from speceyes import tiny
from speceyes.cli import models
from speceyes.cli.options import command

ABOUT = """\
Prints versions, devices, how models are driven and why, and what sandbox and what OCR there are:
what a report of a fault needs. Loads the bundled models, or those of --large and --small, to see
how they are driven; --no-models leaves that out."""

EXTRAS = {
    "serve": ("fastapi", "uvicorn", "prometheus-client"),
    "ocr": ("rapidocr", "onnxruntime"),
    "sandbox": ("opencv-python-headless", "matplotlib"),
    "eval": ("pyarrow",),
    "mcp": ("mcp",),
    "smolagents": ("smolagents",),
    "langchain": ("langchain-core",),
    "otel": ("opentelemetry-api", "opentelemetry-sdk"),
}
"""Distributions by the extra that brings them."""

DRIVERS = {
    "qwen_vl_adapter": "which reads only what is new of a prompt",
    "generate": "which reads each prompt anew: answers are the same, and slower",
}
"""What each way to drive a model means for the user."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to an argparse sub-parser set."""
    one = command(
        commands,
        "env",
        help="versions, devices, sandbox and OCR, for a report of a fault",
        description=ABOUT,
    )
    one.add_argument("--large", metavar="MODEL", help=models.MODEL_HELP)
    one.add_argument("--small", metavar="MODEL", help="likewise")
    models.add_loading(one)
    one.add_argument("--no-models", action="store_true", help="load no model")
    one.add_argument("--json", action="store_true", help="print it as JSON")
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs it; the exit code is 1 where a model can't be loaded."""
    from speceyes.environment import machine, versions
    from speceyes.models.hf.devices import devices

    found: dict[str, Any] = {
        "versions": versions(),
        "machine": machine(),
        "devices": devices(),
        "extras": {name: _installed(wanted) for name, wanted in EXTRAS.items()},
        "sandbox": _sandbox(),
        "ocr": _ocr(),
        "models": {} if options.no_models else _models(options),
    }
    print(json.dumps(found, indent=2) if options.json else _text(found))
    return int(any("error" in one for one in found["models"].values()))


def _installed(wanted: tuple[str, ...]) -> str:
    from importlib import metadata

    found = []
    for name in wanted:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            return f"{name} is not installed"
    return ", ".join(found)


def _sandbox() -> str:
    """The sandbox that code of models would run in, with why none before it; or why none is."""
    from speceyes.errors import ConfigError
    from speceyes.tools.python import PACKAGES, find_sandbox

    try:
        found = find_sandbox("auto", PACKAGES)
    except ConfigError as exc:
        return f"none: {exc}"
    return found.executor.name + (f" (not {found.reasons})" if found.reasons else "")


def _ocr() -> str:
    from speceyes.errors import ConfigError
    from speceyes.tools.ocr import Ocr

    try:
        Ocr()
    except ConfigError as exc:
        return f"none: {exc}"
    return _installed(EXTRAS["ocr"])


def _models(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Driver of each model, by its name; "error" where it can't be loaded."""
    from speceyes.errors import describe
    from speceyes.models.hf import HFModel
    from speceyes.models.hf.load import hide_progress

    hide_progress()  # between the lines of a report
    named = {role: getattr(options, role) for role in ("large", "small")}
    asked = [(name, role) for role, name in named.items() if name is not None]
    bundled = [(tiny.LARGE, "large"), (tiny.SMALL, "small"), (tiny.SMALL_ZOOM, "small")]
    found: dict[str, dict[str, Any]] = {}
    for name, role in asked or [(str(path), role) for path, role in bundled]:
        try:
            model = models.load_named(name, options, role)
            about = {"class": type(model).__name__}
            if isinstance(model, HFModel):
                driver = model.driver
                why = f": {driver.reason}" if driver.reason else ""
                about["driver"] = f"{driver.name}, {DRIVERS[driver.name]}{why}"
                about |= {"device": str(model.device), "dtype": str(model.dtype)}
        except Exception as exc:  # noqa: BLE001 - the others are told all the same
            about = {"error": describe(exc)}
        found[name] = about
    return found


def _text(found: dict[str, Any]) -> str:
    rows = [*found["versions"].items(), *found["machine"].items()]
    rows += [("device", one) for one in found["devices"]]
    rows += [(f"extra {name}", said) for name, said in found["extras"].items()]
    rows += [("sandbox", found["sandbox"]), ("ocr", found["ocr"])]
    lines = [f"{name:<18}{value}" for name, value in rows]
    for name, about in found["models"].items():
        lines += [name, *(f"  {key:<16}{value}" for key, value in about.items())]
    return "\n".join(lines)
