"""Trains the tiny models: `python -m speceyes.tiny.training.train large|small|... --out DIR`.

Plain supervised learning on drawn scenes, in the Hugging Face classes' own layers. Three things
make it learn in minutes. A head, thrown away afterwards, names what each merged vision token
shows, in the language model's own word vectors, so that a word and what it names are alike. The
same kind of head reads the names in a question, early in the language model: by then it should
know where the named thing is and what it looks like. And transcripts say where things are before
they say what they are. A run continues from its last
checkpoint when it is started again with the same `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from transformers import Qwen3VLForConditionalGeneration

from speceyes.tiny.scenes import COLOURS, SHAPES
from speceyes.tiny.training.lessons import ROLES, THINGS, TOKENS, Batch, Lessons, Row
from speceyes.tiny.training.models import (
    LARGE_SIZE,
    SMALL_SIZE,
    Size,
    build_model,
    build_processor,
    build_tokenizer,
)

HEADS = (TOKENS, TOKENS, len(THINGS), 7, 7)
"""Classes of the throw-away head's linear part: row, column, thing, offsets across and down."""
WORDS = (tuple(COLOURS), tuple(SHAPES))
"""Words that it names in word vectors: the colour and the shape, or none."""
PROBED = 1
"""The decoder layer, from 0, after which a name in the question should know its thing."""


class Head(nn.Module):  # type: ignore[misc]  # torch carries no types here
    """Names what a merged vision token shows; used in training alone.

    Args:
        hidden: Width of the language model.
        ids: int64[w, 2]: for each word of `WORDS` its token with and without a leading space.
    """

    def __init__(self, hidden: int, ids: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, sum(HEADS))
        self.none = nn.Linear(hidden, len(WORDS))
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("ids", ids, persistent=False)

    def forward(self, features: torch.Tensor, words: torch.Tensor) -> list[torch.Tensor]:
        """Scores for row, column, thing, colour, shape, offset across, offset down.

        Args:
            features: float32[n, 16, hidden].
            words: float32[vocabulary, hidden], the language model's word vectors.
        """
        row, column, thing, across, down = self.linear(features).split(HEADS, dim=-1)
        alike = F.rms_norm(features, features.shape[-1:])
        named = self.scale * (alike @ words[self.ids].sum(1).T)
        none = self.none(features)
        colour, shape = (
            torch.cat((none[..., i : i + 1], part), dim=-1)
            for i, part in enumerate(named.split([len(w) for w in WORDS], dim=-1))
        )
        return [row, column, thing, colour, shape, across, down]


def batched_vision(model: Qwen3VLForConditionalGeneration, tokens: int) -> None:
    """Lets the vision tower take images of one size as a batch instead of one by one.

    The same sums in another order, for training speed; this model object alone is changed.
    """
    visual = model.model.visual
    embed = visual.patch_embed

    def patches(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, embed.proj.weight.flatten(1), embed.proj.bias)

    embed.forward = patches
    for block in visual.blocks:
        attention = block.attn

        def attend(
            x: torch.Tensor,
            cu_seqlens: torch.Tensor,
            position_embeddings: tuple[torch.Tensor, torch.Tensor],
            max_seqlen: int | None = None,
            attention: Any = attention,
            **_: Any,
        ) -> torch.Tensor:
            heads = attention.num_heads
            cos, sin = (p[:tokens, None] for p in position_embeddings)
            q, k, v = attention.qkv(x).view(-1, tokens, 3, heads, x.shape[1] // heads).unbind(2)
            half = q.shape[-1] // 2
            q = q * cos + torch.cat((-q[..., half:], q[..., :half]), -1) * sin
            k = k * cos + torch.cat((-k[..., half:], k[..., :half]), -1) * sin
            out = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
            return attention.proj(out.transpose(1, 2).reshape(x.shape[0], -1))

        attention.forward = attend


def to_patches(views: np.ndarray, patch: int) -> torch.Tensor:
    """uint8[n, side, side, 3] to float32[n * patches, 3 * 2 * patch * patch], laid out as the
    Qwen2-VL image processor does it.
    """
    n, side = views.shape[:2]
    grid = side // patch
    x = torch.from_numpy(views).float().div_(127.5).sub_(1.0)
    x = x.view(n, grid // 2, 2, patch, grid // 2, 2, patch, 3)
    x = x.permute(0, 1, 4, 2, 5, 7, 3, 6).unsqueeze(6)
    x = x.expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    return x.reshape(n * grid * grid, 3 * 2 * patch * patch)


def positions(row: Row, image_token: int) -> np.ndarray:
    """int64[3, t]: temporal, height and width positions (Qwen-VL's mrope)."""
    out = np.empty((3, len(row.ids)), dtype=np.int64)
    area, at, place = TOKENS * TOKENS, 0, 0
    r, c = np.divmod(np.arange(area), TOKENS)
    while place < len(row.ids):
        if row.ids[place] == image_token:
            out[:, place : place + area] = at + np.stack([np.zeros_like(r), r, c])
            at, place = at + TOKENS, place + area
        else:
            out[:, place] = at
            at, place = at + 1, place + 1
    return out


class Trainer:
    """A model with what trains it."""

    def __init__(
        self, name: str, seed: int, lr: float, scenes: int, device: str, easy: int = 0
    ) -> None:
        self.size: Size = LARGE_SIZE if name == "large" else SMALL_SIZE
        self.name = name
        self.tokenizer = build_tokenizer()
        self.model = build_model(self.tokenizer, self.size, seed).to(device)
        self.model.train()
        batched_vision(self.model, (self.size.view // self.size.patch) ** 2)
        self.head = Head(self.size.hidden, self._word_ids()).to(device)
        self.lessons = Lessons(
            self.tokenizer,
            self.size,
            large=name == "large",
            zooms=name == "small_zoom",
            seed=seed,
            scenes_a_batch=scenes,
            easy=easy,
        )
        self.probe = Head(self.size.hidden, self._word_ids()).to(device)
        params = [*self.model.parameters(), *self.head.parameters(), *self.probe.parameters()]
        decayed = [p for p in params if p.ndim > 1]
        plain = [p for p in params if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
            lr=lr,
            betas=(0.9, 0.98),
        )
        self.params = params
        self.lr = lr
        self.device = device
        self.image_token = int(self.model.config.image_token_id)
        self.step = 0
        self.seconds = 0.0
        self.usual_norm = 0.0

    def _word_ids(self) -> torch.Tensor:
        pairs = [(f" {word}", word) for group in WORDS for word in group]
        found = [[self.tokenizer(t)["input_ids"] for t in pair] for pair in pairs]
        if any(len(ids) != 1 for pair in found for ids in pair):
            raise RuntimeError("a colour or a shape is more than one token: enlarge the vocabulary")
        return torch.tensor([[ids[0] for ids in pair] for pair in found])

    def see(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, float]:
        """Features [n, 16, hidden], deepstack features, the head's loss and its accuracy."""
        n, grid = len(batch.views), self.size.view // self.size.patch
        grids = torch.tensor([[1, grid, grid]] * n, device=self.device)
        out = self.model.model.visual(
            to_patches(batch.views, self.size.patch).to(self.device), grid_thw=grids
        )
        shape = (n, TOKENS * TOKENS, self.size.hidden)
        features = out.pooler_output.view(shape)
        deep = [d.view(shape) for d in out.deepstack_features]
        labels = torch.from_numpy(batch.labels).to(self.device)
        losses, right, asked = [], 0, 0
        words = self.model.model.language_model.embed_tokens.weight
        for part, scores in enumerate(self.head(features, words)):
            gold = labels[..., part]
            losses.append(F.cross_entropy(scores.flatten(0, 1), gold.flatten(), ignore_index=-1))
            if part in (3, 4):
                known = gold >= 0
                right += int((scores.argmax(-1)[known] == gold[known]).sum())
                asked += int(known.sum())
        return features, deep, torch.stack(losses).sum(), right / max(asked, 1)

    def tell(
        self,
        rows: list[Row],
        features: torch.Tensor,
        deep: list[torch.Tensor],
        report: dict[str, list[float]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of the log-losses of what the rows say, and of the probe on names, in nats."""
        longest = max(len(r.ids) for r in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        roles = np.zeros_like(ids)
        places = np.zeros((3, len(rows), longest), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)], roles[i, : len(row.ids)] = row.ids, row.roles
            places[:, i, : len(row.ids)] = positions(row, self.image_token)
        tokens = torch.from_numpy(ids).to(self.device)
        shown = torch.tensor([i for row in rows for i in row.images], device=self.device)
        visual = tokens == self.image_token
        core = self.model.model
        early: list[torch.Tensor] = []
        hook = core.language_model.layers[PROBED].register_forward_hook(
            lambda _module, _args, out: early.append(out[0] if isinstance(out, tuple) else out)
        )
        embeds = core.language_model.embed_tokens(tokens)
        embeds = embeds.masked_scatter(visual[..., None], features[shown])
        hidden = core.language_model(
            inputs_embeds=embeds,
            position_ids=torch.from_numpy(places).to(self.device),
            visual_pos_masks=visual,
            deepstack_visual_embeds=[d[shown].flatten(0, 1) for d in deep],
            use_cache=False,
        ).last_hidden_state
        hook.remove()
        said = torch.from_numpy(roles > 0).to(self.device)[:, 1:]
        logits = self.model.lm_head(hidden[:, :-1][said])
        gold = tokens[:, 1:][said]
        loss = F.cross_entropy(logits, gold, reduction="sum")
        right = (logits.argmax(-1) == gold).cpu().numpy()
        self._note(rows, roles[:, 1:], right, report)
        return loss, self._mentions(rows, early[0], report)

    def _mentions(
        self, rows: list[Row], early: torch.Tensor, report: dict[str, list[float]]
    ) -> torch.Tensor:
        """Log-loss of reading place, colour and shape off the names in the questions, in nats."""
        which = [i for i, row in enumerate(rows) for _ in row.mentions]
        if not which:
            return early.new_zeros(())
        told = torch.from_numpy(np.concatenate([r.mentions for r in rows])).to(self.device)
        hidden = early[torch.tensor(which, device=self.device), told[:, 0]]
        words = self.model.model.language_model.embed_tokens.weight
        row, column, _, colour, shape, _, _ = self.probe(hidden, words)
        loss = early.new_zeros(())
        for scores, gold in zip((row, column, colour, shape), told[:, 1:].T, strict=True):
            if bool((gold >= 0).any()):
                loss = loss + F.cross_entropy(scores, gold, ignore_index=-1, reduction="sum")
        right = (row.argmax(-1) == told[:, 1]) & (column.argmax(-1) == told[:, 2])
        report["found"].append(float(right[told[:, 1] >= 0].float().mean()))
        named = (colour.argmax(-1) == told[:, 3]) & (shape.argmax(-1) == told[:, 4])
        report["read"].append(float(named[told[:, 4] >= 0].float().mean()))
        return loss

    def _note(
        self, rows: list[Row], roles: np.ndarray, right: np.ndarray, report: dict[str, list[float]]
    ) -> None:
        """Adds, for each row, whether all of its box, place and answer tokens were right."""
        said = roles > 0
        hits = np.ones_like(said)
        hits[said] = right
        for i, row in enumerate(rows):
            for role in ("place", "box", "seen", "answer"):
                mask = roles[i] == ROLES.index(role)
                if mask.any():
                    key = row.name if role == "answer" else f"{row.name.split()[0]} {role}"
                    key = f"seen {row.name}" if role == "seen" else key
                    report[key].append(float(hits[i][mask].all()))

    def train_step(self, steps: int, warm: int, report: dict[str, list[float]]) -> None:
        """One batch. The first `warm` steps of the large model train its vision tower alone."""
        start = time.perf_counter()
        rate = min(1.0, (self.step + 1) / 200) * min(
            1.0, max(0.03, (steps - self.step) / (0.35 * steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate
        batch = self.lessons.batch(self.step, rows=self.step >= warm)
        features, deep, aux, seen = self.see(batch)
        report["seen"].append(seen)
        loss = aux
        if batch.rows:
            rows = sorted(batch.rows, key=lambda r: len(r.ids))
            short = [r for r in rows if len(r.images) == 1]
            for group_rows in (short, rows[len(short) :]):
                if group_rows:
                    told, named = self.tell(group_rows, features, deep, report)
                    loss = loss + (told + 0.5 * named) / len(rows)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(self.params, 1.0))
        # A rare batch with a gradient far out of proportion can undo what was learned.
        if self.step < 300 or norm < 8 * self.usual_norm:
            self.optimizer.step()
        self.usual_norm += (min(norm, 8 * self.usual_norm or norm) - self.usual_norm) / 50
        report["norm"].append(norm)
        report["loss"].append(float(loss.detach()))
        self.step += 1
        self.seconds += time.perf_counter() - start

    def save(self, out: Path) -> None:
        """The checkpoint to go on from, replaced in one step so that a kill leaves the old one."""
        state = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "probe": self.probe.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "usual_norm": self.usual_norm,
        }
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").replace(out / "checkpoint.pt")

    def load(self, out: Path) -> None:
        """Goes on from the checkpoint in `out`, if there is one."""
        path = out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.head.load_state_dict(state["head"])
            self.probe.load_state_dict(state["probe"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.usual_norm = state["usual_norm"]

    def begin_with(self, weights: Path) -> None:
        """Starts from an exported model; what is thrown away after training starts anew."""
        known = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32)
        self.model.load_state_dict(known.state_dict())

    def export(self, out: Path) -> None:
        """The model in the Hugging Face format, float16, with its processor."""
        plain = build_model(self.tokenizer, self.size, 0)
        plain.load_state_dict(self.model.state_dict())
        plain.half().save_pretrained(out)
        build_processor(self.tokenizer, self.size).save_pretrained(out)


def _means(report: dict[str, list[float]]) -> dict[str, float]:
    return {k: round(float(np.mean(v)), 3) for k, v in sorted(report.items()) if v}


def main(argv: list[str] | None = None) -> None:
    """Trains one of the models and writes it in the Hugging Face format."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.train", description=__doc__
    )
    parser.add_argument("model", choices=("large", "small", "small_zoom"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--start", type=Path, help="folder of an exported model to start from")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--warm", type=int, default=0, help="first steps, vision tower alone")
    parser.add_argument("--easy", type=int, default=0, help="first steps, large objects alone")
    parser.add_argument("--scenes", type=int, default=16, help="scenes a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=100, help="steps between reports")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(args.model, args.seed, args.lr, args.scenes, args.device, args.easy)
    if args.start is not None:
        trainer.begin_with(args.start)
    trainer.load(args.out)
    report: dict[str, list[float]] = defaultdict(list)
    log = (args.out / "log.jsonl").open("a", encoding="utf-8")
    bar = tqdm(initial=trainer.step, total=args.steps, desc=f"training {args.model}")
    saved = time.monotonic()
    while trainer.step < args.steps:
        trainer.train_step(args.steps, args.warm, report)
        bar.update()
        if not math.isfinite(report["loss"][-1]):
            raise FloatingPointError(f"loss={report['loss'][-1]} at step {trainer.step}")
        if trainer.step % args.every == 0:
            line = {"step": trainer.step, "seconds": round(trainer.seconds), **_means(report)}
            log.write(json.dumps(line) + "\n")
            log.flush()
            bar.set_postfix(loss=line["loss"], seen=line["seen"])
            report.clear()
        if time.monotonic() - saved > 120 or trainer.step == args.steps:
            trainer.save(args.out)
            saved = time.monotonic()
    bar.close()
    log.close()
    trainer.export(args.out / "model")
    facts = {
        "model": args.model,
        "start": None if args.start is None else args.start.name,
        "steps": trainer.step,
        "vision_only_steps": args.warm,
        "easy_steps": args.easy,
        "scenes": trainer.step * args.scenes,
        "seed": args.seed,
        "learning_rate": args.lr,
        "seconds": round(trainer.seconds),
        "threads": torch.get_num_threads(),
        "hardware": platform.processor() or platform.machine(),
        "device": args.device,
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }
    (args.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
