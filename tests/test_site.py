"""The site: it builds without a warning, its links lead somewhere, and it loads nothing from afar.

Also what the pages of the project hold: a citation that tools can read, and every public name in
the reference.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import yaml

import speceyes

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_mkdocs = pytest.mark.skipif(
    not (find_spec("mkdocs") and find_spec("material") and find_spec("mkdocstrings_handlers")),
    reason='mkdocs, its theme or mkdocstrings is not installed: pip install -e ".[docs]"',
)


class _Page(HTMLParser):
    """The anchors of a page, where it links to, and what a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what the tag points to."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("prev", "next", "canonical", "edit"):
            self.loads.append(given.get("href", ""))
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.loads.append(given.get("src", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site") / "built"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".mkdocs.yml", "-d", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, _Page]:
    """Every page by its path in the site."""
    found = {
        path.relative_to(site).as_posix(): _Page(path.read_text(encoding="utf-8"))
        for path in site.rglob("*.html")
    }
    assert len(found) > 30
    return found


@needs_mkdocs
def test_links_and_anchors_of_the_site_lead_somewhere(site: Path, pages: dict[str, _Page]) -> None:
    broken = []
    for name, page in pages.items():
        if name == "404.html":  # its links are absolute, for it is shown anywhere
            continue
        for link in page.links:
            target, anchor = urldefrag(urljoin(f"http://site/{name}", link))
            if not target.startswith("http://site/"):
                continue
            path = unquote(target.removeprefix("http://site/"))
            path = path + "index.html" if path == "" or path.endswith("/") else path
            if not (site / path).is_file():
                broken.append(f"{name}: {link} is not there")
            elif anchor and path in pages and unquote(anchor) not in pages[path].anchors:
                broken.append(f"{name}: {link} has no such anchor")
    assert not broken, "\n".join(broken)


@needs_mkdocs
def test_the_site_loads_nothing_from_another_host(site: Path, pages: dict[str, _Page]) -> None:
    afar = {
        f"{name}: {address}"
        for name, page in pages.items()
        for address in page.loads
        if re.match(r"(\w+:)?//", address)
    }
    for path in site.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        for address in re.findall(r"(?:url\(|@import )[\"']?((?:\w+:)?//[^\"')]+)", style):
            afar.add(f"{path.name}: {address}")
    assert not afar


@needs_mkdocs
def test_the_site_has_the_examples_and_the_changes(pages: dict[str, _Page]) -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names <= pages["examples.html"].anchors
    assert "unreleased" in pages["changelog.html"].anchors


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_no_page_is_wider_than_its_screen(site: Path, pages: dict[str, _Page]) -> None:
    """At a desk's and at a phone's width; wide tables and code scroll inside themselves. Nothing
    is asked of another host, and nothing fails in the browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with _served(site) as base, sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            page = chromium.new_page(viewport={"width": width, "height": 844})
            asked: list[str] = []
            failed: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("pageerror", lambda error, failed=failed: failed.append(str(error)))
            for name in sorted(pages):
                page.goto(base + name)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} is {wide} pixels wide on a screen of {width}"
            afar = [url for url in asked if not url.startswith((base, "data:", "blob:"))]
            assert not afar and not failed
            page.close()
        chromium.close()


class _served:
    """The site at an address of this machine; a page that asks for files needs one."""

    def __init__(self, folder: Path) -> None:
        quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": _nothing})
        handler = functools.partial(quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _nothing(*_: object) -> None:
    """Says nothing of a request."""


def test_every_public_name_is_in_the_reference() -> None:
    told = "\n".join(path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md"))
    names = set(re.findall(r"^::: speceyes\.([\w.]+)$", told, re.MULTILINE))
    missing = set(speceyes.__all__) - {"__version__"} - names
    errors = {name for name in missing if name.endswith("Error")}
    assert "errors" in names  # they stand there as one module
    assert missing == errors


def _nav(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from _nav(inner)


def test_every_page_is_in_the_navigation() -> None:
    """By reading the configuration, so that it holds where mkdocs isn't installed."""

    class Loader(yaml.SafeLoader):
        """Reads what names a function of Python as nothing."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / ".mkdocs.yml").read_text("utf-8"), Loader)
    listed = list(_nav(config["nav"]))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == there | {"examples.md", "changelog.md"}


def test_citation_is_one() -> None:
    """What the Citation File Format 1.2.0 asks for, and both papers."""
    cited = yaml.safe_load((DOCS / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert cited["license"] == "Apache-2.0"
    for work in (cited["preferred-citation"], *cited["references"]):
        assert {"type", "title", "authors", "year", "url"} <= work.keys()
        assert work["authors"]
        for author in work["authors"]:
            assert author.keys() == {"family-names", "given-names"}
    urls = {work["url"].rpartition("/")[2] for work in cited["references"]}
    assert urls == {"2603.23483", "2604.04929"}
    assert cited["preferred-citation"]["url"].endswith("2603.23483")
