"""Prices of tokens, and what queries cost by them."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final

import numpy as np
import numpy.typing as npt

from speceyes.errors import ConfigError
from speceyes.files import load_whole
from speceyes.types import Completion, Judgement, Result, Trajectory

Floats: TypeAlias = npt.NDArray[np.float64]
Role: TypeAlias = Literal["large", "small"]
MILLION: Final = 1_000_000


@final
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of some calls.

    Args:
        read: Prompt tokens, those included that were kept from before.
        cached: Those of them that an engine says it had kept.
        written: New tokens.

    Example:
        >>> Usage(10, 4, 1) + Usage(5, 0, 2)
        Usage(read=15, cached=4, written=3)
    """

    read: int = 0
    cached: int = 0
    written: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.read + other.read, self.cached + other.cached, self.written + other.written
        )

    @classmethod
    def of(cls, said: Completion | Trajectory | Judgement | None) -> Usage:
        """Tokens of a completion, of a judgement's, or of all turns of a trajectory."""
        if isinstance(said, Judgement):
            said = said.completion
        if said is None:
            return cls()
        if isinstance(said, Completion):
            return cls(said.prompt_tokens, said.cached_tokens or 0, len(said.token_ids))
        found = cls()
        for step in said.steps:
            found += cls(step.prompt_tokens, step.cached_tokens or 0, step.tokens)
        return found


@final
@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model's tokens, in money per million.

    Args:
        input: Of prompt tokens.
        output: Of new tokens.
        cached_input: Of prompt tokens that were kept from before; None for as much as `input`.

    Raises:
        ConfigError: A price that isn't a finite number from 0.

    Example:
        >>> Price(2.0, 8.0, 0.5).of(Usage(1_000_000, 500_000, 250_000))
        3.25
    """

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.name == "cached_input":
                continue
            good = isinstance(value, int | float) and not isinstance(value, bool)
            if not good or not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"price {one.name}={value!r}; it must be a finite number from 0, in money per "
                    "million tokens"
                )

    def of(self, used: Usage) -> float:
        """Money that these tokens cost."""
        kept = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, used.read - used.cached)
        return (self.input * fresh + kept * used.cached + self.output * used.written) / MILLION


@final
@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of both models.

    Args:
        large: The agent's.
        small: The drafter's.
        currency: Its name, for people.
    """

    large: Price
    small: Price
    currency: str = "USD"

    @classmethod
    def load(cls, file: str | PathLike[str]) -> Prices:
        """Prices from a JSON or TOML file::

            {"currency": "USD",
             "large": {"input": 2.5, "cached_input": 0.25, "output": 10},
             "small": {"input": 0.1, "output": 0.4}}

        Raises:
            ConfigError: It can't be read, or a price is missing, unknown or out of range.
        """

        def read(text: str) -> Prices:
            try:
                data = tomllib.loads(text) if Path(file).suffix == ".toml" else json.loads(text)
            except (ValueError, RecursionError) as exc:
                raise ConfigError(f"it can't be read: {exc}") from exc
            return cls.from_dict(data)

        return load_whole(file, read, kind="prices")

    @classmethod
    def from_dict(cls, data: Any) -> Prices:
        """Prices out of parsed JSON or TOML; see `load`.

        Raises:
            ConfigError: A price is missing, unknown or out of range.
        """
        if not isinstance(data, Mapping) or set(data) - {"large", "small", "currency"}:
            raise ConfigError('it must hold "large" and "small", and may hold "currency"')
        currency = data.get("currency", "USD")
        if not isinstance(currency, str) or not currency.strip():
            raise ConfigError(f"currency={currency!r}; it must be text, such as USD")
        return cls(_price(data, "large"), _price(data, "small"), currency)

    def to_dict(self) -> dict[str, Any]:
        """The same as `from_dict` reads it."""
        found: dict[str, Any] = {"currency": self.currency}
        for role in ("large", "small"):
            price: Price = getattr(self, role)
            found[role] = {
                one.name: value
                for one in fields(price)
                if (value := getattr(price, one.name)) is not None
            }
        return found

    def of(self, role: Role, used: Usage) -> float:
        """Money that tokens of a model cost."""
        price = self.large if role == "large" else self.small
        return price.of(used)

    def of_result(self, result: Result, judge: str) -> float:
        """Money that a query cost, all phases.

        Args:
            result: What became of it.
            judge: Which model judges, "large" or "small"; anything else where none does.
        """
        judges: Role = "large" if judge == "large" else "small"
        return (
            self.of(judges, Usage.of(result.judgement))
            + self.of("small", Usage.of(result.draft))
            + self.of("large", Usage.of(result.trajectory))
        )


def _price(data: Mapping[str, Any], role: str) -> Price:
    given = data.get(role)
    names = [one.name for one in fields(Price)]
    if not isinstance(given, Mapping):
        raise ConfigError(f'"{role}" is missing: {{"input": ..., "output": ...}}')
    if set(given) - set(names):
        unknown = ", ".join(sorted(map(str, set(given) - set(names))))
        raise ConfigError(f'"{role}" holds {unknown}; there are {", ".join(names)}')
    if missing := [name for name in ("input", "output") if name not in given]:
        raise ConfigError(f'"{role}" lacks {" and ".join(missing)}')
    try:
        return Price(**given)
    except ConfigError as exc:
        raise ConfigError(f'"{role}": {exc}') from None
