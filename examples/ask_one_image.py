"""Asks one question about one image, with the bundled tiny pair.

Run: python examples/ask_one_image.py
"""

from __future__ import annotations

from speceyes import SpecPipeline, tiny
from speceyes.tiny.scenes import questions


def main() -> None:
    pipe = SpecPipeline.from_pretrained(
        large=tiny.LARGE,
        small=tiny.SMALL,
        gate=tiny.gate(),
    )
    # The tiny pair knows only scenes of this kind. A path, bytes or an array does as well.
    item = next(questions("heldout", 1, start=7))
    result = pipe(item.query.images[0], item.query.question)

    print(f"question  {item.query.question}")
    print(f"answer    {result.answer} (right: {item.answer})")
    print(f"route     {result.route}")
    if result.judgement is not None and result.judgement.p_tools is not None:
        print(f"judge     p(tools) = {result.judgement.p_tools:.3f}")
    if result.verdict is not None and result.verdict.score is not None:
        print(f"gate      score {result.verdict.score:.4f}, threshold {result.verdict.threshold}")
    if result.trajectory is not None:
        for number, step in enumerate(result.trajectory.steps, start=1):
            print(f"turn {number}    {step.text}")
            for seen in step.observations:
                print(f"  saw     {seen.box} of image {seen.source}")


if __name__ == "__main__":
    main()
