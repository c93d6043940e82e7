"""Image search: what a user's own search finds, for an image or for words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image as PILImage

from speceyes.errors import ConfigError, ToolError
from speceyes.tools._places import BOX, INDEX, image_at, region_of
from speceyes.types import Image, Observation

Found: TypeAlias = str | Image | tuple[str | Image, ...]
"""One result: text, an image, or several of both that belong together."""


@dataclass(frozen=True, slots=True)
class ImageSearch:
    """Asks the user's search, and shows the first results.

    Nothing is sent anywhere but to `search`; where that sends it is the user's choice.

    Args:
        search: Called with the words (empty where the model gave none) and a copy of the image,
            or of the part of it, that the model points at. Returns results, best first, each
            text, an image, or a tuple of both. It may be called by several threads.
        max_results: Most results that are shown; no more are taken from an iterator.
        stateless: The same words and image always find the same.

    Raises:
        ConfigError: search can't be called, or max_results is below 1.

    Example:
        >>> from PIL import Image
        >>> def catalogue(query, image):
        ...     return [(f"No. 1 for {query!r}", image.resize((2, 2))), "No. 2"]
        >>> tool = ImageSearch(catalogue)
        >>> seen = tool([Image.new("RGB", (30, 20))], {"query": "chair"})
        >>> seen.content[0], seen.images[0].size, seen.content[2]
        ("No. 1 for 'chair'", (2, 2), 'No. 2')
    """

    search: Callable[[str, Image], Iterable[Found]]
    max_results: int = 5
    stateless: bool = False
    name: str = "image_search_tool"
    description: str = "Searches for images like an image or a part of it, and for words."

    def __post_init__(self) -> None:
        if not callable(self.search):
            raise ConfigError(
                f"search is a {type(self.search).__name__}; pass a function of words and an image"
            )
        if self.max_results < 1:
            raise ConfigError(f"max_results={self.max_results}; it must be at least 1")

    @property
    def reads(self) -> str:
        """It looks at one image, which matters to the cache."""
        return "image"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """JSON schema of `query`, `bbox_2d` and `img_idx`."""
        return {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "Words to search for."},
                "bbox_2d": BOX,
                "img_idx": INDEX,
            },
            "required": [],
        }

    def __call__(self, images: Sequence[Image], arguments: Mapping[str, Any]) -> Observation:
        """The results in order, or a line that says there are none.

        Args:
            images: Every image so far, full resolution.
            arguments: `query` (default ""), `bbox_2d` in pixels of the image, `img_idx`
                (default 0).

        Raises:
            ToolError: The box or the image isn't there, or a result is neither text nor image.
                The search's own errors pass.
        """
        index, image = image_at(images, arguments)
        box = region_of(image, arguments)
        results = self.search(str(arguments.get("query") or ""), image.crop(box))
        content: list[str | Image] = []
        for result in itertools.islice(results, self.max_results):
            for part in result if isinstance(result, tuple) else (result,):
                if not isinstance(part, str | PILImage.Image):
                    raise ToolError(
                        f"the search gave a {type(part).__name__}; it gives text and images"
                    )
                content.append(part)
        return Observation(tuple(content) or ("Nothing was found.",), source=index)
