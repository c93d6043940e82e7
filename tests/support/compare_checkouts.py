"""Speed of two checkouts side by side in one run, on the bundled models.

    python tests/support/compare_checkouts.py BEFORE [AFTER] [--queries N] [--rounds R]
        [--before-path DIR] [--after-path DIR]

BEFORE and AFTER are folders with src/speceyes; AFTER is this one by default. A checkout that needs
other packages gets a folder of them by --before-path or --after-path (`pip install --target DIR`).

Each checkout runs in a process of its own, one thread each, and the two take turns: a round of
queries of one arm in the one, then the same in the other, the first one alternating. A figure is
the ratio of CPU seconds, which other processes disturb least, with a 95 % interval over rounds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a line an arm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=HERE)
    parser.add_argument("--queries", type=int, default=32, help="a round; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--before-path", default="", metavar="DIR")
    parser.add_argument("--after-path", default="", metavar="DIR")
    options = parser.parse_args(argv)
    sys.path.insert(0, str(HERE / "src"))
    from speceyes.evaluation.rounds import ratio

    sides = [
        _Side(options.before, options.before_path, options.queries),
        _Side(options.after, options.after_path, options.queries),
    ]
    for arm in ARMS:
        spent: list[list[float]] = [[], []]
        for number in range(options.rounds):
            for at in (number % 2, 1 - number % 2):
                spent[at].append(sides[at].round(arm, number))
        value, low, high = ratio(spent[1], spent[0])
        ms = [1e3 * sum(one) / (options.rounds * options.queries) for one in spent]
        reach = "" if low is None else f" ({low:.2f} to {high:.2f})"
        print(  # noqa: T201
            f"{arm:20} {ms[0]:8.1f} ms before {ms[1]:8.1f} ms after   after/before "
            f"{value:.2f}{reach}",
            flush=True,
        )
    for side in sides:
        side.end()


ARMS = ("agent, one by one", "agent, batches of 16", "funnel, batches of 16", "funnel, one by one")


class _Side:
    """The process of one checkout."""

    def __init__(self, checkout: Path, packages: str, queries: int) -> None:
        path = os.pathsep.join(p for p in (str(checkout.resolve() / "src"), packages) if p)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(queries)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def round(self, arm: str, number: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{number}\t{arm}\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"a checkout gave up: {' '.join(map(str, self._process.args))}")
        return float(line)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def serve(queries: int) -> None:
    """Answers "round TAB arm" lines with CPU seconds, for the checkout on PYTHONPATH."""
    import time

    import torch

    torch.set_num_threads(1)
    from speceyes.tiny.scenes import questions

    out, sys.stdout = sys.stdout, sys.stderr
    arms = _arms()
    for arm in arms.values():
        list(arm([item.query for item in questions("calibration", 16)]))
    for line in sys.stdin:
        number, _, name = line.rstrip("\n").partition("\t")
        items = [item.query for item in questions("heldout", queries, start=int(number) * queries)]
        start = time.process_time()
        results = list(arms[name](items))
        spent = time.process_time() - start
        assert len(results) == queries and not any(r.route == "error" for r in results), results
        out.write(f"{spent}\n")
        out.flush()


def _arms() -> dict[str, Callable[[Iterable[Any]], Iterable[Any]]]:
    import speceyes
    from speceyes import tiny
    from speceyes.models.hf import HFModel

    try:
        from speceyes.evaluation.alone import agent_arm
    except ImportError:  # as it was before
        from speceyes.evaluation.demo import agent_arm  # type: ignore[attr-defined, no-redef]
    large, small = (HFModel.from_pretrained(path) for path in (tiny.LARGE, tiny.SMALL))

    def agent(size: int) -> Any:
        return speceyes.AgenticFallback(large, tools=["zoom"], max_batch=size)

    def funnel(size: int) -> Any:
        parts = {
            "judge": speceyes.ToolJudge(large, tools=["zoom"]),
            "answerer": speceyes.SpeculativeAnswerer(small, top_k=64),
            "gate": speceyes.SeparabilityGate(0.98),
            "fallback": agent(size),
        }
        try:
            from speceyes.pipeline import ScheduleConfig
        except ImportError:
            return speceyes.SpecPipeline(**parts, batch_size=size)
        return speceyes.SpecPipeline(**parts, schedule=ScheduleConfig(batch_size=size))

    made = (agent_arm(agent(1)), agent_arm(agent(16)), funnel(16).stream, funnel(1).stream)
    return dict(zip(ARMS, made, strict=True))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    else:
        main()
