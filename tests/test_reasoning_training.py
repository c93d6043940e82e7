"""How the pair that reasons is trained: the real model's loss, layers that begin as nothing."""

from __future__ import annotations

import copy
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from speceyes import prompts, tiny
from speceyes.strategies import Selector, questions
from speceyes.tiny import puzzles
from speceyes.tiny.training import muon, reasoning, reasoning_lessons, reasoning_report
from speceyes.tiny.training.lessons import view_of
from speceyes.tiny.training.models import END, build_model
from speceyes.tiny.training.train import to_patches
from speceyes.tiny.training.transcripts import chat_text
from speceyes.types import Completion


@pytest.fixture(scope="module")
def trainer() -> reasoning.Trainer:
    return reasoning.Trainer("small", tiny.SMALL, seed=1, lr=1e-3, scenes=6, batch=2)


def test_what_is_told_is_what_the_strategies_ask(trainer: reasoning.Trainer) -> None:
    scene, puzzle = puzzles.draw("train", 0)
    solution = puzzle.solve(scene)
    assert solution is not None
    [item] = puzzles.questions("train", 1)
    thought = " ".join(solution.reasoning)
    for told, asked in (
        (reasoning_lessons.told_short(puzzle, solution), questions.short(item.query)),
        (reasoning_lessons.told_reasoning(puzzle, solution), questions.reasoning(item.query)),
        (
            reasoning_lessons.told_noted(puzzle, solution, "a note", "right"),
            questions.noted(item.query, "a note"),
        ),
    ):
        assert told.pieces[0][0] == chat_text(asked) and told.pieces[-1][0].endswith(END)
    given, said, lead, _ = (
        text for text, _ in reasoning_lessons.told_reasoning(puzzle, solution).pieces
    )
    begun = questions.concluding(item.query, thought)
    assert said + lead == begun.prefill and given == chat_text(questions.reasoning(item.query))
    # The tokens of the parts are those of the whole, or generation would leave what was trained.
    encode = trainer.encoder.encode
    assert encode(said + lead) == [*encode(said), *encode(lead)]
    assert len(encode(prompts.REASON)) == 1


def test_the_loss_is_that_of_the_plain_model(trainer: reasoning.Trainer) -> None:
    rows = [r for r in trainer.rows(0) if r.name.startswith("short")]
    rng = np.random.default_rng([1, 77])
    looked = trainer.looked
    plain = build_model(trainer.tokenizer, trainer.size, 0).eval()
    plain.load_state_dict(trainer.model.state_dict())
    scene = looked.scenes[rows[0].images[0]]
    # The very view that was looked at can't be drawn again alone, so a new one is put in.
    view = view_of(scene, reasoning.WHOLE, trainer.size.view, rng).astype(np.uint8)
    patches = to_patches(view[None], trainer.size.patch)
    grid = torch.tensor([[1, 8, 8]])
    with torch.no_grad():
        out = plain.model.visual(patches, grid_thw=grid)
        looked.features[rows[0].images[0]] = out.pooler_output
        looked.deep[:, rows[0].images[0]] = torch.stack(list(out.deepstack_features))
        ours = float(trainer.loss(rows[:1], defaultdict(list)))
        ids = torch.from_numpy(rows[0].ids)[None]
        logits = plain(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=patches,
            image_grid_thw=grid,
            mm_token_type_ids=(ids == trainer.image_token).int(),
        ).logits[0]
    said = torch.from_numpy(rows[0].roles > 0)[1:]
    wanted = F.cross_entropy(logits[:-1][said], ids[0, 1:][said], reduction="sum")
    assert ours == pytest.approx(float(wanted), rel=1e-4)


def test_inserted_layers_begin_as_the_identity_and_learn(tmp_path: Path) -> None:
    small = reasoning.Trainer("small", tiny.SMALL, seed=1, lr=1e-3, scenes=4, batch=1)
    small.export(tmp_path / "small")
    large = reasoning.Trainer("large", tmp_path / "small", seed=1, lr=1e-3, scenes=4, batch=1)
    small.model.load_state_dict(
        {k: v.half().float() for k, v in small.model.state_dict().items()}  # as exported
    )
    rows = small.rows(3)
    small.looked.features.copy_(large.looked.features)
    small.looked.deep.copy_(large.looked.deep)
    with torch.no_grad():
        before = [float(t.loss(rows, defaultdict(list))) for t in (small, large)]
    assert len(large.model.model.language_model.layers) == reasoning.LAYERS
    assert before[0] == pytest.approx(before[1], rel=1e-4)
    added = large.model.model.language_model.layers[2]
    large.train_step(100, defaultdict(list))
    assert bool((added.mlp.down_proj.weight != 0).any())
    large.save(tmp_path)
    again = reasoning.Trainer("large", tmp_path / "small", seed=1, lr=1e-3, scenes=4, batch=1)
    again.load(tmp_path)
    assert again.step == 1 and all(
        torch.equal(a, b)
        for a, b in zip(large.model.parameters(), again.model.parameters(), strict=True)
    )


def test_notes_are_right_partly_wrong_or_about_something_else(trainer: reasoning.Trainer) -> None:
    rng = np.random.default_rng(0)
    kinds: dict[str, int] = defaultdict(int)
    for i in range(200):
        scene, puzzle = puzzles.draw("train", i % 40)
        solution = puzzle.solve(scene)
        assert solution is not None
        kind, notes = trainer.notes.draw(scene, puzzle, solution, rng)
        kinds[kind] += 1
        whole = " ".join(solution.reasoning)
        assert notes == whole if kind == "right" else notes != whole
    assert set(kinds) == {"right", "part", "wrong", "other"} and min(kinds.values()) > 10


def test_attention_is_drawn_over_and_beside_the_picture_by_the_chosen_heads() -> None:
    picture = Image.new("RGB", (320, 320), "black")
    [item] = puzzles.questions("heldout", 1)
    tokens = ("Row 1:", " column 2", " red bar", ".", " Row 4:", " column 1", " red bar", ".")
    said = Completion("".join(tokens), tuple(range(8)), tokens=tokens)
    weights = np.zeros((1, 2, 8), np.float32)
    weights[0, 0, 2], weights[0, 1, 6] = 0.9, 0.9
    way = reasoning_report.Way(item.query, "a", said, said, said, weights, "red", "red", "red")
    for head, (top, left) in (((0, 0), (0, 80)), ((0, 1), (240, 0))):
        selector = Selector("attended", share=0.125, heads=(head,))
        sheet = np.asarray(reasoning_report.draw_attention(picture, way, selector))
        reds = np.all(sheet == (255, 105, 105), axis=-1)
        assert reds[:, 340:].any()  # the word itself
        rows, columns = np.nonzero(reds[10:330, 10:330])
        assert top <= rows.min() and rows.max() < top + 80, "the place of which it is said"
        assert left <= columns.min() and columns.max() < left + 80


def test_muon_steps_alike_in_every_direction() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 24, 64) * torch.tensor([0.01, 1.0, 50.0])[:, None, None]
    singular = torch.linalg.svdvals(muon.orthogonal(matrices))
    assert float(singular.min()) > 0.6 and float(singular.max()) < 1.3
    tall = torch.linalg.svdvals(muon.orthogonal(matrices.mT))
    torch.testing.assert_close(tall, singular, atol=1e-4, rtol=0)


def test_muon_goes_downhill_and_resumes() -> None:
    torch.manual_seed(1)
    goal = torch.randn(12, 8)

    def steps(n: int, weights: torch.nn.Parameter, optimizer: muon.Muon) -> float:
        for _ in range(n):
            optimizer.zero_grad()
            loss = ((weights - goal) ** 2).mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    weights = torch.nn.Parameter(torch.zeros(12, 8))
    optimizer = muon.Muon([weights], lr=0.1, weight_decay=0.0)
    first = steps(1, weights, optimizer)
    steps(9, weights, optimizer)
    again = torch.nn.Parameter(weights.detach().clone())
    other = muon.Muon([again], lr=0.1, weight_decay=0.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert steps(20, weights, optimizer) < 0.6 * first
    steps(20, again, other)
    torch.testing.assert_close(again, weights, atol=0, rtol=0)
