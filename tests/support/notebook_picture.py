"""Makes docs/assets/result.png: what a result shows of itself in a notebook.

    cd tests && python -m support.notebook_picture

It asks the bundled pair about held-out scene 5, for which the agent zooms twice. It needs
playwright with its Chromium, or --browser with the path of one.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

from speceyes import SpecPipeline, tiny
from speceyes.notebook import result_html
from speceyes.tiny.scenes import questions
from support.demo_picture import taken

PICTURE = Path(__file__).parents[2] / "docs" / "assets" / "result.png"


def page() -> str:
    """A page that holds the one result, as a notebook's cell would."""
    [item] = islice(questions("heldout", 6), 5, 6)
    with SpecPipeline.from_pretrained(
        tiny.LARGE, tiny.SMALL, tools=["zoom"], gate=tiny.gate()
    ) as pipe:
        result = pipe(item.query.images[0], item.query.question)
    shown = result_html(result, item.query.images)
    return f"<!doctype html><meta charset=utf-8><body style='margin:1em'>{shown}</body>"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "result.html"
        written.write_text(page(), encoding="utf-8")
        shot = taken(written, given.browser, 820, 472).convert("RGB")
    shot.quantize(128).save(PICTURE, optimize=True)
