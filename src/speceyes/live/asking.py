"""`await pipe.ask(...)`: coroutines that ask one endless run."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any, final

from speceyes import intake
from speceyes.errors import InputError
from speceyes.isolation import describe
from speceyes.live.funnel import Funnel
from speceyes.live.job import Job
from speceyes.live.worker import Worker
from speceyes.types import Query, Result

_CLIENT = "ask"


@final
class Asking:
    """The run behind `SpecPipeline.ask`; it begins when it is made.

    Args:
        pipe: Whose parts answer.
    """

    def __init__(self, pipe: Funnel) -> None:
        self._pipe = pipe
        self._numbers = itertools.count()
        self._worker = Worker(pipe, who="the pipeline")
        self._worker.start()

    async def __call__(self, item: Any) -> Result:
        """The result of one query, written in any form that `SpecPipeline` takes.

        Raises:
            ConfigError: It was closed.
        """
        number = next(self._numbers)
        try:
            # Decoding takes long enough to hold up the event loop.
            query = await asyncio.to_thread(self._loaded, item, number)
        except Exception as exc:  # noqa: BLE001 - a query's failure is its own
            reason = str(exc) if isinstance(exc, InputError) else describe(exc)
            result = Result(intake.named(item) or str(number), None, "error", error=reason)
            watching = self._pipe.watching()
            if watching is not None:
                watching.watch(result.query_id, None).end(result)
            return result
        job = Job(query, _CLIENT, math.inf)
        self._worker.submit(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            self._worker.abandon(job)
            raise

    def _loaded(self, item: Any, number: int) -> Query:
        return intake.to_query(
            item,
            number=number,
            limits=self._pipe.image_limits,
            allow_urls=self._pipe.allow_urls,
        )

    def close(self, timeout_s: float | None = None) -> bool:
        """Answers what was asked, and ends; see `SpecPipeline.close`."""
        return self._worker.close(timeout_s)
