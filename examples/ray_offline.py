"""Answers a file of questions with Ray Data: a funnel in each worker, pictures read there.

Its arguments: where the answers go, and lines of {"path": ..., "question": ...}; without these
the tiny pair is asked about a few drawn scenes.
pip install "speceyes[ray]"
python examples/ray_offline.py answers rows.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use unless told not to

import ray

from speceyes import SpecPipeline, tiny
from speceyes.tiny.scenes import questions

WORKERS, BATCH = 2, 8  # on a cluster: a worker a GPU (num_gpus=1 below), batches of hundreds


class Funnel:
    """Made once in each worker, which keeps its models from batch to batch."""

    def __init__(self) -> None:
        self.pipe = SpecPipeline.from_pretrained(
            tiny.LARGE, tiny.SMALL, tools=["zoom"], gate=tiny.gate()
        )

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        asked = zip(rows["path"].tolist(), rows["question"].tolist(), strict=True)
        results = self.pipe([{"image": p, "question": q, "id": p} for p, q in asked])
        return {"result": [result.to_json() for result in results]}  # a failed one says why


def drawn(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for item in questions("heldout", 16):
        path = folder / f"{item.query.id}.png"
        item.query.images[0].save(path)
        lines.append(json.dumps({"path": str(path), "question": item.query.question}))
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "rows.jsonl"


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "answers").resolve()
    rows = Path(sys.argv[2]) if len(sys.argv) > 2 else drawn(out / "scenes")
    ray.init(include_dashboard=False)  # finds a cluster by RAY_ADDRESS, else starts one here
    asked = ray.data.from_items([json.loads(line) for line in rows.open(encoding="utf-8")])
    told = asked.map_batches(Funnel, concurrency=WORKERS, batch_size=BATCH, num_cpus=1)
    told.write_json(str(out / "results"))
    print(f"{asked.count()} results in {out / 'results'}")
