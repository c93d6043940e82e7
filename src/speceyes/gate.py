"""Phase III: may the draft be the answer? (SpecEyes, arXiv 2603.23483, Sec. 3)"""

from __future__ import annotations

import logging
import math
from dataclasses import KW_ONLY, dataclass, field
from os import PathLike
from typing import Final, final

import numpy.typing as npt

from speceyes.calibration.record import Calibration
from speceyes.checks import checked_number, checked_whole
from speceyes.errors import CalibrationError, ConfigError, InputError
from speceyes.scoring.refusal import refusal
from speceyes.scoring.scales import SHARPNESS, to_raw, to_unit
from speceyes.scoring.scores import (
    AGGREGATES,
    FORMULAS,
    TOP_K,
    Aggregate,
    Formula,
    combine,
    token_scores,
)
from speceyes.types import Completion, Floor, Verdict

_SHARPEST: Final = 1e6

_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class SeparabilityGate:
    """Accepts a draft only where its tokens were clear: S >= the threshold, on the raw scale.

    The threshold is taken from 0 to 1 and mapped once, at construction; what is compared is S
    itself, which never saturates (the sigmoid of S is exactly 1 in float32 from S = 28 on). The
    comparison is >=, as the paper prints it; the published code has >.

    Args:
        threshold: From 0, which accepts whatever can be scored, to 1, which accepts nothing. S is
            never negative, so for all but "log" up to 0.5 accepts as 0 does.
        top_k: K, how many of the largest logits make a token's score. It belongs to the
            threshold: a larger K raises most scores. At least 3, since two have no spread
            between their competitors; for "log" at least 1.
        aggregate: How the tokens' scores become the answer's: "min" (the paper's choice), "mean",
            "bottom20", or "log", the geometric mean of the greedy probabilities.
        formula: "code", as the published code has it, or "paper", as the paper prints it, which
            stays below sqrt(K - 1). Without effect on "log".
        sharpness: Slope of the sigmoid. Lower it where S is so large that every score reads as
            1. Without effect on "log".
        calibration: What the threshold comes from; see `from_calibration`. The arguments above
            must be those it holds for.

    Raises:
        ConfigError: An argument that can't work, such as a threshold out of the formula's reach.
        CalibrationError: The calibration is for other arguments.

    Example:
        >>> gate = SeparabilityGate(0.98, top_k=4)
        >>> round(gate.score([[8.0, 1.0, 0.0, -1.0]]), 4)
        0.9972
    """

    threshold: float = 0.98
    _: KW_ONLY
    top_k: int = TOP_K
    aggregate: Aggregate = "min"
    formula: Formula = "code"
    sharpness: float = SHARPNESS
    calibration: Calibration | None = field(default=None, repr=False)
    raw_threshold: float = field(init=False, repr=False, compare=False)
    """The threshold on the raw scale: S, or the mean log-probability in nats for "log"."""

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise ConfigError(f"aggregate={self.aggregate!r}; use one of {', '.join(AGGREGATES)}")
        if self.formula not in FORMULAS:
            raise ConfigError(f"formula={self.formula!r}; use one of {', '.join(FORMULAS)}")
        object.__setattr__(self, "threshold", checked_number("threshold", self.threshold, 0.0, 1.0))
        object.__setattr__(
            self, "sharpness", checked_number("sharpness", self.sharpness, 1 / _SHARPEST, _SHARPEST)
        )
        least = 1 if self.aggregate == "log" else 3
        object.__setattr__(self, "top_k", checked_whole("top_k", self.top_k, 0))
        if self.top_k < least:
            raise ConfigError(
                f"top_k={self.top_k}; {self.aggregate!r} needs at least {least}, since the spread "
                "between fewer competitors is always 0"
            )
        if self.calibration is not None:
            self._check_calibrated(self.calibration)
        raw = to_raw(self.threshold, log=self.aggregate == "log", sharpness=self.sharpness)
        object.__setattr__(self, "raw_threshold", raw)
        if self.formula == "paper" and self.aggregate != "log" and math.isfinite(raw):
            bound = math.sqrt(self.top_k - 1)
            if raw >= bound:
                raise ConfigError(
                    f"threshold={self.threshold} is out of reach: at top_k={self.top_k} the "
                    "paper's formula scores below "
                    f"{to_unit(bound, log=False, sharpness=self.sharpness):.6g}; lower it, use "
                    "formula='code', or threshold=1 to accept nothing on purpose"
                )

    @property
    def needed_top_k(self) -> int:
        """Log-probabilities a token that a draft must carry to be scored."""
        return 1 if self.aggregate == "log" else self.top_k

    @classmethod
    def from_calibration(cls, calibration: Calibration | str | PathLike[str]) -> SeparabilityGate:
        """The gate that a calibration holds for.

        Where none could be certified, the gate accepts nothing, and a warning says so.

        Args:
            calibration: The calibration, or the path of its JSON file.

        Raises:
            CalibrationError: The file can't be read or isn't a calibration.

        Example:
            >>> from speceyes.calibration import Scoring, calibrate
            >>> found = calibrate([9.0] * 60, [0] * 60, Scoring("small", "ab12", top_k=20))
            >>> SeparabilityGate.from_calibration(found).top_k
            20
        """
        made = (
            calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
        )
        if not made.certified:
            _log.warning(
                "the gate accepts nothing, and every query goes to the agent: %s Label more, allow "
                "a larger target, or leave speculation off",
                made.statement,
            )
        scoring = made.scoring
        return cls(
            1.0 if made.threshold is None else made.threshold,
            top_k=scoring.top_k,
            aggregate=scoring.aggregate,
            formula=scoring.formula,
            sharpness=scoring.sharpness,
            calibration=made,
        )

    def check(
        self,
        *,
        model: str | None = None,
        revision: str | None = None,
        prompt_hash: str | None = None,
        top_k: int | None = None,
        judge: str | None = None,
    ) -> None:
        """Refuses drafts that the calibration doesn't hold for; without one, any drafts will do.

        Args:
            model: Name of the model that drafts; None, here and below, leaves it unchecked.
            revision: Its revision.
            prompt_hash: Of its prompts (`SpeculativeAnswerer.prompt_hash`).
            top_k: How many log-probabilities its drafts carry.
            judge: What decides which queries reach the gate (`ToolJudge.identity`).

        Raises:
            CalibrationError: The calibration was made with something else.

        Example:
            >>> SeparabilityGate(0.98).check(model="any")
        """
        if self.calibration is not None:
            self.calibration.check(
                model=model,
                revision=revision,
                prompt_hash=prompt_hash,
                top_k=top_k,
                judge=judge,
            )

    def score(self, x: npt.ArrayLike, *, logprobs: bool | None = None) -> float:
        """The score in [0, 1] of an answer.

        Args:
            x: float[n, V], logits or log-probabilities of the whole vocabulary, or float[n, K]
                cut to the top ones; a row a token, in any order within a row.
            logprobs: Matters for "log", since S is the same on both. True: log-probabilities.
                False: logits of the whole vocabulary. None: the whole vocabulary where x has
                more than top_k columns, else cut log-probabilities.

        Raises:
            InputError: x can't be scored: no tokens, fewer than top_k columns, NaN, +inf, a
                masked token among the top K; for "log", cut rows that aren't log-probabilities.

        Example:
            >>> gate = SeparabilityGate(top_k=4, aggregate="log")
            >>> gate.score([[0.0, 0.0, 0.0, 0.0, 0.0]])
            0.2
        """
        return self._unit(self._raw(x, logprobs)[0])

    def __call__(self, completion: Completion) -> Verdict:
        """The verdict on a draft; what can't be scored is rejected with a reason, never raised.

        Args:
            completion: A draft with the top-K log-probabilities of its tokens
                (`Sampling(top_k=gate.top_k)`); further columns are cut off.

        Example:
            >>> gate = SeparabilityGate(0.98, top_k=4)
            >>> gate(Completion("red", (7,), [[-0.1, -7.0, -8.0, -9.0]])).accepted
            True
            >>> gate(Completion("red", (7,), [[-0.1, -7.0, -8.0, -9.0]], finish="length")).reason
            'the draft was cut at its token limit; allow more tokens to have it judged'
        """
        reason = refusal(completion, self.top_k, whole=False)
        if reason is not None:
            return self._rejected(reason)
        try:
            raw, tokens = self._raw(completion.top_logprobs, logprobs=True)
        except InputError as exc:
            return self._rejected(str(exc))
        stopped = completion.finish == "rejected"
        passed = raw >= self.raw_threshold
        return Verdict(
            accepted=passed and not stopped,
            score=self._unit(raw),
            separability=raw,
            threshold=self.threshold,
            token_scores=tokens,
            reason="the draft was ended by another, stricter threshold"
            if passed and stopped
            else "",
        )

    @property
    def floor(self) -> Floor | None:
        """The floor that ends a draft at the first token which rejects it; None where a later token
        could make up for it, which only "min" rules out.

        Example:
            >>> round(SeparabilityGate(0.98, top_k=4).floor.separability, 3)
            6.486
        """
        if self.aggregate != "min" or not math.isfinite(self.raw_threshold):
            return None
        return Floor(self.raw_threshold, self.top_k, self.formula)

    def _raw(self, x: npt.ArrayLike, logprobs: bool | None) -> tuple[float, tuple[float, ...]]:
        tokens = token_scores(x, self.top_k, self.aggregate, self.formula, logprobs=logprobs)
        return combine(tokens, self.aggregate), tuple(tokens.tolist())

    def _unit(self, raw: float) -> float:
        return to_unit(raw, log=self.aggregate == "log", sharpness=self.sharpness)

    def _check_calibrated(self, made: Calibration) -> None:
        threshold = 1.0 if made.threshold is None else made.threshold
        wrong = [
            f"{name}={got!r}, not {want!r}"
            for name, got, want in (
                ("threshold", self.threshold, threshold),
                ("top_k", self.top_k, made.scoring.top_k),
                ("aggregate", self.aggregate, made.scoring.aggregate),
                ("formula", self.formula, made.scoring.formula),
                ("sharpness", self.sharpness, made.scoring.sharpness),
            )
            if got != want
        ]
        if wrong:
            raise CalibrationError(
                f"the calibration is for another gate: {'; '.join(wrong)}. Calibrate anew, or "
                "give up its guarantee with calibration=None"
            )

    def _rejected(self, reason: str) -> Verdict:
        return Verdict(False, None, None, self.threshold, reason=reason)
