"""Holds `speceyes plan` against two `speceyes serve` processes in front of one real vLLM.

    python tests/engines/plan_measured.py [FOLDER]

One vLLM on this CPU (see vllm_cpu.py) serves the bundled large model, which judges, drafts and is
the agent. The load test measures what a query costs alone and what can be done in all, then offers
three loads; the plan is told the former only, and foresees the latter. Prints a Markdown table.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vllm_cpu import build, serving, venv

from speceyes.bench.plan.forecast import Costs, Fleet, forecast, read_costs

SLOTS = 16
"""--max-num-seqs of vllm_cpu.py."""


@contextmanager
def server(engine: str) -> Iterator[str]:
    """The address of a `speceyes serve` that runs until the block ends."""
    options = ["--top-k", "20", "--threshold", "0.9", "--port", "0"]
    models = ["--large", f"{engine}#large", "--small", f"{engine}#large"]
    child = subprocess.Popen(
        [sys.executable, "-m", "speceyes", "serve", *models, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stderr is not None
        found = next(m for line in child.stderr if (m := re.search(r"on (http://\S+)/v1", line)))
        yield found[1]
    finally:
        child.terminate()
        child.communicate(timeout=90)


def main(out: Path) -> int:
    """The exit code of the load test."""
    build(venv())
    with ExitStack() as until:
        engine = until.enter_context(serving("large", out / "vllm.log"))()
        servers = [until.enter_context(server(engine)) for _ in range(2)]
        urls = [word for url in servers for word in ("--url", url)]
        load = ["--requests", "360", "--loads", "0.3,0.5,0.7", "--faults", "0", "--out", str(out)]
        bench = [sys.executable, "-m", "speceyes", "bench", "--serve", *urls, *load]
        code = subprocess.run(bench, check=False).returncode
    told, gain = read_costs(out / "load.json")
    costs = Costs.of(told)
    fleet = Fleet(large=1, small=0, servers=2, slots=SLOTS, gain=min(gain or 1.0, SLOTS))
    print(f"\n{costs}\n{fleet}\n")  # noqa: T201  (a command's own voice)
    print("| queries/s | busy | mean s: plan, measured | p95 s: plan, measured |")  # noqa: T201
    for step in json.loads((out / "load.json").read_text())["steps"]:
        rate = step["offered_per_s"]
        one = forecast(costs, rate, fleet)
        cells = (
            f"{rate:.2f}",
            f"{100 * one.busy_large:.0f} %",
            f"{one.mean:.2f}, {step['mean_s']:.2f}",
            f"{one.p95:.2f}, {step['p95_s']:.2f}",
        )
        print(f"| {' | '.join(cells)} |")  # noqa: T201
    return code


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(main(Path(sys.argv[1] if sys.argv[1:] else folder)))
