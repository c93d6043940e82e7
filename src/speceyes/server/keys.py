"""API keys: who is asking. A file holds names and hashes, never a key."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import final

from speceyes.errors import ConfigError
from speceyes.server.allowance import Allowance

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({_NAME.pattern})\s+sha256:([0-9a-f]{{64}})(?:\s+(.*))?")
_LONGEST = 512  # characters; nobody has to hash a megabyte to be sent away


def new_key(name: str) -> tuple[str, str]:
    """A key of 256 random bits, and its line for the file.

    Raises:
        ConfigError: The name has other characters than letters, digits, ".", "_" and "-".

    Example:
        >>> key, line = new_key("alice")
        >>> key in line
        False
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r}; 1 to 64 letters, digits, '.', '_' or '-'")
    key = f"sk-speceyes-{secrets.token_urlsafe(32)}"
    return key, f"{name} sha256:{_hash(key)}"


@final
class Keys:
    """The clients that are let in.

    A SHA-256 without a work factor is enough for keys that `new_key` makes, since 256 random
    bits can't be guessed; don't put passwords here.

    Args:
        hashes: Name of a client to the SHA-256 (hex) of its key.
        allowances: Name of a client to its own limits; those that aren't named have none.

    Raises:
        ConfigError: There are none.

    Example:
        >>> key, line = new_key("alice")
        >>> Keys({"alice": line[-64:]}).client(key)
        'alice'
    """

    def __init__(
        self, hashes: Mapping[str, str], allowances: Mapping[str, Allowance] | None = None
    ) -> None:
        if not hashes:
            raise ConfigError("there is no key, so that nobody would be let in: add one")
        self._known = tuple((name, digest.encode()) for name, digest in hashes.items())
        self.allowances = dict(allowances or {})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Keys:
        """The keys of a file: lines of a name and "sha256:" with 64 hex digits; # comments.

        After the hash a line may have limits of this key, as `Allowance` has them:
        "alice sha256:... requests=4 timeout=20 turns_per_hour=600 seconds_per_hour=300".

        Raises:
            ConfigError: It can't be read, or a line isn't one of these.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            raise ConfigError(f"the file of keys can't be read: {exc}") from exc
        found: dict[str, str] = {}
        allowances: dict[str, Allowance] = {}
        for number, line in enumerate(text.splitlines(), 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if match is None:  # the line itself is not shown: it may be a key, put there by mistake
                raise ConfigError(
                    f"{path}, line {number}: a name and sha256:... are needed; make such a line "
                    "with speceyes serve --new-key NAME"
                )
            if match[1] in found:
                raise ConfigError(f"{path}, line {number}: {match[1]!r} is there twice")
            found[match[1]] = match[2]
            try:
                allowances[match[1]] = Allowance.read(match[3] or "")
            except ConfigError as exc:
                raise ConfigError(f"{path}, line {number}: {exc}") from None
        return cls(found, allowances)

    def client(self, key: str) -> str | None:
        """The name of whose key it is; None for nobody's.

        Every known key is compared, each in constant time, so that the time tells nothing.
        """
        digest = _hash(key[: _LONGEST + 1]).encode()
        found = None
        for name, known in self._known:
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
