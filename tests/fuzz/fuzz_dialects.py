r"""Fuzzes what every dialect reads out of a model's turn, guided by coverage, with atheris.

    python tests/fuzz/fuzz_dialects.py --seconds 300

Nothing but `ParseError` may leave `parse` and `locate`, a turn has an answer or calls, and a text
is read in a time that is linear in its length. The start corpus is the hand-written odd outputs
of tests/support/dialect_corpus.py; the mutator knows where tags, fences, quotes and brackets are,
and moves, doubles, drops and exchanges those, besides what libFuzzer does to bytes by itself.

What it finds is written to --keep as it was read, with the dialect's name, and the process ends
with a code other than 0.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import atheris

with atheris.instrument_imports(include=["speceyes.dialects"]):
    from support.dialect_corpus import CORPUS, SPEAKERS

from PIL import Image

from speceyes.errors import ParseError

LONGEST = 4096
"""Bytes of a turn, so that a run makes many; length is looked into by `stretched`."""
STRETCHED = 200_000
"""Characters of a turn that is repeated to look at its time."""
PATIENCE = 2.0
"""CPU seconds for those, more than ten times what the slowest takes; a square law takes minutes."""
TOKENS = (
    "<think> </think> <tool_call> </tool_call> <code> </code> <answer> </answer> <grounding> "
    "</grounding> <tool_response> ``` ```json ```python Action: Answer \\boxed{ Object Mapper "
    '"name" "arguments" "bbox_2d" "img_idx" "source" "target_image" "index" [ ] { } " \' , : \\ '
    "NaN -Infinity 1e999 99999999999999999999 -0 null true \ud800 \u2028"
).split(" ")
PARTS = re.compile(r"</?\w+>|```\w*|\w+|\s+|[^\w\s]")
SPOKEN = tuple(SPEAKERS.items())
IMAGES, SEEN = [Image.new("L", (40, 30))] * 2, [(28, 28), (56, 28)]


def read(name: str, text: str) -> None:
    """Reads one turn as one dialect.

    Raises:
        AssertionError: The turn that comes out is none, or a message is too long for the model.
    """
    dialect = SPEAKERS[name].dialect
    try:
        turn = dialect.parse(text)
    except ParseError as exc:
        assert len(str(exc)) < 250, f"a message of {len(str(exc))} characters"
        return
    assert (turn.answer is None) == bool(turn.calls), "neither an answer nor calls, or both"
    assert turn.answer is None or turn.answer.strip(), "an answer that is blank"
    for call in turn.calls:
        with contextlib.suppress(ParseError):
            dialect.locate(call, IMAGES, SEEN)


def stretched(name: str, text: str) -> None:
    """Reads a turn repeated to `STRETCHED` characters, on a CPU clock.

    Raises:
        AssertionError: It took longer than `PATIENCE`.
    """
    long = text * (STRETCHED // len(text))  # a fuzzed turn has LONGEST bytes at most
    begin = time.process_time()
    read(name, long)
    took = time.process_time() - begin
    assert took < PATIENCE, f"{len(long)} characters took {took:.1f} s"


def decoded(data: bytes) -> str:
    """The bytes as text, lone surrogates and all; what is no text is replaced."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """One change to the turn's structure, or, half of the time, to its bytes."""
    lots = random.Random(seed)
    if lots.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    head, parts = data[:1] or b"\0", PARTS.findall(decoded(data[1:])) or [""]
    a, b = sorted((lots.randrange(len(parts)), lots.randrange(len(parts))))
    changed: Callable[[], list[str]] = lots.choice(
        [
            lambda: [*parts[:a], *parts[b:]],
            lambda: [*parts[:b], *parts[a:]],
            lambda: [*parts[:a], lots.choice(TOKENS), *parts[a:]],
            lambda: [*parts[:a], lots.choice(TOKENS), *parts[a + 1 :]],
            lambda: [*parts[:a], parts[b], *parts[a + 1 : b], parts[a], *parts[b + 1 :]],
            lambda: [*parts[:a], *parts[a:b] * lots.randint(2, 8), *parts[b:]],
            lambda: [*parts, *PARTS.findall(lots.choice(STARTS)[1])[: lots.randint(1, 40)]],
        ]
    )
    return (head + "".join(changed()).encode("utf-8", "surrogatepass"))[:most]


def crossed(first: bytes, second: bytes, most: int, seed: int) -> bytes:
    """The beginning of one turn and the end of another, cut between words."""
    lots = random.Random(seed)
    one, two = (PARTS.findall(decoded(d[1:])) or [""] for d in (first, second))
    whole = [*one[: lots.randint(0, len(one))], *two[lots.randint(0, len(two)) :]]
    return ((first[:1] or b"\0") + "".join(whole).encode("utf-8", "surrogatepass"))[:most]


def starts() -> Iterator[tuple[str, str]]:
    """(dialect's name, turn) of the hand-written corpus, the long ones cut."""
    for name, rows in CORPUS.items():
        for _, text, _ in rows:
            yield name, text[: LONGEST // 2]


STARTS = tuple(starts())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description="Fuzzes the dialects' parsers with atheris.")
    found.add_argument("--seconds", type=int, default=60, help="default: %(default)s")
    found.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    found.add_argument(
        "--keep", type=Path, default=Path(), help="a folder for what breaks; default: here"
    )
    return found


def main() -> None:
    """Runs libFuzzer; it ends the process itself."""
    options = parser().parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        if len(data) < 2:
            return
        name, _ = SPOKEN[data[0] % len(SPOKEN)]
        text = decoded(data[1:])
        try:
            read(name, text)
            if len(data) % 64 == 0:
                stretched(name, text)
        except Exception as exc:
            digest = hashlib.sha256(data).hexdigest()[:12]
            where = options.keep / f"{name.replace(', ', '-').replace(' ', '_')}-{digest}.txt"
            where.write_text(text, encoding="utf-8", errors="surrogatepass")
            raise AssertionError(f"{name}, kept as {where}: {exc!r}") from exc

    with tempfile.TemporaryDirectory() as folder:
        for number, (name, text) in enumerate(STARTS):
            for index, (other, _) in enumerate(SPOKEN):
                if other == name or other.startswith(f"{name},"):
                    raw = bytes([index]) + text.encode("utf-8", "replace")
                    (Path(folder) / f"{number}-{index}").write_bytes(raw)
        flags = [
            f"-max_total_time={options.seconds}",
            f"-max_len={LONGEST}",
            f"-seed={options.seed}",
            f"-artifact_prefix={options.keep}/",
            "-timeout=30",
            # A started process counts its parent's memory as its own peak, so the whole isn't
            # bounded; a single allocation is.
            "-rss_limit_mb=0",
            "-malloc_limit_mb=1024",
            "-print_final_stats=1",
        ]
        atheris.Setup(
            [sys.argv[0], *flags, folder], one, custom_mutator=mutated, custom_crossover=crossed
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
