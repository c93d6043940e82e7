"""Settings of a pipeline, as frozen objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from speceyes.errors import ConfigError
from speceyes.images import DEFAULT_LIMITS, ImageLimits
from speceyes.notebook import settings_html
from speceyes.pipeline.costs import SPECULATE, Speculate
from speceyes.pipeline.route import Order
from speceyes.protocols import Tool

if TYPE_CHECKING:
    from os import PathLike

    from speceyes.dialects import Profile
    from speceyes.tools import Tools


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Layout of the work in time. No answer and no route depends on it, but for `speculate`.

    Args:
        batch_size: Queries that are judged and drafted together; at least 1.
        order: "judge_first" drafts what the judge lets through; "draft_first" judges what the
            gate accepts, which is cheaper where the judge is dear and the gate strict.
        overlap: Whether the next batch is loaded, and another judged and drafted, in threads of
            their own while the agent works. None: where some model isn't on the CPU.
        end_drafts_early: Whether a draft ends at the first token that rejects it (under "min").
        speculate: "always"; or "auto": where costs that are measured as it runs say that the
            agent alone is faster, it works alone, and now and then a query is sent the other way
            to see whether that still holds. A query's route then depends on its neighbours' costs,
            and `Result.straight` says where it did. None: "auto" where an engine serves the agent,
            the judge or the drafter, and there is no `probe`; else "always".
        probe: Share of queries, drawn by lot, that go straight to the agent under "always", so that
            what it costs alone is known, and with it the gain; 0 leaves both unknown.

    Raises:
        ConfigError: A value is none of these.
    """

    batch_size: int = 16
    order: Order = "judge_first"
    overlap: bool | None = None
    end_drafts_early: bool = True
    speculate: Speculate | None = None
    probe: float = 0.0

    _repr_html_ = settings_html

    def __post_init__(self) -> None:
        _at_least_one(batch_size=self.batch_size)
        if not 0 <= self.probe < 1:
            raise ConfigError(f"probe={self.probe!r}; it must be a share from 0 to below 1")
        if self.order not in get_args(Order):
            raise ConfigError(f"order={self.order!r}; it must be one of {get_args(Order)}")
        if self.speculate is not None and self.speculate not in SPECULATE:
            raise ConfigError(
                f"speculate={self.speculate!r}; it must be one of {SPECULATE}, or None"
            )


@dataclass(frozen=True, slots=True)
class InputConfig:
    """Limits of what a pipeline takes as an image.

    Args:
        limits: Bounds that are checked before an image is decoded.
        allow_urls: Whether http(s) addresses are fetched.
    """

    limits: ImageLimits = DEFAULT_LIMITS
    allow_urls: bool = False

    _repr_html_ = settings_html


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Bounds of the agent's trajectories; see `speceyes.AgenticFallback`.

    Args:
        max_steps: Most turns of a trajectory, the answer's included; None for the profile's.
        max_tokens: Most new tokens of a turn; None for the profile's.
        max_batch: Most trajectories alive at once.
        profile: How the agent is driven, or a file for `Profile.load`; None for its dialect's own.

    Raises:
        ConfigError: A number is below 1.
    """

    max_steps: int | None = None
    max_tokens: int | None = None
    max_batch: int = 16
    profile: Profile | str | PathLike[str] | None = None

    _repr_html_ = settings_html

    def __post_init__(self) -> None:
        numbers = {"max_steps": self.max_steps, "max_tokens": self.max_tokens}
        given = {name: value for name, value in numbers.items() if value is not None}
        _at_least_one(max_batch=self.max_batch, **given)


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Choice of the judging model, and its threshold; see `speceyes.ToolJudge`.

    Args:
        model: "large", as in the paper; "small", which reads images and question once for its
            judgement and its draft; "draft", the small model in one pass, which answers or says
            that it must look closer; or None, which drafts every query.
        threshold: Tools are needed where p(tools) >= threshold; without effect under "draft".
        max_pixels: Most pixels of an image that it judges by; None for all that the large model
            takes, and for the draft's with the small one.

    Raises:
        ConfigError: A value is none of these.
    """

    model: str | None = "large"
    threshold: float = 0.5
    max_pixels: int | None = None

    _repr_html_ = settings_html

    def __post_init__(self) -> None:
        if self.model not in ("large", "small", "draft", None):
            raise ConfigError(f'judge={self.model!r}; it must be "large", "small", "draft" or None')
        if self.model == "draft" and self.max_pixels is not None:
            raise ConfigError(
                f'judge="draft" with max_pixels={self.max_pixels}: the draft itself judges, so '
                "give DraftConfig(max_pixels=...)"
            )


@dataclass(frozen=True, slots=True)
class Rung:
    """A first draft on fewer pixels; see `DraftConfig.ladder`.

    Args:
        max_pixels: Most pixels of an image that it is made from.
        threshold: Of its gate, 0 to 1; None for the pipeline's gate, whose scale is that of drafts
            on more pixels.

    Raises:
        ConfigError: max_pixels is below 1, or the threshold isn't between 0 and 1.
    """

    max_pixels: int
    threshold: float | None = None

    _repr_html_ = settings_html

    def __post_init__(self) -> None:
        _at_least_one(max_pixels=self.max_pixels)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold}; it must be 0 to 1")


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """Bounds of the drafts; see `speceyes.SpeculativeAnswerer`.

    Args:
        max_tokens: Most new tokens of a draft.
        max_depth: Most looks of the drafter before it drafts again what the gate would reject;
            0 drafts at once (docs/depth.md).
        tools: What it may look with; None for the agent's.
        max_pixels: Most pixels of an image that it drafts from; None for all that the model takes.
        ladder: Drafts of the same model on fewer pixels that are tried before that one, from the
            fewest up: `Rung`s or numbers of pixels. What a rung's gate rejects goes up one rung,
            and to the agent from the last.

    Raises:
        ConfigError: The rungs don't grow, up to max_pixels.
    """

    max_tokens: int = 20
    max_depth: int = 0
    tools: Tools | str | Iterable[Tool | type | Callable[..., Any] | str] | None = None
    max_pixels: int | None = None
    ladder: Sequence[Rung | int] = ()

    _repr_html_ = settings_html

    def __post_init__(self) -> None:
        rungs = tuple(one if isinstance(one, Rung) else Rung(one) for one in self.ladder)
        object.__setattr__(self, "ladder", rungs)
        sizes = [one.max_pixels for one in rungs]
        sizes += [] if self.max_pixels is None else [self.max_pixels]
        if any(below >= above for below, above in itertools.pairwise(sizes)):
            raise ConfigError(
                f"ladder={[one.max_pixels for one in rungs]} with max_pixels={self.max_pixels}: "
                "each rung must have more pixels than the one before it, up to max_pixels"
            )

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ladder's rungs, below the draft on `max_pixels`."""
        return tuple(one for one in self.ladder if isinstance(one, Rung))


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Loading of models that are named by a path or a Hub id; see `HFModel.from_pretrained`.

    Args:
        device: "cpu", "cuda", ...; None leaves it to the loader.
        dtype: "float32", "bfloat16", ...; None leaves it to the loader.
        min_pixels: Fewest pixels of an image after resizing; None for the checkpoint's own.
        max_pixels: Most pixels, likewise.
        model_kwargs: Further arguments of `HFModel.from_pretrained`, such as `device_map`,
            `quantization_config`, `attn_implementation`, `revision`, `token` or
            `trust_remote_code`.
    """

    device: str | None = None
    dtype: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)

    _repr_html_ = settings_html


def _at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name}={value}; it must be at least 1")
