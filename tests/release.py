"""Builds the sdist and the wheel of a release, the same bytes wherever and whenever it is run.

Run: SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) python tests/release.py dist
Needs `build`, `setuptools` and `twine`, which the `test` extra brings. Nothing is uploaded.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
_LEFTOVERS = shutil.ignore_patterns("__pycache__", "*.egg-info")


def build(out: Path, epoch: int, root: Path = ROOT, *, check: bool = True) -> tuple[Path, Path]:
    """The sdist and the wheel, made of a copy of the tree and checked by twine.

    Args:
        out: Where they are put; made if need be.
        epoch: The time of everything in them, in seconds since 1970.
        root: The checkout.
        check: False for what was checked already, the same byte for byte.

    Raises:
        subprocess.CalledProcessError: The build or the check failed; what they said is shown.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree, made = Path(folder, "tree"), Path(folder, "made")
        tree.mkdir()
        for name in _FILES:
            shutil.copyfile(root / name, tree / name)
        shutil.copytree(root / "src", tree / "src", ignore=_LEFTOVERS)
        for path in tree.rglob("*"):  # a checkout's permissions depend on who made it
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), "."]
        _run(command, tree, {"SOURCE_DATE_EPOCH": str(epoch)})
        [sdist], [wheel] = made.glob("*.tar.gz"), made.glob("*.whl")
        (out / sdist.name).write_bytes(_same(sdist, epoch))
        shutil.copyfile(wheel, out / wheel.name)
    built = out / sdist.name, out / wheel.name
    if check:
        _run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], out, {})
    return built


def _run(command: list[str], cwd: Path, more: dict[str, str]) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_", "PYTEST"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        umask=0o022 if os.name == "posix" else -1,  # a wheel's own files are made by the build
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:])
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)


def _same(sdist: Path, epoch: int) -> bytes:
    """The archive without what setuptools takes from the machine: times, owners, order."""
    plain = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid = epoch, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return gzip.compress(plain.getvalue(), mtime=epoch)


def main() -> None:
    """Builds into the folder that is named."""
    if len(sys.argv) != 2 or not os.environ.get("SOURCE_DATE_EPOCH", "").isdigit():
        sys.exit(__doc__)
    for path in build(Path(sys.argv[1]).resolve(), int(os.environ["SOURCE_DATE_EPOCH"])):
        sys.stdout.write(f"{path} ({path.stat().st_size:,} bytes)\n")


if __name__ == "__main__":
    main()
