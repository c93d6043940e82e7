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
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from speceyes.tiny.scenes import COLOURS, SHAPES
from speceyes.tiny.training.learner import Learner, Pace, Report, add_run, padded, train
from speceyes.tiny.training.lessons import COARSE, ROLES, THINGS, TOKENS, Batch, Lessons, Row
from speceyes.tiny.training.models import (
    JUDGE_PHRASES,
    LARGE_SIZE,
    SMALL_SIZE,
    build_model,
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


def batched_vision(model: Qwen3VLForConditionalGeneration) -> None:
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
            heads, tokens = attention.num_heads, int(cu_seqlens[1])
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


PACE = Pace(rise=200, fall=0.35, least=0.03, outlier=8)


class Trainer(Learner):
    """One of the models of the pair, with what trains it.

    Args:
        name: "large", "small", "small_zoom" or "small_judge".
        seed: Of scenes, questions and new weights.
        lr: Highest learning rate.
        scenes: Scenes a step.
        device: Where it is trained.
        easy: First steps, of large objects alone.
        warm: First steps, of the vision tower alone.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        lr: float,
        scenes: int,
        device: str,
        easy: int = 0,
        warm: int = 0,
    ) -> None:
        size = LARGE_SIZE if name == "large" else SMALL_SIZE
        judges = name == "small_judge"
        tokenizer = build_tokenizer(JUDGE_PHRASES if judges else ())
        super().__init__(
            name, build_model(tokenizer, size, seed).to(device), size, tokenizer, lr, PACE
        )
        self.model.train()
        batched_vision(self.model)
        self.smallest = size.view * COARSE // TOKENS if judges else size.view
        self.head = Head(size.hidden, self._word_ids()).to(device)
        self.lessons = Lessons(
            tokenizer,
            size,
            large=name == "large",
            zooms=name == "small_zoom",
            judges=judges,
            seed=seed,
            scenes_a_batch=scenes,
            easy=easy,
        )
        self.probe = Head(size.hidden, self._word_ids()).to(device)
        self.thrown_away = {"head": self.head, "probe": self.probe}
        params = [p for one in (self.model, self.head, self.probe) for p in one.parameters()]
        decayed = [p for p in params if p.ndim > 1]
        plain = [p for p in params if p.ndim <= 1]
        self.optimizers = (
            torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
                lr=lr,
                betas=(0.9, 0.98),
            ),
        )
        self.warm, self.device = warm, device

    def _word_ids(self) -> torch.Tensor:
        pairs = [(f" {word}", word) for group in WORDS for word in group]
        found = [[self.tokenizer(t)["input_ids"] for t in pair] for pair in pairs]
        if any(len(ids) != 1 for pair in found for ids in pair):
            raise RuntimeError("a colour or a shape is more than one token: enlarge the vocabulary")
        return torch.tensor([[ids[0] for ids in pair] for pair in found])

    def see(self, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, float]:
        """Features [n, tokens, hidden], deepstack features, the head's loss and its accuracy."""
        n, grid = len(batch.views), batch.views.shape[1] // self.size.patch
        grids = torch.tensor([[1, grid, grid]] * n, device=self.device)
        out = self.model.model.visual(
            to_patches(batch.views, self.size.patch).to(self.device), grid_thw=grids
        )
        shape = (n, batch.tokens**2, self.size.hidden)
        features = out.pooler_output.view(shape)
        deep = [d.view(shape) for d in out.deepstack_features]
        labels = torch.from_numpy(batch.labels).to(self.device)
        losses, right, asked = [], 0, 0
        words = self.model.model.language_model.embed_tokens.weight
        for part, scores in enumerate(self.head(features, words)):
            gold = labels[..., part]
            if not bool((gold >= 0).any()):
                continue
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
        report: Report,
        side: int = TOKENS,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of the log-losses of what the rows say, and of the probe on names, in nats."""
        told = padded(rows, self.image_token, side)
        early: list[torch.Tensor] = []
        hook = self.model.model.language_model.layers[PROBED].register_forward_hook(
            lambda _module, _args, out: early.append(out[0] if isinstance(out, tuple) else out)
        )
        hidden = self._hidden(told, features, deep)
        hook.remove()
        said = torch.from_numpy(told.roles > 0).to(self.device)[:, 1:]
        logits = self.model.lm_head(hidden[:, :-1][said])
        gold = torch.from_numpy(told.ids).to(self.device)[:, 1:][said]
        loss = F.cross_entropy(logits, gold, reduction="sum")
        right = (logits.argmax(-1) == gold).cpu().numpy()
        self._note(rows, told.roles[:, 1:], right, report)
        return loss, self._mentions(rows, early[0], report)

    def _mentions(self, rows: list[Row], early: torch.Tensor, report: Report) -> torch.Tensor:
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

    def _note(self, rows: list[Row], roles: np.ndarray, right: np.ndarray, report: Report) -> None:
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

    def train_step(self, steps: int, report: Report) -> None:
        """One batch."""
        start = time.perf_counter()
        batch = self.lessons.batch(self.step, rows=self.step >= self.warm)
        features, deep, aux, seen = self.see(batch)
        if batch.tokens == TOKENS:
            report["seen"].append(seen)
        loss = aux
        if batch.rows:
            rows = sorted(batch.rows, key=lambda r: len(r.ids))
            short = [r for r in rows if len(r.images) == 1]
            for group_rows in (short, rows[len(short) :]):
                if group_rows:
                    told, named = self.tell(group_rows, features, deep, report, batch.tokens)
                    loss = loss + (told + 0.5 * named) / len(rows)
        self._learn(loss, steps, start, report)

    def begin_with(self, weights: Path) -> None:
        """Starts from an exported model; what is thrown away after training starts anew."""
        known = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32)
        state = known.state_dict()
        for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            grown = self.model.state_dict()[name].clone()  # tokens of its own begin anew
            grown[: len(state[name])] = state[name]
            state[name] = grown
        self.model.load_state_dict(state)


def main(argv: list[str] | None = None) -> None:
    """Trains one of the models and writes it in the Hugging Face format."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.train", description=__doc__
    )
    parser.add_argument("model", choices=("large", "small", "small_zoom", "small_judge"))
    add_run(parser, steps=12000, scenes=16)
    parser.add_argument("--start", type=Path, help="folder of an exported model to start from")
    parser.add_argument("--warm", type=int, default=0, help="first steps, vision tower alone")
    parser.add_argument("--easy", type=int, default=0, help="first steps, large objects alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)

    def begin() -> Trainer:
        trainer = Trainer(
            options.model,
            options.seed,
            options.lr,
            options.scenes,
            options.device,
            options.easy,
            options.warm,
        )
        if options.start is not None:
            trainer.begin_with(options.start)
        return trainer

    facts = {
        "start": None if options.start is None else options.start.name,
        "vision_only_steps": options.warm,
        "easy_steps": options.easy,
        "device": options.device,
    }
    train(options, begin, facts)


if __name__ == "__main__":
    main()
