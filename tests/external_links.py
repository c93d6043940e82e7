"""Asks for every address outside of this repository that the pages link to, and tells the dead.

Run: python tests/external_links.py
Exits with 1 where a server says that a page isn't there. A host that doesn't answer, or no network
at all, is told and counts for nothing: it says nothing of the page.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\]\((https?://[^)\s#]+)|^ +url: (https?://\S+)", re.MULTILINE)
_GONE = (404, 410)


def links() -> dict[str, str]:
    """Each address, and a page that has it."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "CITATION.cff"]
    found: dict[str, str] = {}
    for page in (*pages, *sorted((ROOT / "docs").rglob("*.md"))):
        for one in _LINK.finditer(page.read_text(encoding="utf-8")):
            found.setdefault(one[1] or one[2], page.name)
    return found


def said(address: str) -> int | None:
    """The status that the server gives; None where it can't be asked."""
    request = urllib.request.Request(address, headers={"User-Agent": "speceyes-links/1"})
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as exc:
        return exc.code
    except OSError:
        return None


def main() -> int:
    """Prints what can't be reached and what isn't there; 1 where something isn't."""
    found = links()
    with ThreadPoolExecutor(4) as pool:
        statuses = dict(zip(found, pool.map(said, found), strict=True))
    unknown = [address for address, status in statuses.items() if status is None]
    gone = [address for address, status in statuses.items() if status in _GONE]
    for address in gone:
        sys.stdout.write(f"{found[address]}: {address} is not there ({statuses[address]})\n")
    sys.stdout.write(f"{len(found)} links: {len(gone)} dead, {len(unknown)} could not be asked\n")
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())
