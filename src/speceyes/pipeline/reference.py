"""The funnel as the paper's code runs it, as a yardstick for benchmarks.

Every call hands all text and images to the model anew, and the agent takes one query at a time.
Answers and routes are those of the pipeline.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from speceyes.pipeline.spec_pipeline import SpecPipeline
from speceyes.protocols import HasModel, SupportsReference, offers


def as_published(pipe: SpecPipeline) -> SpecPipeline:
    """The same funnel under the reference schedule: judge, then drafts, then the agent one query
    at a time, each draft to its end and nothing kept between calls.
    """
    return SpecPipeline(
        judge=reading_anew(pipe.judge),
        answerer=reading_anew(pipe.answerer),
        gate=pipe.gate,
        fallback=reading_anew(pipe.fallback),
        schedule=dataclasses.replace(
            pipe.schedule, overlap=False, end_drafts_early=False, speculate="always"
        ),
        inputs=pipe.inputs,
        observers=pipe.observers,
        ladder=[(reading_anew(answerer), gate) for answerer, gate in pipe.parts.ladder],
    )


def reading_anew(part: Any) -> Any:
    """A phase whose model keeps nothing between calls, and an agent that takes one query at a
    time. What isn't one of our phases is left as it is.
    """
    if not offers(part, HasModel):
        return part
    part = copy.copy(part)
    if offers(part.model, SupportsReference):
        part.model = part.model.reference()
    if hasattr(part, "max_batch"):
        part.max_batch = 1
    return part
