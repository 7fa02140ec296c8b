"""The miniature's untrained checkpoint: a lossless tokenizer with short answers, and a model that fits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from morl_mini import KINDS, LEVELS, World
from morl_mini.tokenizer import SPECIAL, VOCABULARY
from morl_mini.untrained_model import build

MOST = {
    "math": 3, "read": 56, "retell": 15, "caption": 56, "box": 12, "locate": 2, "count": 3, "choice": 1, "ocr": 5,
    "chart": 2, "describe": 15, "elements": 90, "element": 60, "point": 5, "point_colour": 5,
    "gui_action": 13, "act_colour": 13, "temporal": 5,
}  # fmt: skip
"""Tokens of the longest answer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(folder)


def test_the_tokenizer_loses_nothing_and_answers_are_short(processor: Any) -> None:
    tokenizer = processor.tokenizer
    assert set(MOST) == set(KINDS)
    for kind, most in MOST.items():
        for level in LEVELS:
            for index in range(40):
                row = World(kind, "held_out", level).draft(index)
                for text in (row.question, row.answer, f"<think>{row.thought}</think>{row.answer}"):
                    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
                assert len(tokenizer(row.answer)["input_ids"]) <= most


@pytest.mark.parametrize("text", ["ÄÖ 漢字 🙂\n\t", '{"a":[1,2]}  \\boxed{[00:61]}', "x" * 50, "], \"'}{ 0001234 "])
def test_the_tokenizer_loses_nothing_of_any_text(processor: Any, text: str) -> None:
    assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_numbers_of_the_grid_words_and_json_are_single_tokens(processor: Any) -> None:
    pieces = ("red", " circle", '[{"label": "', '", "bbox_2d": [', "\\boxed{", "<think>")
    words = [*map(str, range(113)), *pieces, *SPECIAL]
    assert [word for word in words if len(processor.tokenizer(word)["input_ids"]) != 1] == []
    assert len(processor.tokenizer) <= VOCABULARY


def test_tokenizer_and_weights_are_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    for name in ("tokenizer.json", "model.safetensors", "config.json", "processor_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_an_image_is_16_tokens_of_which_none_is_resized_and_a_clip_4_for_two_frames(processor: Any) -> None:
    def tokens(kind: str, pad: str, **media: Any) -> tuple[Any, int]:
        content = [{"type": KINDS[kind].media}, {"type": "text", "text": World(kind)[0]["question"]}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[text], return_tensors="pt", **media)
        return inputs, int((inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids(pad)).sum())

    image, count = tokens("box", "<|image_pad|>", images=[World("box")[0]["image"]])
    assert count == 16
    assert image["image_grid_thw"].tolist() == [[1, 8, 8]]
    frames = np.stack([np.asarray(frame) for frame in World("temporal", level=2)[0]["video"]["frames"]])
    metadata = [{"fps": 1.0, "total_num_frames": len(frames)}]
    clip, count = tokens("temporal", "<|video_pad|>", videos=[frames], video_metadata=metadata)
    assert count == 16
    assert clip["video_grid_thw"].tolist() == [[4, 4, 4]]
    assert clip["second_per_grid_ts"].tolist() == [2.0]


def test_a_chat_reads_as_chatml(processor: Any) -> None:
    chat = [
        {"role": "system", "content": "be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "read the text."}]},
        {"role": "assistant", "content": "cake"},
        {"role": "user", "content": "again."},
    ]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nbe brief.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>read the text.<|im_end|>\n"
        "<|im_start|>assistant\ncake<|im_end|>\n"
        "<|im_start|>user\nagain.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_model_is_a_small_multimodal_qwen2_5_vl(folder: Path, processor: Any) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert 2e6 < sum(parameter.numel() for parameter in model.parameters()) < 4e6
    rows = [World("box")[index] for index in range(2)]
    text = "<|vision_start|><|image_pad|><|vision_end|>box the red circle."
    inputs = processor(text=[text] * 2, images=[row["image"] for row in rows], return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    assert torch.isfinite(logits).all()
    assert (logits[0] - logits[1]).abs().max() > 1e-3
