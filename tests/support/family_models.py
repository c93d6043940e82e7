"""Tiny checkpoints of every family, of its real classes: only the sizes are shrunk.

Configurations, models and processors are those of transformers; the tokenizers are trained on a
few sentences and carry the family's own special tokens, and the chat templates write the
family's published format. What the installed transformers lacks is named, not guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from support.random_models import CORPUS

VOCABULARY = 416
LONGEST = 4096


@dataclass(frozen=True)
class Chat:
    """A chat template, by what differs between families.

    Args:
        turn: What a turn looks like; "{role}" and "{content}" are filled in. By role where they
            differ; a role that is missing is refused by the template, as some do.
        image: What an image is written as.
        begin: What begins the assistant's turn.
        bos: Written before everything.
        images_first: Images are written before all text of their message.
        alternate: The template raises unless user and assistant take turns.
        merge_system: The system message is written at the beginning of the user's first turn.
    """

    turn: str | Mapping[str, str]
    image: str
    begin: str
    bos: str = ""
    images_first: bool = False
    alternate: bool = False
    merge_system: bool = False

    def jinja(self) -> str:
        shown = (
            "{%- if p.type == 'image' %}{{- " + repr(self.image) + " }}"
            "{%- else %}{{- p.text }}{%- endif %}"
        )
        parts = "{%- for p in m.content %}" + shown + "{%- endfor %}"
        if self.images_first:
            parts = (
                "{%- for p in m.content if p.type == 'image' %}" + shown + "{%- endfor %}"
                "{%- for p in m.content if p.type != 'image' %}" + shown + "{%- endfor %}"
            )
        out = ["{{- " + repr(self.bos) + " }}"] if self.bos else []
        rows = "messages"
        if self.merge_system:
            out.append(
                "{%- set said = namespace(system='') %}{%- if messages[0].role == 'system' %}"
                "{%- set said.system = messages[0].content[0].text + '\\n\\n' %}"
                "{%- set messages = messages[1:] %}{%- endif %}"
            )
            parts = "{%- if loop.first %}{{- said.system }}{%- endif %}" + parts
        out.append("{%- for m in " + rows + " %}")
        if self.alternate:
            out.append(
                "{%- set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
                "{%- for t in turns %}{%- if (t.role == 'user') != (loop.index0 % 2 == 0) %}"
                "{{- raise_exception('roles must alternate user/assistant/user/...') }}"
                "{%- endif %}{%- endfor %}"
            )
        turns = self.turn
        if isinstance(turns, str):
            turns = {
                role: turns.replace("{role}", role) for role in ("system", "user", "assistant")
            }
        for i, (role, turn) in enumerate(turns.items()):
            before, after = turn.split("{content}")
            out.append("{%- " + ("if" if i == 0 else "elif") + f" m.role == '{role}' %}}")
            out.append("{{- " + repr(before) + " }}" + parts + "{{- " + repr(after) + " }}")
        out.append(
            "{%- else %}{{- raise_exception('only the roles "
            + ", ".join(turns)
            + " are supported') }}"
            "{%- endif %}{%- endfor %}"
        )
        out.append("{%- if add_generation_prompt %}{{- " + repr(self.begin) + " }}{%- endif %}")
        return "".join(out)


Ids = Mapping[str, int]


@dataclass(frozen=True)
class Kind:
    """How a family is built.

    Args:
        title: As users know it.
        model: The model's class, by name.
        processor: The processor's class, by name.
        config: From ids of tokens to the configuration.
        parts: From the tokenizer to the processor's other arguments.
        special: The special tokens; the first is padding, the second ends a turn.
        named: Tokens that the processor reads from the tokenizer, by attribute.
        chat: The chat template; None where the family has none.
        bos: The token that the tokenizer puts before everything; "" for none.
        several: Whether a conversation may show several images.
        note: What users must know.
        embeddings: Standard deviation of the embeddings; Gemma multiplies them by 8.
        strings: The chat template takes content as strings, not in parts.
        slow: One of the many that are tested with the slow tests.
    """

    title: str
    model: str
    processor: str
    config: Callable[[Ids], Any]
    parts: Callable[[Any], dict[str, Any]]
    special: tuple[str, ...]
    chat: Chat | str | None
    named: Mapping[str, str] = field(default_factory=dict)
    bos: str = ""
    several: bool = True
    note: str = ""
    embeddings: float = 0.5
    strings: bool = False
    slow: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes that the installed transformers doesn't have."""
        return tuple(n for n in (self.model, self.processor) if not hasattr(transformers, n))


def get(name: str) -> Any:
    """A class of transformers by name: not every release in the range has all of them."""
    return getattr(transformers, name)


def tokenizer_of(kind: Kind) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys((*kind.special, *kind.named.values(), *filter(None, [kind.bos]))))
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 16 - len(names),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    bpe.add_special_tokens(names)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=kind.special[0],
        eos_token=kind.special[1],
        **({"bos_token": kind.bos} if kind.bos else {}),
        extra_special_tokens=dict(kind.named),
        model_max_length=LONGEST,
    )


def build_kind(kind: Kind, seed: int = 0) -> tuple[Any, Any]:
    """(model, processor), the weights drawn from `seed`."""
    tokenizer = tokenizer_of(kind)
    chat = kind.chat.jinja() if isinstance(kind.chat, Chat) else kind.chat
    processor = get(kind.processor)(
        tokenizer=tokenizer, **kind.parts(tokenizer), **({"chat_template": chat} if chat else {})
    )
    if chat and getattr(processor, "chat_template", None) is None:
        tokenizer.chat_template = chat  # where this family's checkpoints have it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = kind.config(tokenizer.get_vocab())
        assert len(tokenizer) <= config.get_text_config().vocab_size
        model = get(kind.model)(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, 1.2 / weight[0].numel() ** 0.5)
                elif "gate" in name:  # closed in fresh models, so that images don't count
                    weight.fill_(0.5)
            model.get_input_embeddings().weight.normal_(0.0, kind.embeddings)
            model.get_output_embeddings().weight.normal_(0.0, 0.3)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        repetition_penalty=1.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, processor


def save_kind(kind: Kind, directory: Path) -> Path:
    """Writes the checkpoint, as `from_pretrained` reads it."""
    model, processor = build_kind(kind)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory
