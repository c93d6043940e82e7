"""Images through the vision tower ahead of the conversation that will show them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from speceyes.fingerprint import fingerprint
from speceyes.models.hf.prompt_encoder import Features, PromptEncoder, to_device
from speceyes.types import Image


def encode_ahead(reader: PromptEncoder, images: Sequence[Image]) -> None:
    """Puts the features of images that aren't known yet where `PromptEncoder.encoded` finds them.

    May run beside a forward pass in another thread, on the CPU. Call it in inference mode.

    Raises:
        Exception: Whatever is wrong with an image.
    """
    for image in images:  # one by one: none waits for another
        digest = fingerprint(image)
        if digest in reader.features:
            continue
        ready = reader.ready.take(digest) or reader.pixels.quick(image)
        inputs = reader.processor.image_processor(
            [ready], return_tensors="pt", **reader.pixels.options
        )
        inner, device = reader.model.model, reader.model.device
        out = inner.get_image_features(
            to_device(inputs["pixel_values"].to(reader.model.dtype), device),
            to_device(inputs["image_grid_thw"], device),
            return_dict=True,
        )
        [found] = Features.split(out)
        if device.type == "cuda":
            torch.cuda.current_stream(device).synchronize()
        reader.features.put(digest, found)
