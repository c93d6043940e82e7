"""Runs the funnel on models that are served elsewhere, by vLLM, SGLang or a like engine.

Start two engines, then this, with a picture and a question of your own if you like:
vllm serve ChenShawn/DeepEyes-7B --port 8000 --max-model-len 32768
vllm serve Qwen/Qwen3-VL-2B-Instruct --port 8001 --max-logprobs 64
python examples/engine.py http://localhost:8000/v1 http://localhost:8001/v1 photo.jpg "Which dog?"
"""

from __future__ import annotations

import sys

from PIL import Image, ImageDraw

from speceyes import SpecPipeline, load_image
from speceyes.errors import ConfigError
from speceyes.gate import SeparabilityGate
from speceyes.models import OpenAIModel

TOP_K = 64  # vLLM returns 20 unless it was started with --max-logprobs


def main(large_url: str, small_url: str, path: str = "", question: str = "") -> None:
    try:
        large = OpenAIModel(large_url)
        small = OpenAIModel(small_url, top_k=TOP_K)  # asks now whether it returns so many
    except ConfigError as exc:
        sys.exit(f"{exc}")
    pipe = SpecPipeline.from_pretrained(
        large, small, tools=["zoom"], gate=SeparabilityGate(top_k=TOP_K)
    )
    photo = load_image(path) if path else drawing()
    result = pipe(photo, question or "What is the colour of the large circle?")
    print(f"agent: {large!r}")
    print(f"draft: {small!r}")
    print(f"route: {result.route}")
    print(f"answer: {result.answer or result.error}")


def drawing() -> Image.Image:
    photo = Image.new("RGB", (640, 640), (190, 190, 185))
    ImageDraw.Draw(photo).ellipse((120, 120, 520, 520), fill="red")
    return photo


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:5])
