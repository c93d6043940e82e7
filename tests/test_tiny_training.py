"""How the tiny pair is trained: the same sums as the real classes, and runs that resume."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from speceyes import texts, tiny
from speceyes.answerer import SpeculativeAnswerer
from speceyes.dialects.deepeyes import DeepEyesDialect
from speceyes.models.scripted import ScriptedModel
from speceyes.tiny import scenes
from speceyes.tiny.training import train, transcripts
from speceyes.tiny.training.models import LARGE_SIZE, SMALL_SIZE, Size, build_model, build_processor
from speceyes.tools.zoom import Zoom
from speceyes.types import Query


@pytest.fixture(scope="module", params=["large", "small", "small_zoom"])
def trainer(request: pytest.FixtureRequest) -> train.Trainer:
    return train.Trainer(request.param, seed=1, lr=2e-3, scenes=2, device="cpu")


def test_patches_are_those_of_the_processor(trainer: train.Trainer) -> None:
    views = trainer.lessons.batch(0).views[:2]
    processor = build_processor(trainer.tokenizer, trainer.size)
    images = [Image.fromarray(v) for v in views]
    theirs = processor.image_processor(images=images, return_tensors="pt").pixel_values
    ours = train.to_patches(views, trainer.size.patch)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_loss_is_that_of_the_plain_model(trainer: train.Trainer) -> None:
    """Batched vision, own positions and gathered features give the real forward's loss."""
    batch = trainer.lessons.batch(1)
    rows = [max(batch.rows, key=lambda r: len(r.images)), batch.rows[-1]]
    plain = build_model(trainer.tokenizer, trainer.size, 0)
    plain.load_state_dict(trainer.model.state_dict())
    plain.eval()
    grid = trainer.size.view // trainer.size.patch
    theirs = 0.0
    with torch.no_grad():
        features, deep, _, _ = trainer.see(batch)
        ours = float(trainer.tell(rows, features, deep, defaultdict(list))[0])
        for row in rows:
            ids = torch.from_numpy(row.ids)[None]
            logits = plain(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=train.to_patches(batch.views[list(row.images)], trainer.size.patch),
                image_grid_thw=torch.tensor([[1, grid, grid]] * len(row.images)),
                mm_token_type_ids=(ids == trainer.image_token).int(),
            ).logits[0]
            said = torch.from_numpy(row.roles > 0)[1:]
            theirs += float(F.cross_entropy(logits[:-1][said], ids[0, 1:][said], reduction="sum"))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_resumed_run_is_an_unbroken_one(tmp_path: Path) -> None:
    """Four steps, and two, a kill, and two more, end in the same weights."""

    def run(out: Path, *stops: int) -> torch.Tensor:
        out.mkdir()
        for stop in stops:
            one = train.Trainer("small", seed=3, lr=2e-3, scenes=2, device="cpu")
            one.load(out)
            while one.step < stop:
                one.train_step(4, defaultdict(list))
            one.save(out)
        return torch.cat([p.detach().flatten() for p in one.model.parameters()])

    torch.testing.assert_close(run(tmp_path / "a", 4), run(tmp_path / "b", 2, 4), atol=0, rtol=0)


def test_the_command_trains_and_writes_a_checkpoint(tmp_path: Path) -> None:
    """The command a user would run, for three steps, and its model loads as any checkpoint."""
    from speceyes.models.hf import HFModel

    train.main(
        ["small", "--out", str(tmp_path), "--steps", "3", "--scenes", "2", "--device", "cpu"]
    )
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["steps"] == 3
    model = HFModel.from_pretrained(tmp_path / "model", device="cpu")
    assert model.seen_size(Image.new("RGB", (1024, 1024))) == (80, 80)


@pytest.mark.parametrize("size", [LARGE_SIZE, SMALL_SIZE])
def test_transcripts_are_what_the_phases_send(size: Size) -> None:
    """The text a transcript is written in is the chat template's, for every kind of turn."""
    from speceyes.tiny.training.models import build_tokenizer

    processor = build_processor(build_tokenizer(), size)
    query = Query("What colour is the large ring?", (Image.new("RGB", (8, 8)),), ("red", "blue"))
    dialect = DeepEyesDialect()
    for conversation in (
        dialect.open(query, [Zoom()]),
        dialect.ask_judge(query, [Zoom()]),
        dialect.ask_direct(query, [Zoom()]),
    ):
        messages = [
            {
                "role": m.role,
                "content": [
                    {"type": "text", "text": p} if isinstance(p, str) else {"type": "image"}
                    for p in m.content
                ],
            }
            for m in conversation.messages
        ]
        theirs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert transcripts.chat_text(conversation) == theirs


@pytest.mark.parametrize("name", ["large", "small_zoom"])
def test_pieces_are_tokenised_as_the_whole(name: str) -> None:
    """Joining the tokens of the pieces gives the tokens of the joined text."""
    trainer = train.Trainer(name, seed=2, lr=1e-3, scenes=6, device="cpu")
    rng = np.random.default_rng(1)
    pad = trainer.image_token
    for _ in range(6):
        scene = scenes.draw_scene(rng)
        for title, told, _ in trainer.lessons.transcripts(scene, rng, True, False):
            row = trainer.lessons.row(title, told, list(range(len(told.regions))))
            whole = trainer.tokenizer("".join(p.text for p in told.pieces))["input_ids"]
            expanded = [t for x in whole for t in [x] * (16 if x == pad else 1)]
            assert row.ids.tolist() == expanded


def test_calls_in_transcripts_are_read_by_the_dialect() -> None:
    """What the agent is taught to write is what the dialect parses, and the box holds the look."""
    rng = np.random.default_rng(6)
    dialect = DeepEyesDialect()
    checked = 0
    while checked < 40:
        scene = scenes.draw_scene(rng)
        question = scenes.ask(scene, scenes.draw_kind(rng), rng)
        if question is None or not question.looks:
            continue
        told = transcripts.agent(question, 112)
        said = "".join(p.text for p in told.pieces if p.role != "given")
        turns = [t for t in said.split("<|im_end|>") if t]
        assert len(turns) == len(question.looks) + 1
        for turn, look in zip(turns, question.looks, strict=False):
            [call] = dialect.parse(turn).calls
            x0, y0, x1, y1 = call.arguments["bbox_2d"]
            assert x0 < look.x * 112 < x1
            assert y0 < look.y * 112 < y1
        assert dialect.parse(turns[-1]).answer == question.answer
        checked += 1


def test_the_drafter_is_taught_what_a_draft_with_depth_asks() -> None:
    """Its call is read by the dialect and holds what is asked about; the draft behind it is asked
    as `SpeculativeAnswerer` does, with the crop behind the scene.
    """
    rng = np.random.default_rng(8)
    scene = scenes.draw_scene(rng)
    checked = 0
    while checked < 20:
        question = scenes.ask(scene, scenes.draw_kind(rng), rng)
        if question is None:
            continue
        turn = "".join(p.text for p in transcripts.zoom(question, 80).pieces if p.role != "given")
        said = DeepEyesDialect().parse(turn.removesuffix("<|im_end|>"))
        if not question.looks:
            assert said.answer == question.answer
            continue
        look = question.looks[0]
        x0, y0, x1, y1 = said.calls[0].arguments["bbox_2d"]
        assert x0 < look.x * 80 < x1 and y0 < look.y * 80 < y1
        told = transcripts.draft(question, 80, looks=1)
        assert told.regions[1] == (x0 / 80, y0 / 80, x1 / 80, y1 / 80)
        images = (Image.new("RGB", (8, 8)),) * 2
        answerer = SpeculativeAnswerer(ScriptedModel("x"))
        asked = answerer.conversation(Query(question.text, images))
        assert told.pieces[0].text == transcripts.chat_text(asked)
        checked += 1


def test_a_crop_of_something_else_has_no_findings() -> None:
    """Nothing is named in it, so that no probe is told that what was asked about is there."""
    lessons = train.Trainer("small_zoom", seed=2, lr=1e-3, scenes=6, device="cpu").lessons
    rng = np.random.default_rng(4)
    seen = 0
    for _ in range(12):
        scene = scenes.draw_scene(rng)
        for name, _, question in lessons.transcripts(scene, rng, True, False):
            if name == "deep wrong":
                seen += 1
                [look] = question.looks
                assert question.findings == ("", "")
                assert look.name == "another thing"
            elif name.startswith("deep"):
                assert len(question.looks) == 1
    assert seen


def test_training_starts_from_given_weights() -> None:
    trainer = train.Trainer("small_zoom", seed=1, lr=1e-3, scenes=2, device="cpu")
    trainer.begin_with(tiny.SMALL)
    known = train.Qwen3VLForConditionalGeneration.from_pretrained(tiny.SMALL, dtype=torch.float32)
    for ours, theirs in zip(trainer.model.parameters(), known.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)


def test_prompts_are_those_the_pair_was_trained_on() -> None:
    """A changed prompt means training the pair again: this fails until that is done."""
    from speceyes.tiny.training.models import phrase_tokens, system_text

    trained_on = "8163dda0648ec6f9"
    now = texts.fingerprint(system_text(), *phrase_tokens())
    assert now == trained_on, (
        "a prompt or the zoom tool's schema has changed since the tiny pair was trained: train it "
        f"again (python -m speceyes.tiny.training.train) and put {now!r} here"
    )
