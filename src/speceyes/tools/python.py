"""Python: runs programs that a model has written, in a sandbox."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speceyes.errors import ConfigError, ImageError, ToolError
from speceyes.images import ImageLimits, load_image
from speceyes.tools._sandbox_executors import (
    BubblewrapExecutor,
    CommandExecutor,
    LandlockExecutor,
    NamespaceExecutor,
    PlainExecutor,
)
from speceyes.tools._sandbox_layout import PACKAGES
from speceyes.tools._sandbox_probe import Found, find_sandbox, holes, prove, sandbox
from speceyes.tools._sandbox_values import Executor, Limits, Outcome, Produced, Program
from speceyes.types import Image, Observation, ToolCall

__all__ = [
    "PACKAGES",
    "BubblewrapExecutor",
    "CommandExecutor",
    "Executor",
    "Found",
    "LandlockExecutor",
    "Limits",
    "NamespaceExecutor",
    "Outcome",
    "PlainExecutor",
    "Produced",
    "Program",
    "PythonTool",
    "find_sandbox",
    "holes",
    "prove",
]

_PARAMETERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "The program, in Python."}},
    "required": ["code"],
}
_ENDED = "the program was ended"
_BEFORE_A_PATH = " \t\n\r\f\v/\"'`=:(,["


@dataclass(frozen=True, slots=True)
class PythonTool:
    """Runs a program on the images, in a process that can reach nothing else.

    The images are there as the read-only files image_1.png, image_2.png and so on, and as
    variables image_1, image_2. What comes back is what the program printed, and images: those it
    showed (`plt.show()`, `image.show()`), those whose path it printed, and where it did neither,
    those it saved. docs/sandbox.md says what the sandbox keeps from it, and how.

    Args:
        isolation: "bubblewrap", "namespaces", "landlock"; "auto" takes the first of these that
            holds here, which is tried out, not assumed. "none" runs programs with all rights of
            the user, and has to be asked for.
        limits: What a program may use.
        keep_state: Variables and files last from one program of a trajectory to its next; see
            `carry`.
        executor: Runs the programs in place of a sandbox here, and answers for the isolation.
        packages: Distributions that programs may import, with what these require, where they
            are installed.
        max_pixels: Most pixels of an image that comes back.
        max_chars: Most characters of what was printed that the model is shown.

    Raises:
        ConfigError: No isolation is to be had, or a number can't work.

    Example:
        >>> from PIL import Image
        >>> tool = PythonTool(isolation="none")
        >>> code = "print(image_1.size); image_1.crop((0, 0, 40, 30)).show()"
        >>> seen = tool([Image.new("RGB", (200, 100))], {"code": code})
        >>> seen.content[0], seen.images[0].size
        ('(200, 100)', (40, 30))
    """

    isolation: str = "auto"
    limits: Limits = field(default_factory=Limits)
    keep_state: bool = True
    executor: Executor | None = None
    packages: Sequence[str] = PACKAGES
    max_pixels: int = 16_777_216
    max_chars: int = 8000
    name: str = "python"
    description: str = (
        "Runs Python code on the images: files image_1.png, image_2.png, ..., also there as PIL "
        "images in variables image_1, image_2, ... Print results; show images by plt.show(), or "
        "save them and print their paths."
    )

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}; it must be at least 1")
        if isinstance(self.packages, str):
            raise ConfigError(f"packages={self.packages!r}; pass a tuple of names")
        object.__setattr__(self, "packages", tuple(self.packages))
        if self.executor is None:
            object.__setattr__(self, "executor", sandbox(self.isolation, self.packages))

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `code`."""
        return _PARAMETERS

    @property
    def runs_programs(self) -> bool:
        """True: models write what it runs."""
        return True

    @property
    def bounded(self) -> bool:
        """True where a call ends by itself within its limits, so that it need not be watched."""
        return isinstance(
            self.executor,
            BubblewrapExecutor | NamespaceExecutor | LandlockExecutor | PlainExecutor,
        )

    def carry(
        self, arguments: Mapping[str, Any], earlier: Sequence[tuple[ToolCall, Observation]]
    ) -> Mapping[str, Any]:
        """The arguments of a call that goes on where a trajectory's earlier ones left off.

        A tool keeps nothing from one call to the next, so that no two trajectories can share
        anything. State is kept by running the earlier programs again, silently, before the
        new one; those that were killed are left out.

        Args:
            arguments: Of the new call.
            earlier: The trajectory's calls so far, of any tool, with what came of them.
        """
        codes = [
            code
            for call, seen in earlier
            if call.name == self.name and isinstance(code := call.arguments.get("code"), str)
            if not (seen.error or "").startswith(_ENDED)
        ]
        return {**arguments, "before": codes} if self.keep_state and codes else arguments

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """Observation of what the program printed and made; its error, if it failed, in `error`.

        Args:
            images: Every image so far, full resolution.
            arguments: `code`; `before` where `carry` has added it; `clamp`, and `variables`,
                further names of the images, where a dialect has.

        Raises:
            ToolError: There is no code, or it could not be run.
        """
        code, before = arguments.get("code"), arguments.get("before", ())
        if not isinstance(code, str) or not code.strip():
            raise ToolError("code must be a program in Python")
        if not isinstance(before, list | tuple) or not all(isinstance(b, str) for b in before):
            raise ToolError("before must be a list of programs")
        if "\0" in code:
            raise ToolError("code holds a null character; a program can't")
        named = [(f"image_{at}", f"image_{at}.png") for at in range(1, len(images) + 1)]
        pattern = arguments.get("variables")
        if isinstance(pattern, str):  # a dialect's own names for them, counted from 0
            named += [
                (pattern.replace("{index}", str(at)), file) for at, (_, file) in enumerate(named)
            ]
        files = {file: _png(image) for (_, file), image in zip(named, images, strict=False)}
        clamp = arguments.get("clamp") is True
        program = Program(code, tuple(before), files, tuple(named), self.limits, clamp)
        assert self.executor is not None
        outcome = self.executor(program)
        shown, notes = [], []
        for made in _chosen(outcome):
            try:
                shown.append(self._loaded(made))
            except ImageError as exc:
                notes.append(f"{_cut(made.path, 200) or 'an image'} is not shown: {exc}")
        beside = [f"stderr: {outcome.stderr.strip()}"] if outcome.stderr.strip() else []
        beside += ["\n".join(notes)] if notes else []
        beside = [_cut(part, self.max_chars // 4) for part in beside]
        room = self.max_chars - sum(map(len, beside))
        printed = _cut(outcome.stdout.strip("\n"), max(1, room))
        text = "\n".join(part for part in (printed, *beside) if part)
        if not text and not shown and outcome.error is None:
            text = "(the program printed nothing and showed no image)"
        content = ((text,) if text else ()) + tuple(shown)
        error = None if outcome.error is None else _cut(outcome.error, self.max_chars)
        return Observation(content, error=error)

    def _loaded(self, made: Produced) -> Image:
        if made.data is None:
            raise ImageError(f"it has over {self.limits.image_bytes} bytes, with those before it")
        return load_image(made.data, limits=ImageLimits(max_pixels=self.max_pixels, min_side=1))


def _chosen(outcome: Outcome) -> Iterator[Produced]:
    """The images that were meant to be seen."""
    saved = [made for made in outcome.images if made.path]
    shown = [made for made in outcome.images if not made.path]
    named = []
    for made in saved:
        path = made.path.removeprefix(".tmp/").removeprefix(".mnt/")
        if (found := _named_at(path, outcome.stdout)) is not None:
            named.append((found, made))
    yield from shown
    yield from (made for _, made in sorted(named, key=lambda pair: pair[0]))
    if not shown and not named:
        yield from (made for made in saved if made.new)


def _named_at(path: str, printed: str) -> int | None:
    """Place where a path stands by itself in what was printed.

    It is looked for as plain text: both are the program's, and a pattern could be made to take
    minutes on them.
    """
    if not path:
        return None
    found = [at for one in _BEFORE_A_PATH if (at := printed.find(one + path)) >= 0]
    return 0 if printed.startswith(path) else min(found, default=None)


def _png(image: Image) -> bytes:
    """The image as a file. Packing it tightly would take longer than sending it."""
    kept = image if image.mode in ("RGB", "RGBA", "L", "LA", "1", "P") else image.convert("RGB")
    buffer = io.BytesIO()
    kept.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def _cut(text: str, most: int) -> str:
    """The beginning and the end, where it is too long; an error's point is at its end."""
    if len(text) <= most:
        return text
    left = f"\n... {len(text) - most} characters left out ...\n"
    return text[: most // 2] + left + text[len(text) - (most - most // 2) :]
