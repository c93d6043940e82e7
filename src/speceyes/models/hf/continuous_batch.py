"""Rows that are being decoded together, each at its own place, with rows joining and leaving.

Keys and values stand in slots, one a row, each filled from its left end: a row joins by copying
its own states into a free slot, and leaves by handing its slot to the last row, so that what
the others hold is never moved. A new row's prompt is read from where an earlier conversation
left off (`PrefixCache`). Only B x T x K log-probabilities are kept, never B x T x vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch

from speceyes.models.hf.choosing import (
    TokensSeen,
    below,
    drawn,
    generator,
    penalized,
    penalizes,
    scored,
)
from speceyes.models.hf.generate import Decoded
from speceyes.models.hf.prefix_cache import CacheEntry, PrefixCache
from speceyes.models.hf.prompt_encoder import ComputeStats, EncodedPrompt, PromptEncoder
from speceyes.models.hf.qwen_vl_adapter import PrefillStates, SlotLayer, SlotPlaces, to_device
from speceyes.models.hf.stopping import Detokenizer, Row, StopStrings
from speceyes.types import Sampling

Key = TypeVar("Key")

_GROWTH = 64
"""Slots grow by at least so many tokens at a time."""
_WIDTH = 128
"""Compiled steps see a power of two times so many tokens."""
_SHAPES = 64
_RAGGED = 2
"""A prompt joins a group whose longest is at most so many times as long as itself."""


@dataclass(slots=True)
class _Line(Generic[Key]):
    """A row under way."""

    key: Key
    tokens: EncodedPrompt
    generator: torch.Generator | None
    row: Row
    seen: TokensSeen | None
    length: int = 0
    last: int = 0
    top: list[tuple[torch.Tensor, int]] = field(default_factory=list)
    first: Mapping[str, float] = field(default_factory=dict)
    finite: bool = True


class _Slots:
    """Room for the states of up to `n` rows, a tensor [layers, 2, n, heads, tokens, width].

    Args:
        like: States of a row, [layers, 2, heads, any, width].
        n: Rows.
        tokens: Tokens a row.
        fixed: Grow in the steps of `bucket`, at addresses that a CUDA graph may rely on.
    """

    def __init__(self, like: torch.Tensor, n: int, tokens: int, *, fixed: bool = False) -> None:
        layers, both, heads, _, size = like.shape
        self.fixed = fixed
        if fixed:
            n, tokens = bucket(n, 1), bucket(tokens, _WIDTH)
        self.states = like.new_zeros(layers, both, n, heads, tokens, size)
        nowhere = torch.zeros(0, dtype=torch.long, device=like.device)
        self.places = SlotPlaces(nowhere, nowhere)
        self.layers = self._made()

    def fit(self, n: int, tokens: int) -> None:
        """Grows to n rows and so many tokens."""
        old = self.states
        rows, room = old.shape[2], old.shape[4]
        if n <= rows and tokens <= room:
            return
        if tokens > room:
            tokens = max(tokens + _GROWTH, room + room // 2)
        if self.fixed:
            n, tokens = bucket(n, 1), bucket(tokens, _WIDTH)
        shape = (*old.shape[:2], max(n, rows), old.shape[3], max(tokens, room), old.shape[5])
        self.states = old.new_zeros(shape)
        self.states[:, :, :rows, :, :room] = old
        self.layers = self._made()

    def _made(self) -> list[SlotLayer]:
        layers = [SlotLayer(keys, values, self.places) for keys, values in self.states]
        if self.fixed:
            for layer in layers:
                torch._dynamo.mark_static_address(layer.keys)
                torch._dynamo.mark_static_address(layer.values)
        return layers


def compiled(model: Any) -> Callable[..., Any]:
    """The model's forward pass, compiled for each shape it sees; in CUDA graphs on CUDA."""
    mode = "reduce-overhead" if model.device.type == "cuda" else None
    forward = torch.compile(model.forward, dynamic=False, mode=mode)

    def run(**named: Any) -> Any:
        # Powers of two of rows and columns: more shapes than torch takes for a mistake.
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            return forward(**named)

    return run


def bucket(n: int, least: int) -> int:
    """The next power of two times `least`, so that few shapes are compiled."""
    return least << max(0, (-(-n // least) - 1).bit_length())


@final
class ContinuousBatch(Generic[Key]):
    """Rows under way under one `Sampling`. Use it from one thread, inside inference mode.

    Args:
        encoder: The model's prompt encoder, with its adapter.
        prefixes: Conversations that were read before.
        sampling: How every row is decoded.
        detokenizer: Reads tokens.
        stats: Counts what is computed.
        compiled: The model's forward pass, compiled for fixed shapes; None steps as it is.
        spare: Holds the slots of the last compiled batch that was through, for the next one.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        prefixes: PrefixCache,
        sampling: Sampling,
        detokenizer: Detokenizer,
        stats: ComputeStats,
        compiled: Callable[..., Any] | None = None,
        spare: list[_Slots] | None = None,
    ) -> None:
        self._spare, self._clean = spare, True
        self._encoder, self._adapter, self._prefixes = encoder, encoder.adapter, prefixes
        self._sampling, self._detokenizer, self._stats = sampling, detokenizer, stats
        self._compiled = compiled
        self._stops = StopStrings(sampling.stop, detokenizer, sampling.stop_after)
        self._lines: list[_Line[Key]] = []
        self._slots: _Slots | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def add(
        self, rows: Sequence[tuple[Key, EncodedPrompt, int | None]]
    ) -> list[tuple[Key, Decoded]]:
        """Reads the prompts of new rows, and decodes a first token of each.

        Args:
            rows: A key that comes back with the row, its prompt, and the seed of its draws.

        Returns:
            Rows that are finished already.
        """
        found = [self._found(tokens) for _, tokens, _ in rows]
        order = sorted(range(len(rows)), key=lambda i: found[i][1] - len(rows[i][1].ids))
        done: list[tuple[Key, Decoded]] = []
        group: list[int] = []
        for at in order:  # the longest to be read comes first
            left = len(rows[at][1].ids) - found[at][1]
            if group and left * _RAGGED < len(rows[group[0]][1].ids) - found[group[0]][1]:
                done += self._join(rows, found, group)
                group = []
            group.append(at)
        return done + (self._join(rows, found, group) if group else [])

    def _found(self, tokens: EncodedPrompt) -> tuple[CacheEntry | None, int]:
        """An earlier conversation, and how much of it serves: all but the last token at most."""
        kept, common = self._prefixes.find(tokens.key)
        return kept, tokens.whole(min(common, len(tokens.ids) - 1))

    def _join(
        self,
        rows: Sequence[tuple[Key, EncodedPrompt, int | None]],
        found: Sequence[tuple[CacheEntry | None, int]],
        group: Sequence[int],
    ) -> list[tuple[Key, Decoded]]:
        prompts = [rows[at][1] for at in group]
        logits, states, new = self._read(prompts, [found[at] for at in group])
        logits = logits[:, -1]
        lines: list[_Line[Key]] = []
        for at in group:
            key, tokens, seed = rows[at]
            draws = generator(seed) if self._sampling.temperature > 0 else None
            seen = None
            if penalizes(self._sampling):
                ids = torch.from_numpy(tokens.ids).to(logits.device)
                seen = TokensSeen.of(ids, logits.shape[-1])
            row = Row(begun=self._stops.begins(tokens.begun))
            lines.append(_Line(key, tokens, draws, row, seen, length=len(tokens.ids)))
        ended = self._take(lines, logits)
        over = [i for i, end in enumerate(ended) if end]
        decoded = self._finished([lines[i] for i in over])
        done = [(lines[i].key, one) for i, one in zip(over, decoded, strict=True)]
        if self._prefixes.limit:
            for i in over:
                self._keep(lines[i], states.row(i, new[i]))
        going = [i for i, end in enumerate(ended) if not end]
        if going:
            room = max(lines[i].length for i in going) + min(self._sampling.max_tokens, 4 * _GROWTH)
            total = len(self._lines) + len(going)
            if self._slots is None:
                self._slots = self._room(states.a_row, total, room)
            self._slots.fit(total, room)
            for i in going:
                own = self._slots.states[:, :, len(self._lines), :, : lines[i].length]
                states.put(i, new[i], own)
                self._lines.append(lines[i])
        return done

    def _room(self, like: torch.Tensor, n: int, tokens: int) -> _Slots:
        """Slots for n rows of so many tokens; those of an earlier batch, where there are any."""
        if self._spare:
            return self._spare.pop()
        return _Slots(like, n, tokens, fixed=self._compiled is not None)

    def _give_back(self) -> None:
        """Leaves the slots of a batch that is through to the next one, at the same addresses, which
        the graphs that were recorded over them rely on. Not those of a row whose numbers weren't
        finite: what a mask hides counts zero times, and that is no number either.
        """
        slots, self._slots = self._slots, None
        if slots is not None and slots.fixed and self._clean and self._spare is not None:
            self._spare[:] = [slots]

    def likelihoods(
        self, rows: Sequence[tuple[EncodedPrompt, Sequence[int]]]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-likelihoods of given answers, in one pass.

        Args:
            rows: A prompt, and the n tokens of an answer to it, at least one.

        Returns:
            float32[n] for each: the log-probability of each token, in nats.
        """
        whole = [tokens.followed(said) for tokens, said in rows]
        found = []
        for (tokens, _), row in zip(rows, whole, strict=True):
            kept, common = self._prefixes.find(row.key)
            # The last token of the prompt is read again: it says what comes first.
            found.append((kept, tokens.whole(min(common, len(tokens.ids) - 1))))
        longest = max(len(said) for _, said in rows)
        logits, _, _ = self._read(whole, found, keep=longest + 1)
        likely = []
        for scores, (_, said) in zip(logits, rows, strict=True):
            mine = scores[-len(said) - 1 : -1]
            ids = torch.as_tensor(list(said), device=mine.device)[:, None]
            chosen = mine.gather(1, ids).squeeze(1) - mine.logsumexp(dim=1)
            likely.append(chosen.cpu().numpy())
        return likely

    def _read(
        self,
        prompts: Sequence[EncodedPrompt],
        found: Sequence[tuple[CacheEntry | None, int]],
        keep: int = 1,
    ) -> tuple[torch.Tensor, PrefillStates, list[int]]:
        """One pass over what is new in the prompts.

        Returns:
            float32[B, keep, V] logits behind the last tokens, the prompts' states, and how many
            tokens of each were new.
        """
        size = len(prompts)
        had = [n for _, n in found]
        new = [len(p.ids) - n for p, n in zip(prompts, had, strict=True)]
        before, block = max(had), max(new)
        ids = np.zeros((size, block), np.int64)
        positions = np.ones((3, size, block), np.int64)
        mask = np.zeros((size, before + block), np.int64)
        for i, (p, n, m) in enumerate(zip(prompts, had, new, strict=True)):
            ids[i, block - m :] = p.ids[n:]
            positions[:, i, block - m :] = p.positions[:, n:]
            mask[i, :n] = 1
            mask[i, before + block - m :] = 1
        spans = [
            one for p, n in zip(prompts, had, strict=True) for one in p.spans if one.start >= n
        ]
        features = self._encoder.image_features(spans, self._stats)
        prefixes = [
            entry.states[:, :, :, :n] if entry is not None and n else None for entry, n in found
        ]
        states = PrefillStates(self._adapter.layers, prefixes, block)
        with self._stats.timed():
            logits = self._adapter.prefill(ids, mask, positions, states, features, keep)
        self._stats.passes += 1
        self._stats.read += sum(new)
        self._stats.reused += sum(had)
        self._stats.padding += size * block - sum(new)
        return logits, states, new

    def attended(self, prompts: Sequence[EncodedPrompt]) -> list[npt.NDArray[np.float32]]:
        """Attention of each prompt's last token to each of its tokens, itself included.

        Args:
            prompts: Two tokens or more each; they share both passes.

        Returns:
            float32[layers, heads, n] each; a head's weights sum to 1.

        Raises:
            ModelError: The model gives no attentions.
        """
        before = [
            EncodedPrompt(
                prompt.ids[:-1],
                prompt.key[:-1],
                prompt.spans,
                prompt.positions[:, :-1],
                int(prompt.positions[:, -1].max()),
            )
            for prompt in prompts
        ]
        _, states, new = self._read(before, [self._found(prompt) for prompt in before])
        return self._adapter.last_attention(
            [int(prompt.ids[-1]) for prompt in prompts],
            np.stack([prompt.positions[:, -1:] for prompt in prompts], axis=1),
            [states.row(i, m) for i, m in enumerate(new)],
        )

    def step(self) -> list[tuple[Key, Decoded]]:
        """Decodes a token of every row.

        Returns:
            Rows that are finished now.
        """
        if not self._lines:
            return []
        slots, device = self._slots, self._adapter.device
        assert slots is not None
        count = len(self._lines)
        lengths = [line.length for line in self._lines]
        width = max(lengths) + 1
        slots.fit(count, width)
        last = [line.last for line in self._lines]
        positions = [self._position(line) for line in self._lines]
        ragged = min(lengths) + 1 < width
        if self._compiled is not None:
            # Rows and columns that nobody looks at make up for a shape that was seen before.
            width = min(bucket(width, _WIDTH), slots.states.shape[4])
            spare = min(bucket(count, 1), slots.states.shape[2]) - count
            lengths, last, positions = (one + [0] * spare for one in (lengths, last, positions))
        numbers = to_device(torch.tensor([lengths, last, positions]), device)
        places = slots.places
        places.width, places.columns = width, numbers[0]
        places.rows = torch.arange(len(lengths), device=device)
        if self._compiled is not None:  # one kind of mask, or shapes would be compiled twice
            mask = (torch.arange(width, device=device)[None] <= numbers[0][:, None]).long()
        else:
            mask = self._adapter.decode_mask(numbers[0], width) if ragged else None
        with self._stats.timed():
            logits = self._adapter.decode(
                numbers[1], mask, numbers[2], slots.layers, self._compiled
            )[:count]
        self._stats.passes += 1
        for line in self._lines:
            line.length += 1
        ended = self._take(self._lines, logits.float())
        over = [at for at, end in enumerate(ended) if end]
        finished = [self._lines[at] for at in over]
        for at, line in reversed(list(zip(over, finished, strict=True))):
            if self._prefixes.limit:
                self._keep(line, slots.states[:, :, at, :, : line.length].clone())
            self._leave(at)
        if not self._lines:
            self._give_back()
        decoded = self._finished(finished)
        return [(line.key, one) for line, one in zip(finished, decoded, strict=True)]

    def drop(self, key: Key) -> None:
        """Lets a row leave unfinished; what was read of its prompt is not kept."""
        for at, line in enumerate(self._lines):
            if line.key == key:
                self._leave(at)
                if not self._lines:
                    self._give_back()
                return

    def _leave(self, at: int) -> None:
        """Hands a row's slot to the last row."""
        assert self._slots is not None
        tail = self._lines.pop()
        if at < len(self._lines):
            self._lines[at] = tail
            states, own = self._slots.states, slice(0, tail.length)
            states[:, :, at, :, own] = states[:, :, len(self._lines), :, own]

    def _position(self, line: _Line[Key]) -> int:
        """The rotary position of the token that is read next."""
        return line.tokens.following + line.length - len(line.tokens.ids)

    def _take(self, lines: Sequence[_Line[Key]], scores: torch.Tensor) -> list[bool]:
        """Chooses a token for each line; which of them are finished.

        Args:
            lines: B of them.
            scores: float32[B, V], raw.
        """
        sampling = self._sampling
        first = (
            sampling.first_token
            and not lines[0].row.ids
            and lines[0].length == len(lines[0].tokens.ids)
        )
        top, finite, best = scored(scores, sampling.top_k, first=first)
        if top is not None:
            for i, line in enumerate(lines):
                line.top.append((top, i))
        if best is not None:
            # One copy to the host: float32 holds every id exactly.
            told = torch.stack((best[0].float(), best[1].float())).tolist()
            for line, ids, chances in zip(lines, *told, strict=True):
                line.first = self._detokenizer.first_token([int(i) for i in ids], chances)
        seen = [line.seen for line in lines if line.seen is not None]
        if seen:
            scores = penalized(scores, sampling, seen)
        if sampling.temperature > 0:
            generators = [line.generator for line in lines if line.generator is not None]
            chosen = drawn(scores, sampling, generators)[:, 0]
        else:
            chosen = scores.argmax(dim=-1)
        low = torch.zeros_like(finite)
        if sampling.floor is not None and top is not None:
            low = below(top, sampling.floor)
        # The step's one wait for the device:
        tokens, good, lost = torch.stack((chosen, finite.long(), low.long())).tolist()
        self._stats.decoded += len(lines)
        ended = []
        for line, token, fine, is_lost in zip(lines, tokens, good, lost, strict=True):
            line.finite, line.last = bool(fine), token
            self._clean &= line.finite
            if line.seen is not None:
                line.seen.add(token)
            over = line.row.take(token, self._detokenizer.ends, self._stops, lost=bool(is_lost))
            said = line.length - len(line.tokens.ids) + 1
            ended.append(over or not fine or said >= sampling.max_tokens)
        return ended

    def _finished(self, lines: Sequence[_Line[Key]]) -> list[Decoded]:
        """Completions of the rows that are finished; their scores come to the host in one copy."""
        kept = [line.top[: len(line.row.ids)] for line in lines]
        scores = [values[i] for mine in kept for values, i in mine]
        whole = torch.stack(scores).cpu().numpy() if scores else np.zeros((0, 0), np.float32)
        ends = np.cumsum([len(mine) for mine in kept]).tolist()
        return [
            Decoded(
                text=line.row.text(self._stops),
                ids=tuple(line.row.ids),
                top_logprobs=whole[end - len(mine) : end].copy() if mine else whole[:0, :0],
                finish=line.row.finish or "length",
                first_token=line.first,
                finite=line.finite,
            )
            for line, mine, end in zip(lines, kept, ends, strict=True)
        ]

    def _keep(self, line: _Line[Key], states: torch.Tensor) -> None:
        """Keeps what was read of a finished row; its last token never was."""
        if not self._prefixes.limit or not line.finite:
            return
        said = np.asarray(line.row.ids, np.int64)[: line.length - len(line.tokens.ids)]
        self._prefixes.add(CacheEntry(np.concatenate((line.tokens.key, said)), states))
