"""Trains a tiny model on pictures and questions of one's own, from a bundled one's weights.

    python -m speceyes.tiny.training.pictures small train.jsonl --out runs/drafter

`small` learns to draft, `large` to answer as the agent does, without a look, and that no tools are
needed. The questions are JSONL with answers (docs/howto/your-data.md); answers should be short.
Pictures are seen at the model's own size, near squares of 80 and 112 pixels a side.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from PIL import Image as PILImage

from speceyes import tiny
from speceyes.errors import InputError
from speceyes.evaluation import benchmarks
from speceyes.tiny.scenes import Question
from speceyes.tiny.training import transcripts
from speceyes.tiny.training.learner import add_run, train
from speceyes.tiny.training.lessons import Batch, Lessons, Row, places_alone
from speceyes.tiny.training.train import Trainer

if TYPE_CHECKING:
    from speceyes.evaluation.benchmarks import Samples

AT_ONCE = 6
"""Questions on one picture in a batch, where it has so many."""


@final
class PictureLessons(Lessons):
    """Draws batches of pictures with questions on them. A batch depends on the seed and its number
    alone.

    Args:
        samples: Questions with answers, on one picture each.
        large: Teach the agent (else the drafter).
        **options: Of `Lessons`.

    Raises:
        InputError: A question has no answer, or another number of pictures than one.
    """

    def __init__(self, samples: Samples, *args: Any, large: bool, **options: Any) -> None:
        super().__init__(*args, large=large, **options)
        on: dict[str, list[tuple[int, Question]]] = defaultdict(list)
        for at, entry in enumerate(samples.entries):
            if not entry.answer.strip():
                raise InputError(f"{entry.id} has no answer to learn")
            asked = samples[at].query
            if len(asked.images) != 1:
                raise InputError(f"{entry.id} has {len(asked.images)} pictures; it must have one")
            one = Question(asked.question, entry.answer, entry.kind or "own", False, (), ("",))
            on[entry.image_key].append((at, one))
        if not on:
            raise InputError("there are no questions to learn")
        self._samples, self._on = samples, list(on.values())

    def batch(self, number: int, *, rows: bool = True) -> Batch:
        """Batch `number`; without rows, views alone."""
        rng = np.random.default_rng([self._seed, 4, number])
        size = self._size.view
        views, told = [], []
        for at in rng.choice(len(self._on), min(self._count, len(self._on)), replace=False):
            asked = self._on[int(at)]
            picture = self._samples[asked[0][0]].query.images[0].convert("RGB")
            views.append(np.asarray(picture.resize((size, size), PILImage.Resampling.BICUBIC)))
            if rows:
                for one in rng.choice(len(asked), min(AT_ONCE, len(asked)), replace=False):
                    told.append(self._told(asked[int(one)][1], len(views) - 1, rng))
        labels = np.stack([places_alone()] * len(views))
        return Batch(np.stack(views).astype(np.uint8), labels, tuple(told))

    def _told(self, question: Question, image: int, rng: np.random.Generator) -> Row:
        if not self._large:
            return self.row(f"draft {question.kind}", transcripts.draft(question), [image])
        if rng.random() < 0.2:
            return self.row(f"judge {question.kind}", transcripts.judge(question), [image])
        told = transcripts.agent(question, self._size.view)
        return self.row(f"agent {question.kind}", told, [image])


def main(argv: list[str] | None = None) -> None:
    """Trains one of the models and writes it in the Hugging Face format."""
    parser = argparse.ArgumentParser(
        prog="python -m speceyes.tiny.training.pictures", description=__doc__
    )
    parser.add_argument("model", choices=("small", "large"))
    parser.add_argument("questions", type=Path, help="JSONL with answers")
    add_run(parser, steps=1200, scenes=8)
    parser.add_argument("--start", type=Path, help="folder of an exported model to start from")
    options = parser.parse_args(argv)
    start = options.start or (tiny.LARGE if options.model == "large" else tiny.SMALL)
    samples = benchmarks.load(options.questions).samples

    def begin() -> Trainer:
        trainer = Trainer(options.model, options.seed, options.lr, options.scenes, "cpu")
        trainer.begin_with(start)
        trainer.lessons = PictureLessons(
            samples,
            trainer.tokenizer,
            trainer.size,
            large=options.model == "large",
            seed=options.seed,
            scenes_a_batch=options.scenes,
        )
        return trainer

    train(options, begin, {"start": start.name, "questions": len(samples), "device": "cpu"})


if __name__ == "__main__":
    main()
