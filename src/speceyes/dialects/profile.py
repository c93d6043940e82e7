"""Profile of a checkpoint: coordinates, sizes, turns, sampling. Data beside each parser."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final, runtime_checkable

from PIL import Image as PILImage

from speceyes.errors import ConfigError
from speceyes.protocols import Dialect, offers
from speceyes.texts import read_settings
from speceyes.types import Image, Sampling

Pixels = tuple[int, int]
"""Fewest and most pixels of an image, width times height."""

_NUMBERS = (
    "scale",
    "margin",
    "grow",
    "min_box",
    "crop_scale",
    "image_scale",
    "temperature",
    "top_p",
    "presence_penalty",
    "repetition_penalty",
)
_LONGEST = 200
"""Images that are more than so many times as long as wide are refused by the Qwen families."""


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """The numbers that a checkpoint was trained and evaluated with.

    Args:
        scale: Boxes run from 0 to this across an image's width and height; None for pixels of
            the image as the model sees it.
        rounding: What becomes of a box's edges in pixels of the image that is cropped: "nearest",
            "down" (towards 0) or "outward" (left and top down, right and bottom up); None leaves
            it to the tool.
        margin: Added around a box, as a part of the image's width and height.
        grow: A box is made so many times as wide and high around its centre, within the image.
        min_box: Boxes with a side of so many pixels or fewer, in the dialect's space, are refused.
        image_pixels: The question's images are resized into these before they are shown, up as
            well as down; None leaves it to the model's image processor. A model that holds them
            to narrower limits still is reported.
        crop_pixels: The same for what tools return, whose sides become multiples of `factor` as
            well; None holds it to `image_pixels`.
        crop_scale: What tools return is first enlarged by this.
        image_scale: The question's images are shown at this part of their width and height.
        factor: Sides of what is resized are multiples of this.
        handed: What tools and code get: the images themselves, or as the model sees them.
        code_images: Which of them code gets: "all", or those of the "question".
        first_image: The number of the first image.
        max_steps: Most turns, the answer's included.
        max_tokens: Most new tokens a turn.
        max_calls: Most calls of a turn that are run.
        temperature: Of the agent's turns; 0 is greedy.
        top_p: See `Sampling.top_p`.
        top_k: See `Sampling.sample_top_k`.
        presence_penalty: See `Sampling.presence_penalty`.
        repetition_penalty: See `Sampling.repetition_penalty`; None for the checkpoint's own.
        stop: Strings that end a turn.
        stop_after: They count only behind this, once reasoning has begun.
        keep_reasoning: Whether a turn's reasoning stays in the conversation. Templates of
            thinking models drop what they should by themselves.
        results: Where results come back: in a "user" turn, in the "assistant" turn that goes on
            behind them, or in turns of the role "tool".
        errors: Where a result that is only an error stands: "tagged" like any other, or "bare".
        tools: Names of built-in tools that the checkpoint was trained with.

    Raises:
        ConfigError: A number is out of range.
    """

    scale: float | None = None
    rounding: Literal["nearest", "down", "outward"] | None = None
    margin: float = 0.0
    grow: float = 1.0
    min_box: float = 0.0
    image_pixels: Pixels | None = None
    crop_pixels: Pixels | None = None
    crop_scale: float = 1.0
    image_scale: float = 1.0
    factor: int = 28
    handed: Literal["original", "seen"] = "original"
    code_images: Literal["all", "question"] = "all"
    first_image: int = 0
    max_steps: int = 6
    max_tokens: int = 512
    max_calls: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ("</tool_call>", "</answer>")
    stop_after: str = "</think>"
    keep_reasoning: bool = True
    results: Literal["user", "assistant", "tool"] = "user"
    errors: Literal["tagged", "bare"] = "tagged"
    tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("stop", "tools", "image_pixels", "crop_pixels"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("max_steps", "max_tokens", "max_calls", "factor"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}; it must be a whole number, at least 1")
        self._check_kinds()
        for name, low, strict in (
            ("scale", 0, True),
            ("grow", 0, True),
            ("crop_scale", 0, True),
            ("image_scale", 0, True),
            ("min_box", 0, False),
            ("margin", 0, False),
        ):
            value = getattr(self, name)
            if value is None and name == "scale":
                continue
            if not (math.isfinite(value) and (value > low if strict else value >= low)):
                raise ConfigError(f"{name}={value}; it must be finite and positive")
        if self.margin >= 1:
            raise ConfigError(f"margin={self.margin}; it must be a part of the image, below 1")
        for name, allowed in (
            ("rounding", (None, "nearest", "down", "outward")),
            ("handed", ("original", "seen")),
            ("code_images", ("all", "question")),
            ("results", ("user", "assistant", "tool")),
            ("errors", ("tagged", "bare")),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}; it must be one of {allowed}")
        for name in ("image_pixels", "crop_pixels"):
            limits = getattr(self, name)
            if limits is None:
                continue
            whole = isinstance(limits, tuple) and all(type(one) is int for one in limits)
            if not (whole and len(limits) == 2 and 0 < limits[0] <= limits[1]):
                raise ConfigError(f"{name}={limits!r}; it must be (fewest, most) pixels")
        self.sampling()

    def _check_kinds(self) -> None:
        """Refuses values of another kind than their field's."""
        for name in ("first_image", "top_k"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name}={value!r}; it must be a whole number from 0")
        for name in _NUMBERS:
            value = getattr(self, name)
            optional = value is None and name in ("scale", "repetition_penalty")
            if not optional and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{name}={value!r}; it must be a number")
        for name in ("stop", "tools"):
            value = getattr(self, name)
            if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
                raise ConfigError(f"{name}={value!r}; it must be a list of texts")
        if not isinstance(self.stop_after, str):
            raise ConfigError(f"stop_after={self.stop_after!r}; it must be text")
        if not isinstance(self.keep_reasoning, bool):
            raise ConfigError(f"keep_reasoning={self.keep_reasoning!r}; it must be true or false")

    def sampling(self) -> Sampling:
        """Sampling that a turn of the agent asks for."""
        return Sampling(
            max_tokens=self.max_tokens,
            stop=self.stop,
            temperature=self.temperature,
            top_p=self.top_p,
            sample_top_k=self.top_k,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            stop_after=self.stop_after,
        )

    def first(self, image: Image) -> Image:
        """A question's image as it is shown: at its part, and resized into `image_pixels`."""
        return self._held(_scaled(image, self.image_scale))

    def crop(self, image: Image) -> Image:
        """An image from a tool as it is shown: enlarged, and resized into `crop_pixels`."""
        image = _scaled(image, self.crop_scale)
        if self.crop_pixels is None:
            return self._held(image)
        return _resized(image, fitted(image.size, self.crop_pixels, self.factor))

    def _held(self, image: Image) -> Image:
        """An image within `image_pixels`; one that rounding alone would change is left to the
        model's processor, which rounds too, and so is one too long for any model to see.
        """
        if self.image_pixels is None or max(image.size) > _LONGEST * min(image.size):
            return image
        fewest, most = self.image_pixels
        width, height = rounded(image.size, self.factor)
        if fewest <= width * height <= most:
            return image
        return _resized(image, fitted(image.size, self.image_pixels, self.factor))

    @classmethod
    def load(cls, file: str | os.PathLike[str], base: Profile | None = None) -> Profile:
        """A profile from a TOML or JSON file that has any of the names above.

        Args:
            file: The file.
            base: What the others are taken from.

        Raises:
            ConfigError: The file can't be read, or has a wrong name or value in it.
        """
        names = [one.name for one in dataclasses.fields(cls)]
        found: dict[str, Any] = read_settings(file, names, "profile")
        for name in ("scale", "rounding", "image_pixels", "crop_pixels", "repetition_penalty"):
            if found.get(name) == "none":  # TOML has no null
                found[name] = None
        try:
            return dataclasses.replace(base or cls(), **found)
        except (TypeError, ValueError) as exc:
            raise ConfigError(f"profile file {os.fspath(file)}: {exc}") from exc


@runtime_checkable
class _HasProfile(Protocol):
    @property
    def profile(self) -> Profile: ...


def profile_of(dialect: Dialect) -> Profile:
    """A dialect's profile; for an object without one, the defaults with its stop strings."""
    own: object = dialect.profile if offers(dialect, _HasProfile) else None
    if isinstance(own, Profile):
        return own
    return Profile(stop=tuple(dialect.stop), stop_after="")


def fitted(size: tuple[int, int], limits: Pixels, factor: int) -> tuple[int, int]:
    """A size near to one, in multiples of `factor`, its area within limits where that can be.

    Example:
        >>> fitted((50, 50), (40_000, 2_000_000), 28)
        (224, 224)
    """
    width, height = size
    fewest, most = limits
    w, h = rounded(size, factor)
    if w * h > most:
        by = math.sqrt(width * height / most)
        w, h = (max(factor, math.floor(side / by / factor) * factor) for side in size)
    elif w * h < fewest:
        by = math.sqrt(fewest / (width * height))
        w, h = (math.ceil(side * by / factor) * factor for side in size)
    return w, h


def rounded(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """A size with its sides at the nearest multiples of `factor`, one at least."""
    width, height = (max(factor, round(side / factor) * factor) for side in size)
    return width, height


def limits_differ(profile: Profile, seen_size: Callable[[Image], tuple[int, int]]) -> str | None:
    """Words on what a model loses of images that are held to a profile's limits; None where it
    loses nothing.

    Args:
        profile: What the checkpoint was trained on.
        seen_size: Says how large the model sees an image.
    """
    if profile.image_pixels is None:
        return None
    most = profile.image_pixels[1]
    side = min(8192, 2 * math.ceil(math.sqrt(most)))
    large = profile.first(PILImage.new("1", (side, side)))
    seen = math.prod(seen_size(large))
    if seen >= 0.8 * math.prod(large.size):
        return None
    return f"of a large image it sees {seen:,} pixels, where {most:,} is the trained limit"


def _resized(image: Image, size: tuple[int, int]) -> Image:
    return image if size == image.size else image.resize(size, PILImage.Resampling.BICUBIC)


def _scaled(image: Image, by: float) -> Image:
    if by == 1:
        return image
    size = max(1, int(image.width * by)), max(1, int(image.height * by))
    return image.resize(size, PILImage.Resampling.LANCZOS)
