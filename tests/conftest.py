"""What every test runs under: no network, no hidden deadlines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Nothing in the tests may reach for a model on the hub: a missing file has to fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# A shared machine is slow at times; a property is right or wrong, not late.
settings.register_profile("speceyes", deadline=None)
settings.load_profile("speceyes")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]
