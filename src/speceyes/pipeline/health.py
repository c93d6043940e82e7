"""Health of a running pipeline: warnings, once each, where a part can't be doing its work."""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from typing import Final, final

from speceyes.checks import checked_whole
from speceyes.types import Completion, Judgement, Result, Verdict

_BROKEN: Final = re.compile(r"could not be asked|the judge failed|[A-Za-z_]+(Error|Exception)\b")
"""Beginnings of the reasons of judgements that were never made."""
_QUOTED: Final = 300
_NOW: Final = {
    "judge": ("the judge fails, so that every query goes to the agent", False),
    "needs tools": ("the judge sends every query to the agent", True),
    "draft": ("drafts fail, so that every query goes to the agent", False),
    "cut": ("drafts are cut at their token limit and never accepted", False),
    "gate": ("the gate accepts no draft", True),
    "agent": ("the agent fails", False),
}
"""What is counted, in words, and whether by queries that are turned away or by failures."""


@final
class Health:
    """Takes in each finished result, and tells of what makes a pipeline useless.

    Nothing here changes an answer: where a judge, a draft or a gate doesn't work, queries go to
    the agent, so that the only sign is time lost. Threads may share it.

    Args:
        failures: Judge, draft or agent has broken down once it failed so many times running.
        rejections: A gate, or a judge, that lets nothing through in so many queries running
            makes speculation pointless.

    Raises:
        ConfigError: A number below 1.

    Example:
        >>> health = Health(failures=2)
        >>> failed = Completion.failed("the engine is gone")
        >>> result = Result("1", "red", "agent", draft=failed)
        >>> health.note(result), health.note(result)[0][:42], health.note(result)
        ([], 'the last 2 drafts failed, the latest with ', [])
    """

    def __init__(self, *, failures: int = 10, rejections: int = 200) -> None:
        self.failures = checked_whole("failures", failures, 1)
        self.rejections = checked_whole("rejections", rejections, 1)
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._best = -math.inf
        self._told: set[str] = set()

    def note(self, result: Result) -> list[str]:
        """Takes in a result.

        Returns:
            Warnings to log now; none that was returned before.
        """
        with self._lock:
            return self._note(result)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings that hold now, without words of models or engines: fit to be shown to anybody.
        Those of a part that works again are gone.

        Example:
            >>> health = Health(failures=1)
            >>> _ = health.note(Result("1", None, "error", draft=Completion.failed("gone")))
            >>> health.warnings
            ('drafts fail, so that every query goes to the agent',)
        """
        with self._lock:
            return tuple(
                text
                for what, (text, of_drafts) in _NOW.items()
                if self._running[what] >= (self.rejections if of_drafts else self.failures)
            )

    def _note(self, result: Result) -> list[str]:
        found = [
            self._judged(result.judgement),
            self._let_through(result),
            self._drafted(result.draft),
            self._gated(result.verdict),
            self._answered(result),
        ]
        return [warning for warning in found if warning is not None]

    def _judged(self, judgement: Judgement | None) -> str | None:
        if judgement is None:
            return None
        said = judgement.completion
        broken = judgement.p_tools is None and bool(
            _BROKEN.match(judgement.reason) or (said is not None and judgement.reason)
        )
        if not self._counted("judge", broken, self.failures):
            return None
        return (
            f"the last {self.failures} judgements failed, the latest with "
            f"{_cut(judgement.reason)!r}: every query goes to the agent until that is mended. Use "
            "another judge (judge='small'), read its text (ToolJudge(parity=True)), or draft "
            "without one (judge=None)"
        )

    def _let_through(self, result: Result) -> str | None:
        judged = result.judgement
        if judged is None or judged.p_tools is None:
            return None
        if not self._counted("needs tools", judged.needs_tools, self.rejections):
            return None
        return (
            f"the judge has sent the last {self.rejections} queries to the agent, so that nothing "
            "is drafted and each judgement is time lost: raise JudgeConfig(threshold=...), or "
            "leave speculation off for such queries"
        )

    def _drafted(self, draft: Completion | None) -> str | None:
        if draft is None:
            return None
        cut = self._counted("cut", draft.finish == "length", self.failures)
        if self._counted("draft", draft.error is not None, self.failures):
            return (
                f"the last {self.failures} drafts failed, the latest with {_cut(draft.error)!r}: "
                "every query goes to the agent until that is mended"
            )
        if cut:
            return (
                f"the last {self.failures} drafts were cut at their token limit, and a draft that "
                "is cut is never accepted: raise DraftConfig(max_tokens=...), or switch "
                "reasoning off if the small model thinks before it answers"
            )
        return None

    def _gated(self, verdict: Verdict | None) -> str | None:
        if verdict is None:
            return None
        if verdict.accepted:
            self._reasons.clear()
            self._best = -math.inf
        else:
            self._reasons[verdict.reason or "below the threshold"] += 1
            if verdict.score is not None:
                self._best = max(self._best, verdict.score)
        if not self._counted("gate", not verdict.accepted, self.rejections):
            return None
        [(reason, count)] = self._reasons.most_common(1)
        best = f"; the best score was {self._best:.4g}" if math.isfinite(self._best) else ""
        return (
            f"the gate has accepted none of the last {self.rejections} drafts (threshold "
            f"{verdict.threshold:.4g}{best}; {count} times: {_cut(reason)}): drafting is time "
            "lost. Calibrate a threshold on labelled queries (speceyes calibrate), or leave "
            "speculation off (speculate='auto' does so where it doesn't pay)"
        )

    def _answered(self, result: Result) -> str | None:
        trajectory = result.trajectory
        if trajectory is None:
            return None
        if not self._counted("agent", trajectory.stop == "error", self.failures):
            return None
        return (
            f"the last {self.failures} queries of the agent failed, the latest with "
            f"{_cut(trajectory.error)!r}"
        )

    def _counted(self, what: str, bad: bool, most: int) -> bool:
        """Counts what is bad running; True the first time that it is too often."""
        self._running[what] = self._running[what] + 1 if bad else 0
        if self._running[what] < most or what in self._told:
            return False
        self._told.add(what)
        return True


def _cut(reason: str | None) -> str:
    text = " ".join((reason or "no reason given").split())
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "..."
