"""Makes docs/assets/demo.png: the top of the demo's page, as a browser shows it.

    speceyes demo && python tests/support/demo_picture.py speceyes-demo/report.html

It needs playwright with its Chromium, or --browser with the path of one.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parents[2] / "docs" / "assets" / "demo.png"


def taken(page: Path, browser: str | None, width: int, height: int) -> Image.Image:
    """The top of the page on light ground."""
    with sync_playwright() as play, play.chromium.launch(executable_path=browser) as opened:
        tab = opened.new_page(viewport={"width": width, "height": height})
        tab.goto(page.resolve().as_uri())
        return Image.open(io.BytesIO(tab.screenshot()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--browser")
    given = parser.parse_args()
    shot = taken(given.page, given.browser, 1280, 1000).convert("RGB")
    shot.quantize(128).save(PICTURE, optimize=True)
