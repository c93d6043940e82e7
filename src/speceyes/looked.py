"""Parts of a query's images that an agent looked at: crops with their places."""

from __future__ import annotations

from collections.abc import Sequence

from speceyes.types import Box, Image, Observation, Trajectory


def zoomed(
    images: Sequence[Image], trajectory: Trajectory | None
) -> list[tuple[Image, int, Box | None]]:
    """Every crop that was looked at, with its place in the query's images.

    Returns:
        (crop, which of the query's images, its box in fractions 0 to 1 of that image). The box
        is None where the tool didn't say where it looked. A crop of a crop is followed back.
    """
    seen: list[tuple[Image, int, Box | None]] = [
        (image, at, (0.0, 0.0, 1.0, 1.0)) for at, image in enumerate(images)
    ]
    for step in trajectory.steps if trajectory else ():
        for observation in step.observations:
            place = _place(observation, seen)
            seen += [(image, *place) for image in observation.images]
    return seen[len(images) :]


def _place(
    observation: Observation, seen: Sequence[tuple[Image, int, Box | None]]
) -> tuple[int, Box | None]:
    source = observation.source
    if observation.box is None or source is None or not 0 <= source < len(seen):
        return 0, None
    image, root, outer = seen[source]
    if outer is None:
        return root, None
    wide, high = outer[2] - outer[0], outer[3] - outer[1]
    x0, y0, x1, y1 = observation.box
    return root, (
        outer[0] + x0 / image.width * wide,
        outer[1] + y0 / image.height * high,
        outer[0] + x1 / image.width * wide,
        outer[1] + y1 / image.height * high,
    )
