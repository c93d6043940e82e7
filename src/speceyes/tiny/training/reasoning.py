"""Trains the pair that reasons: `python -m speceyes.tiny.training.reasoning small|large --out DIR`.

The small model starts from the bundled drafter, whose vision tower already knows every shape and
colour; the tower stays as it is, so that each scene is looked at once and its features are kept.
The language model learns to answer puzzles (`speceyes.tiny.puzzles`) at once, to write reasoning
and to answer behind it, and to answer with notes in its prompt, right, wrong and irrelevant ones.
The large model starts from the small one, with layers inserted that begin as the identity (block
expansion, as in LLaMA Pro, arXiv 2401.02415), and learns on. That makes a token of it as dear as
the method supposes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from speceyes.tiny import SMALL, puzzles
from speceyes.tiny.scenes import Scene, split_of
from speceyes.tiny.training.learner import Learner, Pace, Report, add_run, padded, train
from speceyes.tiny.training.lessons import TOKENS, Row, view_of
from speceyes.tiny.training.models import (
    END,
    SMALL_SIZE,
    Size,
    build_model,
)
from speceyes.tiny.training.muon import Muon
from speceyes.tiny.training.reasoning_lessons import (
    ROLES,
    Encoder,
    Notes,
    Told,
    reasoning_tokenizer,
    told_noted,
    told_reasoning,
    told_short,
)
from speceyes.tiny.training.train import batched_vision, to_patches

WEIGHTS = {"given": 0.0, "reason": 0.4, "answer": 1.0}
"""Weight of a token's loss by its role."""
LAYERS = 12
"""Decoder layers of the large model."""
PACE = Pace(rise=100, fall=0.4, least=0.02)
BRANCHES = {"small": "srrn", "large": "rsnnn"}
"""Told about a scene: short answers, reasoning, short answers with notes; one puzzle each."""
WHOLE = (0.0, 0.0, 1.0, 1.0)


class Looked:
    """Scenes of the training split with their features by a frozen vision tower.

    Args:
        model: Of which the tower is used.
        size: Its size.
        scenes: How many to draw.
        seed: Of the scenes.
    """

    def __init__(
        self, model: Qwen3VLForConditionalGeneration, size: Size, scenes: int, seed: int
    ) -> None:
        rng = np.random.default_rng([seed, 77])
        self.scenes: list[Scene] = []
        features, deep = [], []
        model.eval()
        grid = size.view // size.patch
        with tqdm(total=scenes, desc="looking") as bar, torch.no_grad():
            while len(self.scenes) < scenes:
                some = [
                    s for _ in range(32) if split_of((s := puzzles.draw_scene(rng)).id) == "train"
                ]
                views = np.stack([view_of(s, WHOLE, size.view, rng) for s in some])
                out = model.model.visual(
                    to_patches(views.astype(np.uint8), size.patch),
                    grid_thw=torch.tensor([[1, grid, grid]] * len(some)),
                )
                shape = (len(some), TOKENS**2, size.hidden)
                features.append(out.pooler_output.view(shape))
                deep.append(torch.stack([d.view(shape) for d in out.deepstack_features]))
                self.scenes += some
                bar.update(len(some))
        self.features = torch.cat(features)
        self.deep = torch.cat(deep, dim=1)


def fuse_norms(model: Qwen3VLForConditionalGeneration) -> None:
    """Lets the language model's norms run as one operation each, for training speed."""
    for module in model.model.language_model.modules():
        if type(module).__name__.endswith("RMSNorm"):

            def norm(x: torch.Tensor, one: Any = module) -> torch.Tensor:
                return F.rms_norm(x, one.weight.shape, one.weight, one.variance_epsilon)

            module.forward = norm


class Trainer(Learner):
    """A model with what trains it.

    Args:
        name: "small" or "large".
        start: Folder of the exported model to start from.
        seed: Of scenes, puzzles and new weights.
        lr: Highest learning rate.
        scenes: How many are drawn and looked at once.
        batch: Scenes a step.
    """

    def __init__(
        self, name: str, start: Path, *, seed: int, lr: float, scenes: int, batch: int
    ) -> None:
        tokenizer = reasoning_tokenizer()
        model = build_model(tokenizer, SMALL_SIZE, seed)
        super().__init__(name, model, SMALL_SIZE, tokenizer, lr, PACE)
        self.seed, self.batch = seed, batch
        self.encoder = Encoder(tokenizer)
        self.notes = Notes(self.encoder)
        self._begin_with(start)
        batched_vision(self.model)
        self.looked = Looked(self.model, self.size, scenes, seed)
        if name == "large":
            self._grow(LAYERS)
        fuse_norms(self.model)
        self.model.train()
        self.model.model.visual.requires_grad_(False)
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        layers = {id(p) for p in self.model.model.language_model.layers.parameters()}
        for p in self.model.parameters():
            if p.requires_grad:
                (matrices if p.ndim > 1 and id(p) in layers else others).append(p)
        self.optimizers = (
            Muon(matrices, lr=lr),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def _begin_with(self, weights: Path) -> None:
        """Exported weights. A phrase that their vocabulary lacks begins as the mean of what they
        have for it.
        """
        known = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32)
        old, state = PreTrainedTokenizerFast.from_pretrained(weights), known.state_dict()
        name = "model.language_model.embed_tokens.weight"
        words, had = state[name], old.get_vocab()
        mine = self.model.state_dict()[name].clone()
        for token, at in self.tokenizer.get_vocab().items():
            if token in had:
                mine[at] = words[had[token]]
            else:
                mine[at] = words[old(token, add_special_tokens=False)["input_ids"]].mean(0)
        state[name] = state["lm_head.weight"] = mine
        self.model.load_state_dict(state)

    def _grow(self, layers: int) -> None:
        """Inserts layers that begin as the identity, evenly behind the last layer that images
        reach by themselves.
        """
        before = list(self.model.model.language_model.layers)
        self.size = replace(self.size, layers=layers)
        larger = build_model(self.tokenizer, self.size, self.seed + 1)
        new = larger.model.language_model.layers
        first = len(self.size.deepstack)
        order: list[int | None] = list(range(first))
        gaps = np.array_split(np.arange(layers - len(before)), len(before) - first + 1)
        for number, gap in enumerate(gaps):
            order += [None] * len(gap)
            if first + number < len(before):
                order.append(first + number)
        for layer, source in zip(new, order, strict=True):
            if source is None:
                layer.self_attn.o_proj.weight.data.zero_()
                layer.mlp.down_proj.weight.data.zero_()
            else:
                layer.load_state_dict(before[source].state_dict())
        state = {k: v for k, v in self.model.state_dict().items() if ".layers." not in k}
        larger.load_state_dict(state, strict=False)
        self.model = larger

    def rows(self, number: int) -> list[Row]:
        """The rows of batch `number`; they depend on it and the seed alone."""
        rng = np.random.default_rng([self.seed, list(BRANCHES).index(self.name), number])
        told: list[Row] = []
        for at in rng.integers(len(self.looked.scenes), size=self.batch).tolist():
            scene = self.looked.scenes[at]
            mine = list(self._told(scene, rng))
            told += [self.encoder.row(one, at) for one in mine]
        return told

    def _told(self, scene: Scene, rng: np.random.Generator) -> Iterator[Told]:
        for branch in BRANCHES[self.name]:
            puzzle = puzzles.pose_any(scene, rng)
            solution = puzzle.solve(scene)
            assert solution is not None
            if branch == "s":
                yield told_short(puzzle, solution)
            elif branch == "r":
                yield told_reasoning(puzzle, solution)
            else:
                kind, notes = self.notes.draw(scene, puzzle, solution, rng)
                yield told_noted(puzzle, solution, notes, kind)

    def loss(self, rows: list[Row], report: Report) -> torch.Tensor:
        """Weighted log-loss of what the rows say, summed, in nats."""
        told = padded(rows, self.image_token)
        ids, roles = told.ids, told.roles
        targets, asked = ids[:, 1:].copy(), roles[:, 1:].copy()
        # Behind the last token of reasoning the turn ends, whatever is told next.
        ends = (roles[:, :-1] == ROLES.index("reason")) & (asked != ROLES.index("reason"))
        targets[ends] = self.tokenizer.convert_tokens_to_ids(END)
        asked[ends] = ROLES.index("reason")
        hidden = self._hidden(told, self.looked.features, self.looked.deep)
        said = asked > 0
        logits = self.model.lm_head(hidden[:, :-1][torch.from_numpy(said)])
        gold = torch.from_numpy(targets[said])
        weights = torch.tensor([WEIGHTS[r] for r in ROLES])[torch.from_numpy(asked[said])]
        right = np.ones_like(said)
        right[said] = (logits.argmax(-1) == gold).numpy()
        self._note(rows, asked, right, report)
        return (F.cross_entropy(logits, gold, reduction="none") * weights).sum()

    def _note(self, rows: list[Row], asked: np.ndarray, right: np.ndarray, report: Report) -> None:
        for i, row in enumerate(rows):
            branch = row.name.split()[0]
            for role in ("reason", "answer"):
                mask = asked[i] == ROLES.index(role)
                if mask.any():
                    hit = float(right[i][mask].all())
                    report[f"{branch} {role}"].append(hit)
                    report[f"{row.name} {role}"].append(hit)
                    if role == "reason":
                        report["reason tokens"].append(float(right[i][mask].mean()))

    def train_step(self, steps: int, report: Report) -> None:
        """One batch."""
        start = time.perf_counter()
        rows = sorted(self.rows(self.step), key=lambda r: len(r.ids))
        short = [r for r in rows if r.name.startswith("short")]
        long = [r for r in rows if not r.name.startswith("short")]
        total = torch.zeros(())
        for group_rows in (short, long):
            total = total + self.loss(group_rows, report) / len(rows)
        self._learn(total, steps, start, report)


def main(argv: list[str] | None = None) -> None:
    """Trains one of the models and writes it in the Hugging Face format."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.reasoning", description=__doc__
    )
    parser.add_argument("model", choices=("large", "small"))
    add_run(parser, steps=5000, scenes=8)
    parser.add_argument("--start", type=Path, default=SMALL, help="exported model to start from")
    parser.add_argument("--looked", type=int, default=8000, help="scenes that are drawn")
    parser.set_defaults(lr=3e-3)
    options = parser.parse_args(argv)

    def begin() -> Trainer:
        return Trainer(
            options.model,
            options.start,
            seed=options.seed,
            lr=options.lr,
            scenes=options.looked,
            batch=options.scenes,
        )

    facts = {"start": options.start.name, "looked": options.looked}
    layers = {"layers": LAYERS if options.model == "large" else SMALL_SIZE.layers}
    train(options, begin, facts | layers)


if __name__ == "__main__":
    main()
