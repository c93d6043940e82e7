"""The funnel: judge, draft, gate, agent.  (Sec. 3 of SpecEyes, arXiv 2603.23483.)

This is the only file that knows the order of the phases. What can't be decided cheaply goes to
the agent: a judge that fails means tools, a draft that fails is rejected. Only the agent's own
failure, or an input that can't be read, ends a query without an answer, and then its `Result`
says so. How queries move is described in docs/pipeline.md.
"""

from __future__ import annotations

import copy
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final, get_args, overload

import numpy as np

from speceyes import intake
from speceyes.ahead import Ahead, offered
from speceyes.auditing import Auditor
from speceyes.calibration.watched import WatchedGate
from speceyes.drafting.rule import DepthRule
from speceyes.efficiency import SPECULATE, CostModel, Report, Speculate, efficiency
from speceyes.errors import ConfigError, InputError
from speceyes.front import Front
from speceyes.images import DEFAULT_LIMITS, ImageLimits
from speceyes.isolation import describe
from speceyes.journey import Source, Ticket
from speceyes.live.asking import Asking
from speceyes.observing import Observer, Watching
from speceyes.ordering import Order, Ordering
from speceyes.protocols import Dialect, Tool, VisionLanguageModel
from speceyes.rounds import Loaded, Rounds
from speceyes.types import Completion, Judgement, Query, Result, Timings, Verdict

if TYPE_CHECKING:
    from os import PathLike

    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.scoring.scores import Aggregate
    from speceyes.tools import Tools

Schedule: TypeAlias = Literal["auto", "overlapped", "batched", "sequential"]


@final
class SpecPipeline:
    """Answers questions about images: by draft where that is safe, by the agent elsewhere.

    It holds its parts and nothing about a run, so that threads can share it as far as their
    models can be shared.

    Args:
        judge: Phase I, queries to judgements; None drafts every query.
        answerer: Phase II, queries to completions; None, together with the gate, for the agent
            alone.
        gate: Phase III, completion to verdict.
        fallback: Phase IV; None leaves a query that isn't answered by draft without an answer.
        batch_size: Queries that are judged and drafted together.
        order: "judge_first" drafts what the judge lets through, "draft_first" judges what the
            gate accepts, "concurrent" does both to every query at once (for two devices), "auto"
            picks the first or the second by the costs that a run measures. All accept the same
            drafts, for both judge and gate must agree to each.
        schedule: "overlapped" loads and resizes the next batch in one thread and judges and
            drafts another in a second, while the agent works; "batched" runs no thread; "auto"
            overlaps unless all models run on the CPU, where threads take the cores that they
            would save; "sequential" works as the
            paper's code does, as a yardstick: the agent takes one query at a time, and every
            turn is read anew. Answers and routes are the same under all.
        early: Whether a draft ends at the first token that rejects it (under "min"), and, where
            both run at once, as soon as the judge wants tools. No decision depends on it, only
            what is seen of rejected drafts. Off under the "sequential" schedule.
        speculate: "always", so that answers depend on nothing but models and settings; or "auto":
            where the costs that are measured as it runs say that the agent alone is faster, it
            works alone, and now and then a query is sent the other way to see whether that
            still holds. Then a query's route depends on how fast its neighbours were.
        auditor: Has a share of the accepted drafts audited by the agent in the background, and
            shuts the gate when the promised risk is passed. Drafts then never end early.
        image_limits: What images are loaded under.
        allow_urls: Whether http(s) addresses of images are fetched.
        observers: Each is called with what happens to queries; see `speceyes.observing`. One
            that raises is logged and changes nothing.

    Raises:
        ConfigError: Parts that can't work together.

    Example:
        >>> from PIL import Image
        >>> from speceyes.answerer import SpeculativeAnswerer
        >>> from speceyes.gate import SeparabilityGate
        >>> from speceyes.models.scripted import ScriptedModel
        >>> drafts = SpeculativeAnswerer(ScriptedModel("red"))
        >>> pipe = SpecPipeline(answerer=drafts, gate=SeparabilityGate(0.98))
        >>> pipe(Image.new("RGB", (64, 64)), "Which colour is the collar?").answer
        'red'
    """

    def __init__(
        self,
        *,
        judge: Callable[[Sequence[Query]], Sequence[Judgement]] | None = None,
        answerer: Callable[[Sequence[Query]], Sequence[Completion]] | None = None,
        gate: Callable[[Completion], Verdict] | None = None,
        fallback: AgenticFallback | None = None,
        batch_size: int = 16,
        order: Order = "judge_first",
        schedule: Schedule = "auto",
        early: bool = True,
        speculate: Speculate = "always",
        auditor: Auditor | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        if schedule not in get_args(Schedule):
            raise ConfigError(f"schedule={schedule!r}; it must be one of {get_args(Schedule)}")
        if (answerer is None) != (gate is None):
            missing = "answerer" if answerer is None else "gate"
            raise ConfigError(
                f"{missing} is missing: pass answerer and gate, or neither for the agent alone"
            )
        if answerer is None and fallback is None:
            raise ConfigError("nothing can answer: pass answerer and gate, or fallback, or all")
        if answerer is None and judge is not None:
            raise ConfigError(
                "a judge without answerer and gate decides nothing, for every query goes to "
                "the agent: pass judge=None"
            )
        kept, needed = getattr(answerer, "top_k", None), getattr(gate, "top_k", None)
        if (
            isinstance(kept, int)
            and isinstance(needed, int)
            and kept < needed
            and getattr(gate, "aggregate", None) != "log"
        ):
            raise ConfigError(
                f"the answerer keeps top_k={kept} log-probabilities and the gate needs "
                f"top_k={needed}, so it would reject every draft: give both the same top_k"
            )
        check = getattr(gate, "check", None)
        if check is not None and answerer is not None:
            # A calibrated gate refuses drafts of another model, prompt or K.
            model = getattr(answerer, "model", None)
            check(
                model=getattr(model, "name", None),
                revision=getattr(model, "revision", None),
                prompt_hash=getattr(answerer, "prompt_hash", None),
                top_k=kept if isinstance(kept, int) else None,
            )
        if auditor is not None:
            if gate is None or fallback is None:
                raise ConfigError("an auditor needs drafts to audit, and a fallback to do it")
            if getattr(gate, "monitor", None) is not auditor.monitor:
                gate = WatchedGate(gate, auditor.monitor)
        self.auditor = auditor
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}; it must be at least 1")
        if order not in get_args(Order):
            raise ConfigError(f"order={order!r}; it must be one of {get_args(Order)}")
        if speculate not in SPECULATE:
            raise ConfigError(f"speculate={speculate!r}; it must be one of {SPECULATE}")
        self.speculate: Speculate = speculate
        self.costs = CostModel()
        """What phases have cost so far; see `CostModel.efficiency`."""
        self.order: Order = order
        self.early = early and schedule != "sequential"
        if schedule == "sequential":
            judge, answerer, fallback = (as_published(p) for p in (judge, answerer, fallback))
        self.judge = judge
        self.answerer = answerer
        self.gate = gate
        self.fallback = fallback
        if schedule == "auto":
            # Where models and images share the cores, a thread takes what it gives (measured).
            parts = (judge, answerer, fallback)
            models = [m for m in (getattr(part, "model", None) for part in parts) if m is not None]
            on_cpu = [getattr(getattr(m, "device", None), "type", "") == "cpu" for m in models]
            schedule = "batched" if on_cpu and all(on_cpu) else "overlapped"
        self.schedule: Schedule = schedule
        # The agent sees what the judge saw, where both are the same model.
        first = (judge, answerer) if answerer is not None else (fallback,)
        self._prepares = offered(first, "prepare")
        self.batch_size = batch_size
        self.image_limits = image_limits
        self.allow_urls = allow_urls
        self.observers = tuple(observers)
        for observer in self.observers:
            if not callable(observer):
                raise ConfigError(
                    f"observers holds {observer!r}; each must be callable with an event"
                )
        self._asking: Asking | None = None
        self._opening = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        large: str | PathLike[str] | VisionLanguageModel | None = None,
        small: str | PathLike[str] | VisionLanguageModel | None = None,
        *,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] = ("zoom",),
        dialect: str | Dialect = "deepeyes",
        threshold: float = 0.98,
        top_k: int = 64,
        aggregate: Aggregate = "min",
        gate: SeparabilityGate | None = None,
        judge: Literal["large", "small"] | None = "large",
        judge_threshold: float = 0.5,
        device: str | None = None,
        dtype: str | None = None,
        max_steps: int = 6,
        max_tokens: int = 512,
        max_batch: int = 16,
        draft_tokens: int = 20,
        draft_depth: int = 0,
        draft_tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] | None = None,
        batch_size: int = 16,
        order: Order = "judge_first",
        schedule: Schedule = "auto",
        early: bool = True,
        speculate: Speculate = "always",
        auditor: Auditor | None = None,
        image_limits: ImageLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
        observers: Iterable[Observer] = (),
    ) -> SpecPipeline:
        """A pipeline from two models, each a Hugging Face name, a path, or a model object.

        Args:
            large: The agent; None for a pipeline without a fallback.
            small: The drafter; None for the agent alone, and then nothing is judged.
            tools: What the agent may call.
            dialect: How it writes calls.
            threshold: The gate's, 0 to 1.
            top_k: K of the drafts and the gate.
            aggregate: The gate's: "min", "mean", "bottom20" or "log".
            gate: A gate made beforehand, instead of the three above.
            judge: Which model judges; None drafts every query.
            judge_threshold: See `ToolJudge`.
            device: Where models named here are loaded; None leaves it to the loader.
            dtype: In which type; None leaves it to the loader.
            max_steps: Most turns of the agent.
            max_tokens: Most new tokens of a turn.
            max_batch: Most trajectories alive at once.
            draft_tokens: Most new tokens of a draft.
            draft_depth: Most looks of the drafter before it drafts again what the gate would
                reject; 0 drafts at once (docs/depth.md).
            draft_tools: What it may look with; None for the agent's `tools`.
            batch_size: See `SpecPipeline`.
            order: See `SpecPipeline`.
            schedule: See `SpecPipeline`.
            early: See `SpecPipeline`.
            speculate: See `SpecPipeline`.
            auditor: See `SpecPipeline`.
            image_limits: See `SpecPipeline`.
            allow_urls: See `SpecPipeline`.
            observers: See `SpecPipeline`.

        Raises:
            ConfigError: Parts that can't work together, or a model that can't be loaded.

        Example:
            >>> from PIL import Image
            >>> from speceyes.models.scripted import ScriptedModel
            >>> agent = ScriptedModel({"Reply with one word": "yes", "": "<answer>blue</answer>"})
            >>> pipe = SpecPipeline.from_pretrained(large=agent, small=ScriptedModel("red"))
            >>> pipe(Image.new("RGB", (64, 64)), "Which colour?").route
            'agent'
        """
        from speceyes.answerer import SpeculativeAnswerer
        from speceyes.fallback import AgenticFallback
        from speceyes.gate import SeparabilityGate
        from speceyes.judge import ToolJudge
        from speceyes.tools import Tools

        if judge not in ("large", "small", None):
            raise ConfigError(f'judge={judge!r}; it must be "large", "small" or None')
        if judge == "large" and large is None and small is not None:
            raise ConfigError('there is no large model to judge: pass judge="small" or None')
        gate = gate or SeparabilityGate(threshold, top_k=top_k, aggregate=aggregate)
        strong = None if large is None else _model(large, device, dtype)
        same = large is not None and large == small
        quick = strong if same else None if small is None else _model(small, device, dtype)
        known = tools if isinstance(tools, Tools) else Tools(tools)
        judging = None
        if quick is not None and judge == "large" and strong is not None:
            judging = ToolJudge(strong, threshold=judge_threshold, dialect=dialect, tools=known)
        elif quick is not None and judge == "small":
            # A model that was not trained as the agent is asked without the agent's system text.
            judging = ToolJudge(quick, threshold=judge_threshold, dialect=None)
        return cls(
            judge=judging,
            answerer=None
            if quick is None
            else SpeculativeAnswerer(
                quick,
                top_k=gate.top_k,
                max_tokens=draft_tokens,
                tools=known if draft_tools is None else draft_tools,
                max_depth=draft_depth,
                rule=DepthRule(gate) if draft_depth else None,
                dialect=dialect,
            ),
            gate=None if quick is None else gate,
            fallback=None
            if strong is None
            else AgenticFallback(
                strong,
                tools=known,
                dialect=dialect,
                max_steps=max_steps,
                max_tokens=max_tokens,
                max_batch=max_batch,
            ),
            batch_size=batch_size,
            order=order,
            schedule=schedule,
            early=early,
            speculate=speculate,
            auditor=auditor,
            image_limits=image_limits,
            allow_urls=allow_urls,
            observers=observers,
        )

    @overload
    def __call__(self, queries: Any, question: str, choices: Sequence[str] = ()) -> Result: ...
    @overload
    def __call__(self, queries: Query | Mapping[str, Any]) -> Result: ...
    @overload
    def __call__(self, queries: Iterable[Any]) -> list[Result]: ...
    def __call__(
        self, queries: Any, question: str | None = None, choices: Sequence[str] = ()
    ) -> Result | list[Result]:
        """One result for one query, or a list of results, same order and length, for many.

        Args:
            queries: With a question: the image, or a list of images, in any form that
                `load_image` takes. Without: a query, or an iterable of queries. A query is a
                `Query`, an (image, question) tuple, or a mapping with "image" or "images",
                "question", and perhaps "choices" and "id".
            question: The question.
            choices: Its options.

        Raises:
            InputError: A single query can't be read, or its image can't (`ImageError`). Among
                many such a query is a `Result` with `error`, so that its neighbours go on.
        """
        if question is not None:
            queries = {"image": queries, "question": question, "choices": choices}
        elif choices:
            raise InputError("choices without a question: pass pipe(image, question, choices)")
        if isinstance(queries, Query | Mapping) or intake.is_pair(queries):
            query = self._query(queries, 0)
            [(_, result)] = self._run([query])
            return result
        # Text, bytes and arrays can be iterated, but never over queries.
        alone = isinstance(queries, str | bytes | bytearray | memoryview | np.ndarray)
        if alone or not isinstance(queries, Iterable):
            raise InputError(
                f"a {type(queries).__name__} alone is not a query: pass pipe(image, question), "
                "a Query, or an iterable of queries"
            )
        results = dict(self._run(queries))
        return [results[at] for at in range(len(results))]

    def stream(self, queries: Iterable[Any]) -> Iterator[Result]:
        """Results as they finish: drafts first, the agent's as each gets there.

        Queries are pulled as places come free: at most `max_batch` that the agent works on and
        four batches are held, however many there are. A batch is worked on when it is full or
        the iterable has ended. Between two `next` calls nothing runs but, where it is overlapped,
        one batch in front and the images of another, and closing the generator leaves nothing
        behind. An exception that the
        iterable raises is raised here after the results of all that was pulled before it.

        Args:
            queries: Any iterable, endless ones too, of what `__call__` takes as a query.
        """
        for _, result in self._run(queries):
            yield result

    def run(self, queries: Iterable[Any]) -> Report:
        """As `__call__` on many queries, with the time they took, and what was gained.

        Example:
            >>> from PIL import Image
            >>> from speceyes.models.scripted import ScriptedModel
            >>> pipe = SpecPipeline.from_pretrained(
            ...     large=ScriptedModel({"one word": "no", "": "<answer>blue</answer>"}),
            ...     small=ScriptedModel("red"),
            ... )
            >>> report = pipe.run([(Image.new("RGB", (64, 64)), "Which colour?")])
            >>> report.efficiency.beta, report.efficiency.alpha
            (1.0, 1.0)
        """
        start = time.perf_counter()
        results = dict(self._run(queries))
        seconds = time.perf_counter() - start
        ordered = tuple(results[at] for at in range(len(results)))
        return Report(ordered, seconds, efficiency(ordered, seconds))

    async def ask(
        self, query: Any, question: str | None = None, choices: Sequence[str] = ()
    ) -> Result:
        """One result for one query; coroutines that wait at the same time share batches.

        All that is asked joins one endless run, in threads of its own, which begins with the
        first question and ends with `close` or with the pipeline. Nobody waits for a batch to
        fill. Any number of coroutines of any number of event loops may ask. One that is
        cancelled takes its query back: it is not begun, or what comes of it is dropped.

        Args:
            query: As in `__call__`, one query only.
            question: The question.
            choices: Its options.

        Returns:
            The result; a query that can't be read is one with `error` too.

        Raises:
            ConfigError: The pipeline was closed.

        Example:
            >>> import asyncio
            >>> from PIL import Image
            >>> from speceyes.models.scripted import ScriptedModel
            >>> dot = Image.new("RGB", (64, 64))
            >>> async def both(pipe):
            ...     asked = (pipe.ask(dot, "Which colour?"), pipe.ask(dot, "Is it dark?"))
            ...     return [result.answer for result in await asyncio.gather(*asked)]
            >>> with SpecPipeline.from_pretrained(small=ScriptedModel("red"), judge=None) as pipe:
            ...     asyncio.run(both(pipe))
            ['red', 'red']
        """
        if question is not None:
            query = {"image": query, "question": question, "choices": choices}
        with self._opening:
            if self._asking is None:
                # It holds a copy, so that this object can go, and take it along.
                self._asking = Asking(copy.copy(self))
                weakref.finalize(self, self._asking.close, 5.0)
            asking = self._asking
        return await asking(query)

    def close(self, timeout_s: float | None = None) -> bool:
        """Ends what `ask` began, once all that was asked is answered. Other calls still work.

        Args:
            timeout_s: Seconds to wait for that; None for as long as it takes.

        Returns:
            Whether all was answered.
        """
        return self._asking is None or self._asking.close(timeout_s)

    def __enter__(self) -> SpecPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watching(self) -> Watching | None:
        """Whom to tell of the queries of a run that begins now; None where nobody looks on."""
        if not self.observers:
            return None
        judge, draft = (
            getattr(getattr(part, "model", None), "name", None)
            for part in (self.judge, self.answerer)
        )
        agent = None if self.fallback is None else self.fallback.name
        return Watching(self.observers, {"judge": judge, "draft": draft, "agent": agent})

    def _run(self, queries: Iterable[Any]) -> Iterator[tuple[int, Result]]:
        """(position, result) as they finish; each position once."""
        source = Source(queries)
        watching = self.watching()
        load = functools.partial(self._loaded, watching)
        ahead = Ahead(source, load, self.batch_size, threaded=self.schedule == "overlapped")
        try:
            for at, result in self._schedule(ahead):
                self.costs.note(result)
                yield at, result
        finally:
            ahead.close()
            if watching is not None:
                watching.close()
        if source.failure is not None:
            raise source.failure

    def _schedule(self, ahead: Ahead[Loaded]) -> Iterator[tuple[int, Result]]:
        agent = None if self.fallback is None else self.fallback.begin()
        front = functools.partial(self._front, Ordering(self.order))
        observed = bool(self.observers)
        rounds = Rounds(front, agent, self.batch_size, self.auditor, observed=observed)
        speculates = agent is not None and self.answerer is not None
        try:
            if self.schedule == "overlapped" and speculates:
                yield from rounds.overlapped(ahead)
            else:
                yield from rounds.batched(ahead)
        finally:
            rounds.close()

    def _query(self, item: Any, at: int) -> Query:
        return intake.to_query(
            item, number=at, limits=self.image_limits, allow_urls=self.allow_urls
        )

    def _loaded(self, watching: Watching | None, taken: Sequence[tuple[int, Any, float]]) -> Loaded:
        """One batch through intake: the results of what can't be read, and the tickets."""
        finished: list[tuple[int, Result]] = []
        tickets: list[Ticket] = []
        for at, item, since in taken:
            try:
                query = self._query(item, at)
                watch = None if watching is None else watching.watch(query.id, query)
                tickets.append(Ticket(at, query, since, watch=watch))
            except Exception as exc:  # noqa: BLE001 - a query's failure is its own
                reason = str(exc) if isinstance(exc, InputError) else describe(exc)
                latency = Timings(latency=time.perf_counter() - since)
                name = intake.named(item) or str(at)
                result = Result(name, None, "error", timings=latency, error=reason)
                if watching is not None:
                    watching.watch(name, None).end(result)
                finished.append((at, result))
        if self.schedule == "overlapped" and len(taken) > 1:
            images = [image for ticket in tickets for image in ticket.query.images]
            for prepare in self._prepares:
                prepare(images)
        return finished, tickets

    def _front(
        self, order: Ordering, finished: list[tuple[int, Result]], tickets: Sequence[Ticket]
    ) -> Loaded:
        """One batch through judge, draft and gate.

        Returns:
            The results that are final, and the tickets that the agent is to take.
        """
        left: list[Ticket] = []
        if self.answerer is not None and self.fallback is not None:
            if self.speculate == "auto":
                plan = list(zip(tickets, self.costs.plan(len(tickets)), strict=True))
                left = [ticket for ticket, speculated in plan if not speculated]
                tickets = [ticket for ticket, speculated in plan if speculated]
            else:
                self.costs.warn()
        order.run(tickets, self._judge, self._draft)
        for ticket in tickets:
            accepted = ticket.by_draft()
            if self.auditor is not None:
                score = None if ticket.verdict is None else ticket.verdict.separability
                ticket.audit = self.auditor.observe(score, accepted is not None)
            if accepted is not None:
                finished.append(accepted)
                if ticket.audit is not None:
                    left.append(ticket)
            elif self.fallback is None:
                finished.append(ticket.unanswered())
            else:
                left.append(ticket)
        return finished, left

    def _judge(self, tickets: Sequence[Ticket]) -> None:
        self._first_phases().judge(tickets)

    def _draft(self, tickets: Sequence[Ticket]) -> None:
        self._first_phases().draft(tickets)

    def _first_phases(self) -> Front:
        return Front(self.judge, self.answerer, self.gate, order=self.order, early=self.early)


def as_published(part: Any) -> Any:
    """A phase as the paper's code runs it: a model that reads everything anew, and an agent
    that takes one query at a time. What isn't one of our phases is left as it is.
    """
    model = getattr(part, "model", None)
    reference = getattr(model, "reference", None)
    if not (callable(reference) or hasattr(part, "max_batch")):
        return part
    part = copy.copy(part)
    if callable(reference):
        part.model = reference()
    if hasattr(part, "max_batch"):
        part.max_batch = 1
    return part


def _model(
    model: str | PathLike[str] | VisionLanguageModel, device: str | None, dtype: str | None
) -> VisionLanguageModel:
    """A model object as it is; a name or path loaded by Hugging Face."""
    if isinstance(model, VisionLanguageModel):
        return model
    from speceyes.models.hf import HFModel

    return HFModel.from_pretrained(model, device=device, dtype=dtype)
