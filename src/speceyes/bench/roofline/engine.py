"""Engines on one accelerator, step by step: continuous batching, prefill in chunks, kept prefixes.

A step writes a token of every sequence that is being written and reads a part of the prompts that
wait, first come, first served. It takes as long as the slower of its arithmetic and its memory
traffic, by the counts of `speceyes.tuning.roofline`; image encoders run before it. Engines that
share an accelerator take steps by turns.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from speceyes.models.sizes import Shape
from speceyes.tuning.roofline import DECODE, ENCODE, PREFILL, READ, Accelerator, ModelCounts

_NUMBER_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of prompt tokens that is kept, or not, as a whole.

    Args:
        key: Names it with all that stands before it.
        tokens: How many tokens it has.
        image: They are an image's, and must be encoded first.
    """

    key: int
    tokens: int
    image: bool = False


@dataclass(slots=True, eq=False)
class EngineRequest:
    """A prompt that is read and continued. Times are in seconds; NaN until they are known.

    Args:
        prompt: Its pieces.
        tokens: New tokens that will be written, at least 1.
        asked: When it came.
        begun: When its first token was read.
        read: When its prompt was read, and its first token written.
        ended: When its last token was written.
        cached: Tokens of its prompt that were kept from before.
        encode_s: Accelerator time of its images.
        prefill_s: Accelerator time of reading its prompt.
        decode_s: Its equal shares of the steps that wrote its tokens.
    """

    prompt: Sequence[Piece]
    tokens: int
    asked: float
    begun: float = math.nan
    read: float = math.nan
    ended: float = math.nan
    cached: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    past: int = 0
    left: int = 0
    written: int = 0

    @property
    def done(self) -> bool:
        """True where its last token is written."""
        return not math.isnan(self.ended)

    @property
    def work_s(self) -> float:
        """Accelerator time that it took, all in all."""
        return self.encode_s + self.prefill_s + self.decode_s


@dataclass(slots=True)
class _Step:
    """Work of a step. With `repeats`, the same over and over."""

    engine: Engine
    start: float
    seconds: float
    reads: list[tuple[EngineRequest, int]]
    writes: list[EngineRequest]
    repeats: int = 1

    @property
    def end(self) -> float:
        return self.start + self.repeats * self.seconds


@final
class Engine:
    """One model on an accelerator. Made by `Device.serve`.

    Args:
        device: The accelerator.
        shape: The model's size.
        most: Most sequences at once.
        chunk: Most tokens of a step.
        kept_tokens: Tokens whose keys and values there is room for; 0 keeps no prefixes, and
            bounds nothing.
    """

    def __init__(
        self, device: Device, shape: Shape, *, most: int, chunk: int, kept_tokens: int
    ) -> None:
        self.shape, self.counts = shape, ModelCounts(shape)
        self._device, self._most, self._chunk = device, most, chunk
        self._room = kept_tokens
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._kept_tokens = 0
        self._waiting: deque[EngineRequest] = deque()
        self._reading: list[EngineRequest] = []
        self._writing: list[EngineRequest] = []

    @property
    def has_work(self) -> bool:
        """True where a step would do anything."""
        return bool(self._waiting or self._reading or self._writing)

    @property
    def live(self) -> int:
        """Number of requests that are under way, waiting ones included."""
        return len(self._waiting) + len(self._reading) + len(self._writing)

    def submit(self, prompt: Sequence[Piece], tokens: int) -> EngineRequest:
        """Takes a request on."""
        request = EngineRequest(prompt, max(1, tokens), self._device.clock())
        self._waiting.append(request)
        self._device.came()
        return request

    def drop(self, request: EngineRequest) -> None:
        """Gives a request up."""
        for held in (self._waiting, self._reading, self._writing):
            if request in held:
                held.remove(request)

    def plan(self, start: float, *, alone: bool) -> _Step:
        """The next step.

        Args:
            start: Its time.
            alone: No other engine waits for the accelerator.
        """
        peak, counts = self._device.accelerator, self.counts
        writes = list(self._writing)
        budget, encoded = max(1, self._chunk - len(writes)), 0
        reads: list[tuple[EngineRequest, int]] = []
        encode = compute = 0.0
        while budget > 0:
            at = len(reads)
            if at == len(self._reading) and not self._admit(start, encoded):
                break
            one = self._reading[at]
            if one.past == one.cached:  # its first part: the encoder runs before
                images = [p.tokens for p in one.prompt[_cached_pieces(one) :] if p.image]
                taken = sum(map(counts.encode, images)) / peak.flops / ENCODE
                one.encode_s += taken
                encode += taken
                encoded += sum(images)
            part = min(budget, one.left)
            taken = counts.prefill(part, one.past) / peak.flops / PREFILL
            one.prefill_s += taken
            compute += taken
            budget -= part
            reads.append((one, part))
        written = len(writes) * 2 * counts.weights / peak.flops / DECODE
        context = sum(one.past + one.written for one in writes)
        read = (
            (counts.decoder_bytes + context * _NUMBER_BYTES * self.shape.kept_per_token)
            / peak.bandwidth
            / READ
        )
        seconds = max(compute + written, read)
        for one in writes:  # what reading adds to a step is the readers', the rest the writers'
            one.decode_s += (seconds - compute) / len(writes)
        if not writes and reads and seconds > compute:
            for one, _ in reads:
                one.prefill_s += (seconds - compute) / len(reads)
        repeats = 1
        if alone and not reads and writes:
            repeats = min(one.tokens - one.written for one in writes)
            for one in writes:
                one.decode_s += (repeats - 1) * seconds / len(writes)
        return _Step(self, start, encode + seconds, reads, writes, repeats)

    def end(self, step: _Step) -> None:
        """Notes what a step has done."""
        for one, part in step.reads:
            one.past += part
            one.left -= part
            if one.left == 0 and one in self._reading:  # nobody gave it up
                self._reading.remove(one)
                self._keep(one)
                one.read, one.written = step.end, 1
                self._writing.append(one)
        for one in step.writes:
            one.written += step.repeats
        for one in [one for one in self._writing if one.written >= one.tokens]:
            self._writing.remove(one)
            one.ended = step.end

    def _admit(self, now: float, encoded: int) -> bool:
        """Begins with one that waits, where there is room."""
        running = len(self._reading) + len(self._writing)
        if not self._waiting or running >= self._most or encoded >= self._chunk:
            return False
        one = self._waiting[0]
        length = sum(piece.tokens for piece in one.prompt)
        held = sum(r.past + r.left + r.tokens for r in (*self._reading, *self._writing))
        if self._room and running and held + length + one.tokens > self._room:
            return False
        self._waiting.popleft()
        for piece in one.prompt:
            if piece.key not in self._kept:
                break
            self._kept.move_to_end(piece.key)
            one.cached += piece.tokens
        one.cached = min(one.cached, length - 1)  # the last token is read to write the next
        one.past, one.left, one.begun = one.cached, length - one.cached, now
        self._reading.append(one)
        return True

    def _keep(self, one: EngineRequest) -> None:
        if not self._room:
            return
        for piece in one.prompt:
            if piece.key not in self._kept:
                self._kept_tokens += piece.tokens
            self._kept[piece.key] = piece.tokens
            self._kept.move_to_end(piece.key)
        held = sum(r.past + r.left for r in (*self._reading, *self._writing))
        while self._kept and self._kept_tokens + held > self._room:
            _, tokens = self._kept.popitem(last=False)
            self._kept_tokens -= tokens


def _cached_pieces(one: EngineRequest) -> int:
    """Number of its first pieces that are kept whole."""
    seen = 0
    for at, piece in enumerate(one.prompt):
        seen += piece.tokens
        if seen > one.cached:
            return at
    return len(one.prompt)


@final
class Device:
    """An accelerator with its engines; an event source for a `VirtualClock`.

    Args:
        accelerator: Its peak rates.
        clock: Tells the time, seconds.
    """

    def __init__(self, accelerator: Accelerator, clock: Callable[[], float]) -> None:
        self.accelerator, self.clock = accelerator, clock
        self.engines: list[Engine] = []
        self.busy_s = 0.0
        self._step: _Step | None = None
        self._turn = 0

    def serve(
        self, shape: Shape, *, most: int = 64, chunk: int = 2048, kept_tokens: int = 400_000
    ) -> Engine:
        """Adds a model."""
        engine = Engine(self, shape, most=most, chunk=chunk, kept_tokens=kept_tokens)
        self.engines.append(engine)
        return engine

    def came(self) -> None:
        """Something new waits: a run of equal steps ends with the one under way."""
        step, now = self._step, self.clock()
        if step is None:
            self._begin(now)
        elif step.repeats > 1:
            through = max(1, math.ceil((now - step.start) / step.seconds - 1e-9))
            spared = step.repeats - min(step.repeats, through)
            step.repeats -= spared
            for one in step.writes:
                one.decode_s -= spared * step.seconds / len(step.writes)

    def next_event(self) -> float:
        """End of the step under way."""
        return math.inf if self._step is None else self._step.end

    def fire(self) -> None:
        """Ends that step and begins the next."""
        step = self._step
        assert step is not None
        self.busy_s += step.end - step.start
        step.engine.end(step)
        self._step = None
        self._begin(step.end)

    def _begin(self, now: float) -> None:
        working = [engine for engine in self.engines if engine.has_work]
        if not working:
            return
        self._turn += 1
        engine = working[self._turn % len(working)]
        self._step = engine.plan(now, alone=len(working) == 1)
