"""Limits of one key, and the account of its hourly budgets."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, final

from speceyes.errors import ConfigError
from speceyes.server.refusal import Refusal
from speceyes.types import Result

HOUR_S: Final = 3600.0
_BINS: Final = 60  # an hour is counted in minutes, so that a key costs no more memory than that


@dataclass(frozen=True, slots=True)
class Allowance:
    """Limits of one key; None leaves the server's own, or none.

    Args:
        requests: Most of its requests under way, in place of the server's limit for each client.
        timeout: Most seconds from acceptance to answer; never more than the server's own.
        turns_per_hour: Most turns of the agent within an hour.
        seconds_per_hour: Most seconds of the models' time within an hour: its shares of all
            batches that its requests were part of.

    Raises:
        ConfigError: A number is not above 0.

    Example:
        >>> Allowance.read("timeout=20 turns_per_hour=600").timeout
        20.0
    """

    requests: int | None = None
    timeout: float | None = None
    turns_per_hour: int | None = None
    seconds_per_hour: float | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{one.name}={value}; it must be above 0")

    @classmethod
    def read(cls, text: str) -> Allowance:
        """From words like "timeout=20".

        Raises:
            ConfigError: A word is something else, or is there twice. It is not repeated: it may
                be a key, put there by mistake.
        """
        whole = ("requests", "turns_per_hour")
        known = [one.name for one in fields(cls)]
        found: dict[str, int | float] = {}
        for word in text.split():
            name, _, value = word.partition("=")
            if name not in known or name in found:
                raise ConfigError(f"what follows the hash must be one each of {', '.join(known)}")
            try:
                found[name] = int(value) if name in whole else float(value)
            except ValueError:
                kind = "a whole number" if name in whole else "a number"
                raise ConfigError(f"{name}: {kind} is needed, as in {name}=20") from None
        return cls(**found)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Account:
    """Turns and seconds that a key spent in each of the last minutes."""

    minute: int = 0
    turns: list[float] = field(default_factory=lambda: [0.0] * _BINS)
    seconds: list[float] = field(default_factory=lambda: [0.0] * _BINS)


@final
class Budgets:
    """Keeps the accounts of keys that have budgets. Threads may share it.

    A request is let in while there is anything left; what it then costs is known when it is done,
    so that a key can spend more than its budget by what it has under way.

    Args:
        allowances: By name of the key.
        clock: Seconds that only rise.

    Example:
        >>> from speceyes.types import Timings
        >>> budgets = Budgets({"alice": Allowance(seconds_per_hour=1.0)})
        >>> budgets.check("alice")
        >>> budgets.charge("alice", Result("1", "red", "draft", timings=Timings(draft=1.5)))
        >>> budgets.check("alice")
        Traceback (most recent call last):
        speceyes.server.refusal.Refusal: this key's seconds of the models for an hour are spent
    """

    def __init__(
        self, allowances: Mapping[str, Allowance], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._allowances: dict[str, Allowance] = {}
        self._accounts: dict[str, _Account] = {}
        self._clock, self._lock = clock, threading.Lock()
        self.renew(allowances)

    def renew(self, allowances: Mapping[str, Allowance]) -> None:
        """Takes other budgets; what keys have spent is kept."""
        with self._lock:
            self._allowances = {
                name: one
                for name, one in allowances.items()
                if one.turns_per_hour is not None or one.seconds_per_hour is not None
            }
            accounts = self._accounts
            self._accounts = {name: accounts.get(name, _Account()) for name in self._allowances}

    def check(self, client: str) -> None:
        """Lets it in, or not.

        Raises:
            Refusal: 429 with Retry-After; a budget is spent.
        """
        with self._lock:
            allowed = self._allowances.get(client)
            if allowed is None:
                return
            account = self._now(client)
            for what, spent, most in (
                ("turns of the agent", account.turns, allowed.turns_per_hour),
                ("seconds of the models", account.seconds, allowed.seconds_per_hour),
            ):
                if most is not None and sum(spent) >= most:
                    raise Refusal(
                        429,
                        f"this key's {what} for an hour are spent",
                        code="budget_spent",
                        headers={"Retry-After": str(_minutes_until(spent, most) * 60)},
                    )

    def charge(self, client: str, result: Result) -> None:
        """Takes down what a request cost, whether it was answered or not."""
        spent = result.timings
        seconds = sum(s or 0.0 for s in (spent.judge, spent.draft, spent.gate, spent.fallback))
        turns = len(result.trajectory.steps) if result.trajectory is not None else 0
        with self._lock:
            if client not in self._allowances:
                return
            account = self._now(client)
            account.turns[-1] += turns
            account.seconds[-1] += seconds

    def _now(self, client: str) -> _Account:
        """The account, its oldest minutes forgotten; the last of each list is this minute."""
        account = self._accounts[client]
        minute = int(self._clock() // (HOUR_S / _BINS))
        passed = min(minute - account.minute, _BINS)
        account.minute = minute
        for spent in (account.turns, account.seconds):
            spent[:] = spent[passed:] + [0.0] * passed
        return account


def _minutes_until(spent: list[float], most: float) -> int:
    """Minutes until enough of it is an hour ago."""
    rest = sum(spent)
    for minutes, old in enumerate(spent, 1):
        rest -= old
        if rest < most:
            return minutes
    return len(spent)
