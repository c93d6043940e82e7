"""Learner: a tiny model, what trains it, its checkpoints, and the loop that the trainers share."""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from speceyes.tiny.training.lessons import TOKENS, Row
from speceyes.tiny.training.models import Size, build_model, build_processor

Report: TypeAlias = dict[str, list[float]]
"""What the batches since the last line of the log were like."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Schedule of the learning rate, and the steps that are left out.

    Args:
        rise: First steps, over which it rises.
        fall: Share of the steps at the end, over which it falls.
        least: Least share of the rate at the end.
        outlier: A gradient whose norm is so many times the usual one is left out after 300 steps:
            a rare batch far out of proportion can undo what was learned.
    """

    rise: float
    fall: float
    least: float
    outlier: float = math.inf

    def rate(self, step: int, steps: int) -> float:
        """Share of the highest rate at a step, from 0, of so many."""
        rising = min(1.0, (step + 1) / min(self.rise, 0.1 * steps))
        return rising * min(1.0, max(self.least, (steps - step) / (self.fall * steps)))


class Learner:
    """A model with what trains it.

    Args:
        name: Of what is trained.
        model: The model.
        size: Its size.
        tokenizer: Its tokenizer.
        lr: Highest learning rate.
        pace: See `Pace`.
    """

    def __init__(self, name: str, model: Any, size: Size, tokenizer: Any, lr: float, pace: Pace):
        self.name, self.model, self.size, self.tokenizer = name, model, size, tokenizer
        self.lr, self.pace, self.smallest = lr, pace, size.view
        self.image_token = int(model.config.image_token_id)
        self.thrown_away: dict[str, nn.Module] = {}
        """Modules that are trained with the model and left out of what is exported."""
        self.optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self.step, self.seconds, self.usual_norm = 0, 0.0, 0.0

    def train_step(self, steps: int, report: Report) -> None:
        """One batch of so many."""
        raise NotImplementedError

    def _learn(self, loss: torch.Tensor, steps: int, started: float, report: Report) -> None:
        """Steps down the loss of a batch whose work began at `started`."""
        groups = [group for one in self.optimizers for group in one.param_groups]
        for group in groups:
            group["lr"] = self.lr * self.pace.rate(self.step, steps)
        for one in self.optimizers:
            one.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for group in groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(trained, 1.0))
        most = math.inf if self.step < 300 else self.pace.outlier * self.usual_norm
        if norm < most:
            for one in self.optimizers:
                one.step()
        self.usual_norm += (min(norm, 8 * self.usual_norm or norm) - self.usual_norm) / 50
        report["norm"].append(norm)
        report["loss"].append(float(loss.detach()))
        self.step += 1
        self.seconds += time.perf_counter() - started

    def _hidden(
        self, rows: Rows, features: torch.Tensor, deep: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Last hidden states [n, t, hidden] of rows whose images have these features."""
        device = features.device
        tokens = torch.from_numpy(rows.ids).to(device)
        shown = torch.tensor(rows.images, device=device)
        visual = tokens == self.image_token
        core = self.model.model.language_model
        embeds = core.embed_tokens(tokens).masked_scatter(visual[..., None], features[shown])
        hidden: torch.Tensor = core(
            inputs_embeds=embeds,
            position_ids=torch.from_numpy(rows.places).to(device),
            visual_pos_masks=visual,
            deepstack_visual_embeds=[d[shown].flatten(0, 1) for d in deep],
            use_cache=False,
        ).last_hidden_state
        return hidden

    def save(self, out: Path) -> None:
        """The checkpoint to go on from, replaced in one step so that a kill leaves the old one."""
        state = {
            "modules": {name: one.state_dict() for name, one in self._modules().items()},
            "optimizers": [one.state_dict() for one in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
            "usual_norm": self.usual_norm,
        }
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").replace(out / "checkpoint.pt")

    def load(self, out: Path) -> None:
        """Goes on from the checkpoint in `out`, if there is one."""
        path = out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        for name, one in self._modules().items():
            one.load_state_dict(state["modules"][name])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.seconds = state["step"], state["seconds"]
        self.usual_norm = state["usual_norm"]

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, **self.thrown_away}

    def export(self, out: Path) -> None:
        """The model in the Hugging Face format, float16, with its processor."""
        plain = build_model(self.tokenizer, self.size, 0)
        plain.load_state_dict(self.model.state_dict())
        plain.half().save_pretrained(out)
        processor = build_processor(self.tokenizer, self.size, smallest=self.smallest)
        processor.save_pretrained(out)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of tokens, padded at their ends.

    Args:
        ids: int64[n, t].
        roles: int64[n, t], 0 for what isn't learned.
        places: int64[3, n, t]: temporal, height and width positions.
        images: Numbers of the images, in the rows' order.
    """

    ids: np.ndarray
    roles: np.ndarray
    places: np.ndarray
    images: tuple[int, ...]


def padded(rows: Sequence[Row], image_token: int, side: int = TOKENS) -> Rows:
    """Rows as arrays, whose images are `side` merged tokens wide and high."""
    longest = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    roles = np.zeros_like(ids)
    places = np.zeros((3, len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)], roles[i, : len(row.ids)] = row.ids, row.roles
        places[:, i, : len(row.ids)] = positions(row, image_token, side)
    return Rows(ids, roles, places, tuple(i for row in rows for i in row.images))


def positions(row: Row, image_token: int, side: int = TOKENS) -> np.ndarray:
    """int64[3, t]: temporal, height and width positions (Qwen-VL's mrope)."""
    out = np.empty((3, len(row.ids)), dtype=np.int64)
    area, at, place = side * side, 0, 0
    r, c = np.divmod(np.arange(area), side)
    while place < len(row.ids):
        if row.ids[place] == image_token:
            out[:, place : place + area] = at + np.stack([np.zeros_like(r), r, c])
            at, place = at + side, place + area
        else:
            out[:, place] = at
            at, place = at + 1, place + 1
    return out


def add_run(parser: argparse.ArgumentParser, *, steps: int, scenes: int) -> None:
    """Adds the options that `train` reads, with these defaults."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--scenes", type=int, default=scenes, help="scenes a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all")
    parser.add_argument("--every", type=int, default=100, help="steps between reports")


def train(
    options: argparse.Namespace, begin: Callable[[], Learner], facts: Mapping[str, Any]
) -> Learner:
    """Trains to the end of the run in `options.out`, from its checkpoint where there is one, and
    writes the model and `facts.json`.

    Args:
        options: Those of `add_run`.
        begin: Makes the learner; called once threads are set.
        facts: What else is written down.

    Raises:
        FloatingPointError: The loss is no number any more.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    learner = begin()
    learner.load(out)
    report: Report = defaultdict(list)
    saved = time.monotonic()
    with (
        (out / "log.jsonl").open("a", encoding="utf-8") as log,
        tqdm(initial=learner.step, total=options.steps, desc=f"training {learner.name}") as bar,
    ):
        while learner.step < options.steps:
            learner.train_step(options.steps, report)
            bar.update()
            if not math.isfinite(report["loss"][-1]):
                raise FloatingPointError(f"loss={report['loss'][-1]} at step {learner.step}")
            if learner.step % options.every == 0:
                line = {"step": learner.step, "seconds": round(learner.seconds), **_means(report)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                bar.set_postfix(loss=line["loss"])
                report.clear()
            if time.monotonic() - saved > 120 or learner.step == options.steps:
                learner.save(out)
                saved = time.monotonic()
    learner.export(out / "model")
    told: dict[str, Any] = {
        "model": learner.name,
        "steps": learner.step,
        "scenes": learner.step * options.scenes,
        "seed": options.seed,
        "learning_rate": options.lr,
        "seconds": round(learner.seconds),
        "threads": torch.get_num_threads(),
        "hardware": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in learner.model.parameters()),
        **facts,
    }
    (out / "facts.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return learner


def _means(report: Report) -> dict[str, float]:
    return {k: round(float(np.mean(v)), 3) for k, v in sorted(report.items()) if v}
