"""`python -m speceyes`, the same as the command `speceyes`."""

from __future__ import annotations

import sys

from speceyes.cli import main

if __name__ == "__main__":
    sys.exit(main())
