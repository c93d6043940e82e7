"""Trajectories from whatever an agent of a user's own returned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from speceyes.errors import InputError
from speceyes.models.control_tokens import whole
from speceyes.types import Completion, Result, Step, Trajectory

TAKEN = "text, a number, a mapping with 'answer', a Completion, a Trajectory or a Result"


def trajectory_of(value: Any) -> Trajectory:
    """The trajectory that a value stands for.

    Args:
        value: Text or a number, the answer; a mapping with "answer"; a `Completion`, whose text
            is the answer; a `Trajectory`, as it is; or a `Result` of another pipeline, with its
            trajectory where it has one.

    Raises:
        InputError: It is nothing of that kind, or there is no answer in it.

    Example:
        >>> trajectory_of(" red ").answer, trajectory_of({"answer": 3}).answer
        ('red', '3')
    """
    if isinstance(value, Trajectory):
        return _checked(value)
    if isinstance(value, Result):
        if value.answer is None:
            raise InputError(f"it gave a Result without an answer: {value.error}")
        if value.trajectory is not None and value.trajectory.answer == value.answer:
            return _checked(value.trajectory)
        return trajectory_of(value.answer)
    if isinstance(value, Completion):
        if value.error is not None:
            raise InputError(f"it gave a Completion that failed: {value.error}")
        [step] = trajectory_of(value.text).steps
        step = dataclasses.replace(
            step, tokens=len(value.token_ids), prompt_tokens=value.prompt_tokens
        )
        return Trajectory((step,), step.text, "answered")
    if isinstance(value, Mapping) and "answer" in value:
        return trajectory_of(value["answer"])
    if not isinstance(value, str | int | float):
        raise InputError(f"it returned a {type(value).__name__}; it must return {TAKEN}")
    answer = whole(str(value)).strip()
    if not answer:
        raise InputError(f"it returned no answer ({value!r}); it must return {TAKEN}")
    return Trajectory((Step(answer),), answer, "answered")


def _checked(way: Trajectory) -> Trajectory:
    """As it is, unless it says that it answered and has no answer."""
    if way.stop == "answered" and not (way.answer or "").strip():
        raise InputError("it returned a Trajectory that stopped as answered, without an answer")
    return way
