"""Measures a tiny drafter that judges: `python -m speceyes.tiny.training.judging --out FILE`.

Thresholds are chosen on the calibration split, everything else is measured on the held-out one,
beside the drafter that it was trained from. An answer that the agent is asked for counts as right.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speceyes.answerer import SpeculativeAnswerer, asks_to_look
from speceyes.evaluation.statistics import wilson_interval
from speceyes.models.hf import HFModel
from speceyes.scoring.ranking import auroc
from speceyes.scoring.scales import to_raw
from speceyes.tiny import SMALL, SMALL_JUDGE, settings
from speceyes.tiny.scenes import Item, Split, batches, questions
from speceyes.tiny.training.depth import Drafts, choose, scored
from speceyes.tiny.training.lessons import COARSE, TOKENS
from speceyes.tiny.training.models import SMALL_SIZE
from speceyes.types import Completion, Query

RUNG_PIXELS = (SMALL_SIZE.view * COARSE // TOKENS) ** 2
"""Pixels of the smaller view."""
BEFORE, WHOLE, FEW, LOOK = "before", "whole", "few pixels", "may look"


class Measured:
    """Results of a drafter that judges, on a split.

    Args:
        judging: It.
        before: The drafter that it was trained from.
        split: Of the scenes.
        n: Number of questions.
        top_k: K of the gate.
        batch: Questions at once.
    """

    def __init__(
        self, judging: HFModel, before: HFModel, split: Split, n: int, top_k: int, batch: int = 16
    ) -> None:
        whole = SpeculativeAnswerer(judging, top_k=top_k)
        asked = {
            BEFORE: SpeculativeAnswerer(before, top_k=top_k),
            WHOLE: whole,
            FEW: whole.on(RUNG_PIXELS),
            LOOK: SpeculativeAnswerer(judging, top_k=top_k, may_look=True),
        }
        judges = {WHOLE: whole.judge(), FEW: whole.on(RUNG_PIXELS).judge()}
        said: dict[str, list[Completion]] = defaultdict(list)
        needs: dict[str, list[bool]] = defaultdict(list)
        self.items: list[Item] = []
        for group in tqdm(batches(questions(split, n), batch), total=-(-n // batch), desc=split):
            queries = [item.query for item in group]
            for name, judge in judges.items():
                needs[name] += [one.needs_tools for one in judge(queries)]
            for name, answerer in asked.items():
                said[name] += answerer(queries)
            light = Query("?", (queries[0].images[0].resize((8, 8)),))
            self.items += [Item(light, i.answer, i.kind, "", i.needs_tools) for i in group]
        self.drafts = {name: scored(drafts, self.items, top_k) for name, drafts in said.items()}
        self.needs = {name: np.array(words, dtype=bool) for name, words in needs.items()}
        asks = [asks_to_look(draft.text) for draft in said[LOOK]]
        self.needs[LOOK] = np.array(asks, dtype=bool)

    def let(self, judge: str) -> np.ndarray:
        """bool[n], what a judge lets through."""
        if judge in ("none", "rung"):
            return np.ones(len(self.items), dtype=bool)
        return ~self.needs[LOOK if judge == "draft" else WHOLE]

    def of(self, judge: str) -> Drafts:
        """The drafts behind a judge."""
        return self.drafts[{"draft": LOOK, "rung": FEW}.get(judge, WHOLE)]


def figures(found: Measured, thresholds: dict[str, float]) -> dict[str, Any]:
    """Held-out shares (0 to 1) with 95 % intervals."""
    kinds = [item.kind for item in found.items]
    taught = np.array([item.needs_tools for item in found.items])
    return {
        "n": len(found.items),
        "draft": {name: _share(one.right) for name, one in found.drafts.items() if name != LOOK},
        "auroc": {
            name: round(auroc(one.raw, one.right), 4)
            for name, one in found.drafts.items()
            if name != LOOK
        },
        "judge as taught": {name: _share(one == taught) for name, one in found.needs.items()},
        "behind": {judge: _behind(found, judge, at) for judge, at in thresholds.items()},
        "by_kind": {
            kind: {
                name: round(float(one.right[[k == kind for k in kinds]].mean()), 3)
                for name, one in found.drafts.items()
                if name != LOOK
            }
            for kind in sorted(set(kinds))
        },
    }


def _behind(found: Measured, judge: str, threshold: float) -> dict[str, Any]:
    drafts, let = found.of(judge), found.let(judge)
    taken = let & (drafts.raw >= to_raw(threshold, log=False))
    return {
        "beta": round(float(let.mean()), 4),
        "accepted": round(float(taken.mean()), 4),
        "accepted_right": _share(drafts.right[taken]),
    }


def _share(hits: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    share = float(hits.mean()) if len(hits) else 0.0
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


def main(argv: list[str] | None = None) -> None:
    """Writes thresholds and figures."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.judging", description=__doc__
    )
    parser.add_argument("--weights", type=Path, default=SMALL_JUDGE, help="folder of the drafter")
    parser.add_argument("--before", type=Path, default=SMALL, help="the one it began as")
    parser.add_argument("--queries", type=int, default=1000, help="of each split")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    args = parser.parse_args(argv)
    started, top_k = time.perf_counter(), int(settings()["top_k"])
    models = (HFModel.from_pretrained(args.weights), HFModel.from_pretrained(args.before))
    tuned = Measured(*models, "calibration", args.queries, top_k)
    thresholds = {
        judge: choose(tuned.of(judge), tuned.let(judge))
        for judge in ("small", "none", "draft", "rung")
    }
    told = {
        "top_k": top_k,
        "aggregate": "min",
        "thresholds": thresholds,
        "rung_pixels": RUNG_PIXELS,
        "calibration_queries": args.queries,
        "heldout": figures(Measured(*models, "heldout", args.queries, top_k), thresholds),
        "seconds": round(time.perf_counter() - started),
    }
    args.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
