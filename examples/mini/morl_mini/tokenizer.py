"""A small tokenizer trained on the world's texts: byte-level BPE, Qwen2.5-VL's special tokens, ChatML."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from morl_mini.draw import SIDE
from morl_mini.tasks import OCR_WORDS
from morl_mini.world import KINDS, LEVELS, World

VOCABULARY = 1024
"""The most tokens."""
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PLAIN = ("<think>", "</think>", "/no_think")
"""Single tokens that decoding keeps: verifiers read the answer after `</think>`."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' %}{{ part['text'] }}
{%- else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>{% endif -%}
{%- endfor -%}
{%- endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif -%}"""

# Pieces that no token crosses: a JSON key with the marks around it, a word, a number, a run of closing marks.
_PIECES = "|".join(
    (
        r'[\]}\[{", ]*"[a-z_0-9]+": ?["\[{]*',
        r"\\boxed\{(?:\[00:)?",
        r", (?:00:)?",
        r" ?[A-Za-z]+",
        r"[0-9]{1,3}",
        r'[\]}"]+',
        r" ?[^\sA-Za-z0-9]",
        r"\s+",
    )
)


def corpus() -> Iterator[str]:
    """Texts of the first rows of most kinds and levels, and every coordinate."""
    for kind, level in product(KINDS, LEVELS):
        if (kind, level) == ("ocr", 3) or kind in ("element", "point_colour", "act_colour"):
            continue  # codes contain no words, the others no new ones
        world = World(kind, "train", level)  # type: ignore[arg-type]
        for index in range(400):
            draft = world.draft(index)
            yield from (draft.question, draft.answer, draft.thought)
            yield from (draft.extra[side] for side in ("chosen", "rejected") if side in draft.extra)
    rare = (*map(str, range(SIDE + 1)), *OCR_WORDS, "user\n", "assistant\n", "system\n")
    for text in rare:
        yield from [text] * 40


def build_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast`, the same in every process."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(PLAIN),
        min_frequency=8,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    bpe.add_tokens([AddedToken(token, normalized=False) for token in PLAIN])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
