"""`SpecPipeline`: the funnel as one object.  (Sec. 3 of SpecEyes, arXiv 2603.23483.)

A list, a stream or a coroutine becomes requests here; `route` knows the order of the phases, and
the `Scheduler` carries requests through them.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np

from speceyes.errors import ConfigError, InputError
from speceyes.images.reduced import reduced
from speceyes.pipeline import build
from speceyes.pipeline.audit import Auditor
from speceyes.pipeline.config import (
    AgentConfig,
    DraftConfig,
    InputConfig,
    JudgeConfig,
    LoadConfig,
    ScheduleConfig,
)
from speceyes.pipeline.costs import CostModel, efficiency
from speceyes.pipeline.efficiency import Report
from speceyes.pipeline.engine_loop import EngineLoop
from speceyes.pipeline.events import Observer, ObserverDispatcher
from speceyes.pipeline.health import Health
from speceyes.pipeline.parts import Parts
from speceyes.pipeline.request import (
    Prefetch,
    RequestState,
    Source,
    is_query_tuple,
    query_or_failure,
    to_query,
)
from speceyes.pipeline.scheduler import Scheduler
from speceyes.protocols import Answerer, Dialect, Gate, Judge, Tool, VisionLanguageModel
from speceyes.types import Query, Result

if TYPE_CHECKING:
    from os import PathLike

    from speceyes.calibration import Calibration
    from speceyes.fallback import AgenticFallback
    from speceyes.gate import SeparabilityGate
    from speceyes.pipeline.settings import FunnelSettings
    from speceyes.texts import Texts
    from speceyes.tools import Tools

_log = logging.getLogger(__name__)


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
        schedule: Batch size, order, and what runs beside what. Answers and routes don't depend
            on it, but for `ScheduleConfig.speculate`.
        inputs: What is taken as an image.
        auditor: Has a share of the accepted drafts audited by the agent in the background, and
            shuts the gate when the promised risk is passed. Drafts then never end early.
        observers: Each is called with what happens to queries; see `speceyes.pipeline.events`.
            One that raises is logged and changes nothing.
        ladder: Answerer and gate of drafts that are tried before `answerer`, from the cheapest up;
            see `DraftConfig.ladder`.

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
        judge: Judge | None = None,
        answerer: Answerer | None = None,
        gate: Gate | None = None,
        fallback: AgenticFallback | None = None,
        schedule: ScheduleConfig = ScheduleConfig(),
        inputs: InputConfig = InputConfig(),
        auditor: Auditor | None = None,
        observers: Iterable[Observer] = (),
        ladder: Sequence[tuple[Answerer, Gate]] = (),
    ) -> None:
        if not isinstance(schedule, ScheduleConfig):
            raise ConfigError(f"schedule={schedule!r:.80}; it must be a ScheduleConfig(...)")
        self.parts = Parts(judge, answerer, gate, fallback, auditor, schedule, ladder=tuple(ladder))
        """The phases, and how they are run."""
        self.parts.check()
        self.inputs = inputs
        self.observers = tuple(observers)
        for observer in self.observers:
            if not callable(observer):
                raise ConfigError(
                    f"observers holds {observer!r}; each must be callable with an event"
                )
        self.costs = CostModel()
        """What phases have cost so far; see `CostModel.efficiency`."""
        self.costs.serve(self.parts)
        self._health = Health()
        self._loop: EngineLoop | None = None
        self._opening = threading.Lock()
        self._numbers = itertools.count()

    @property
    def judge(self) -> Judge | None:
        """Phase I."""
        return self.parts.judge

    @property
    def answerer(self) -> Answerer | None:
        """Phase II."""
        return self.parts.answerer

    @property
    def gate(self) -> Gate | None:
        """Phase III; shut once the auditor's monitor has tripped."""
        return self.parts.gate

    @property
    def fallback(self) -> AgenticFallback | None:
        """Phase IV."""
        return self.parts.fallback

    @property
    def auditor(self) -> Auditor | None:
        """Audits accepted drafts."""
        return self.parts.auditor

    @property
    def schedule(self) -> ScheduleConfig:
        """Batch size, order, and what runs beside what."""
        return self.parts.schedule

    @classmethod
    def from_pretrained(
        cls,
        large: str | PathLike[str] | VisionLanguageModel | Callable[[Query], Any] | None = None,
        small: str | PathLike[str] | VisionLanguageModel | None = None,
        *,
        tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] = ("zoom",),
        dialect: str | Dialect = "auto",
        texts: Texts | str | PathLike[str] | None = None,
        gate: SeparabilityGate | float = 0.98,
        judge: JudgeConfig | str | None = "auto",
        draft: DraftConfig = DraftConfig(),
        agent: AgentConfig | Callable[[Query], Any] = AgentConfig(),
        schedule: ScheduleConfig = ScheduleConfig(),
        load: LoadConfig = LoadConfig(),
        inputs: InputConfig = InputConfig(),
        auditor: Auditor | None = None,
        observers: Iterable[Observer] = (),
    ) -> SpecPipeline:
        """A pipeline from two models, each a Hugging Face name, a path, or a model object.

        Args:
            large: The agent; None for a pipeline without a fallback. A function of a `Query` is
                an agent that you have already; see `AgenticFallback.from_callable`.
            small: The drafter; None for the agent alone, and then nothing is judged.
            tools: What the agent may call.
            dialect: How it writes calls; "auto" picks by its name, config and chat template.
            texts: What agent, judge and drafter are told, or a file for `Texts.load`; None for
                our own words.
            gate: The gate, or its threshold from 0 to 1 at K = 64.
            judge: The model that judges, "large", "small" or "draft", perhaps with a threshold;
                None drafts every query. "auto" is "large", and None where `agent` is a function.
            draft: Bounds of drafts.
            agent: Bounds of the agent's trajectories; or the agent itself, a function as for
                `large`. There is no large model to judge then.
            schedule: See `SpecPipeline`.
            load: How models named here are loaded.
            inputs: See `SpecPipeline`.
            auditor: See `SpecPipeline`.
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
        if not isinstance(agent, AgentConfig):
            large, judge = build.agent_of(agent, large), None if judge == "auto" else judge
            agent = AgentConfig()
        judge = "large" if judge == "auto" else judge
        made = build.parts_of(
            large,
            small,
            tools=tools,
            dialect=dialect,
            texts=texts,
            gate=gate,
            judge=judge if isinstance(judge, JudgeConfig) else JudgeConfig(judge),
            draft=draft,
            agent=agent,
            load=load,
        )
        return cls(
            judge=made.judge,
            answerer=made.answerer,
            gate=made.gate,
            fallback=made.fallback,
            ladder=made.ladder,
            schedule=schedule,
            inputs=inputs,
            auditor=auditor,
            observers=observers,
        )

    @classmethod
    def from_settings(
        cls,
        settings: FunnelSettings | str | PathLike[str],
        *,
        large: str | PathLike[str] | VisionLanguageModel | None = None,
        small: str | PathLike[str] | VisionLanguageModel | None = None,
        load: LoadConfig = LoadConfig(),
        inputs: InputConfig = InputConfig(),
        auditor: Auditor | None = None,
        observers: Iterable[Observer] = (),
    ) -> SpecPipeline:
        """A pipeline as `speceyes tune` has written it down.

        Args:
            settings: The settings, or their file.
            large: The agent, where it isn't to be loaded from where it was tuned: the same model
                under another address, or already loaded.
            small: The drafter, likewise.
            load: Device and further arguments of models that are loaded.
            inputs: See `SpecPipeline`.
            auditor: See `SpecPipeline`; without effect where the settings have no drafter.
            observers: See `SpecPipeline`.

        Raises:
            ConfigError: The file can't be read, a model can't be loaded, or one isn't the model
                that was tuned: another name, other weights, or other limits of pixels.
            CalibrationError: The gate is calibrated for other drafts.
        """
        from speceyes.pipeline.settings import FunnelSettings

        found = settings if isinstance(settings, FunnelSettings) else FunnelSettings.load(settings)
        made = found.parts(large, small, load=load)
        return cls(
            judge=made.judge,
            answerer=made.answerer,
            gate=made.gate,
            fallback=made.fallback,
            schedule=found.schedule,
            inputs=inputs,
            auditor=auditor if found.small is not None else None,
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
        if isinstance(queries, Query | Mapping) or is_query_tuple(queries):
            limits, allow_urls = self.inputs.limits, self.inputs.allow_urls
            query = to_query(
                queries, number=0, limits=limits, allow_urls=allow_urls, views=self.parts.views
            )
            [(_, result)] = self._run([query])
            return replace(result, images=query.images)
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
        the iterable has ended. Between two `next` calls nothing runs but, where work overlaps,
        one batch with judge or drafter and the images of another; closing the generator leaves
        nothing behind. An exception that the iterable raises is raised here after the results of
        all that was pulled before it.

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

        All that is asked joins one loop, in threads of its own, which begins with the first
        question and ends with `close` or with the pipeline. Nobody waits for a batch to fill. Any
        number of coroutines of any number of event loops may ask. One that is cancelled takes its
        query back: it is not begun, or what comes of it is dropped.

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
            if self._loop is None:
                self._loop = self.engine_loop()
                self._loop.start()
                weakref.finalize(self, self._loop.close, 5.0)
            loop = self._loop
        # Decoding takes long enough to hold up the event loop.
        since, number = time.perf_counter(), next(self._numbers)
        loaded = await asyncio.to_thread(
            query_or_failure,
            query,
            self.inputs,
            number=number,
            since=since,
            views=self.parts.views,
        )
        if isinstance(loaded, Result):
            if self.observers:
                self._dispatcher().trace(loaded.query_id, None).end(loaded)
            return loaded
        request = RequestState(loaded, client="ask", since=since)
        loop.submit(request)
        try:
            return await asyncio.wrap_future(request.future)
        except asyncio.CancelledError:
            loop.cancel(request)
            raise

    def rearm(self, calibration: Calibration, *, tolerance: float | None = None) -> None:
        """Goes on with a new calibration: gate and monitor change in the same moment, also for
        what is under way.

        Args:
            calibration: For drafts that are made as this pipeline's are.
            tolerance: See `GateMonitor.from_calibration`.

        Raises:
            ConfigError: There is no auditor.
            CalibrationError: The calibration is for other drafts, or certified no threshold;
                everything stays as it was.
        """
        from speceyes.gate import SeparabilityGate

        if self.auditor is None:
            raise ConfigError("there is no monitor to arm anew: give the pipeline an auditor")
        self.parts.check_gate(SeparabilityGate.from_calibration(calibration))
        self.auditor.monitor.rearm(calibration, tolerance=tolerance)

    def close(self, timeout_s: float | None = None) -> bool:
        """Ends what `ask` began, once all that was asked is answered. Other calls still work.

        Args:
            timeout_s: Seconds to wait for that; None for as long as it takes.

        Returns:
            Whether all was answered.
        """
        return self._loop is None or self._loop.close(timeout_s)

    @property
    def waiting(self) -> int:
        """Queries asked with `ask` that no model has taken up yet, or that wait for the agent."""
        return 0 if self._loop is None else self._loop.waiting

    def __enter__(self) -> SpecPipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Parts that can't be doing their work now, in plain words; empty where all do. The log
        says so once, with the reason and what to do.
        """
        return self._health.warnings

    def engine_loop(
        self,
        *,
        loosest_gate: Gate | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> EngineLoop:
        """A loop over this pipeline's parts for requests that come one at a time; not started.

        Args:
            loosest_gate: See `speceyes.pipeline.scheduler.Scheduler`.
            on_batch: Told the size of each batch that is judged or drafted.
        """
        dispatcher = self._dispatcher() if self.observers else None
        return EngineLoop(self._scheduler(dispatcher, loosest_gate, on_batch), dispatcher)

    def _scheduler(
        self,
        dispatcher: ObserverDispatcher | None,
        loosest_gate: Gate | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Scheduler:
        return Scheduler(
            self.parts,
            planner=self.costs if self.parts.plans else None,
            # Not a method: a loop that is at work would keep its pipeline from ending.
            on_result=functools.partial(
                take_note, self.costs, self._health, warns=self.parts.speculate == "always"
            ),
            dispatcher=dispatcher,
            loosest_gate=loosest_gate,
            on_batch=on_batch,
        )

    def _run(self, queries: Iterable[Any]) -> Iterator[tuple[int, Result]]:
        """(position, result) as they finish; each position once."""
        overlaps = self.parts.overlaps
        dispatcher = self._dispatcher() if self.observers else None
        source = Source(queries)
        load = functools.partial(self._loaded_batch, dispatcher)
        prefetch = Prefetch(source, load, self.schedule.batch_size, threaded=overlaps)
        scheduler = self._scheduler(dispatcher)
        pool = ThreadPoolExecutor(1, thread_name_prefix="speceyes-stage") if overlaps else None
        stage: Future[list[RequestState]] | None = None
        ahead = self.schedule.batch_size if overlaps else 0
        try:
            while not prefetch.exhausted or stage is not None or scheduler.has_work():
                if stage is None and not prefetch.exhausted and scheduler.hungry(ahead):
                    unreadable, requests = prefetch.batch()
                    yield from unreadable
                    scheduler.submit(requests)
                    if pool is not None:
                        stage = pool.submit(scheduler.step, "speculative")
                if stage is not None:
                    if stage.done() or scheduler.better_waits:
                        ended, stage = stage.result(), None
                    else:
                        ended = scheduler.step("agent")
                else:
                    ended = scheduler.step("both" if pool is None else "agent")
                for request in ended:
                    result, since = request.deliver(), time.monotonic()
                    yield request.position, result
                    if self.auditor is not None:  # whoever takes the results may take their time
                        self.auditor.extend(time.monotonic() - since)
        finally:
            if pool is not None:
                pool.shutdown(wait=True)
            prefetch.close()
            scheduler.abort()
            if dispatcher is not None:
                dispatcher.close()
        if source.failure is not None:
            raise source.failure

    def _loaded_batch(
        self, dispatcher: ObserverDispatcher | None, taken: Sequence[tuple[int, Any, float]]
    ) -> tuple[list[tuple[int, Result]], list[RequestState]]:
        """Results of what can't be read, and requests for the rest, of one batch."""
        unreadable: list[tuple[int, Result]] = []
        requests: list[RequestState] = []
        for position, item, since in taken:
            loaded = query_or_failure(
                item, self.inputs, number=position, since=since, views=self.parts.views
            )
            if isinstance(loaded, Result):
                if dispatcher is not None:
                    dispatcher.trace(loaded.query_id, None).end(loaded)
                unreadable.append((position, loaded))
                continue
            trace = None if dispatcher is None else dispatcher.trace(loaded.id, loaded)
            requests.append(RequestState(loaded, position=position, since=since, trace=trace))
        if self.parts.overlaps and len(taken) > 1:
            for model, most in self.parts.prepares:
                model.prepare([im for r in requests for im in reduced(r.query, most).images])
        return unreadable, requests

    def _dispatcher(self) -> ObserverDispatcher:
        """Sends events of a run that begins now to the observers."""
        return ObserverDispatcher(self.observers, self.parts.names)


def take_note(costs: CostModel, health: Health, request: RequestState, *, warns: bool) -> None:
    """Takes note of a request that has its result, for costs and warnings. The request stays as it
    is; what later ones cost matters to their route only where the schedule plans by costs.

    Args:
        costs: Learns what it cost.
        health: Says once in the log where a part can't be doing its work.
        request: The request.
        warns: Say as well, once, that speculation is a loss where it surely is.
    """
    assert request.result is not None
    costs.record(request)
    if warns:
        costs.warn()
    for warning in health.note(request.result):
        _log.warning("%s", warning)
