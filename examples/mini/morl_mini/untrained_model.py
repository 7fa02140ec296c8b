"""An untrained checkpoint: `python -m morl_mini.untrained_model FOLDER` writes model, tokenizer and processor."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl_mini.clips import SIDE as FRAME
from morl_mini.draw import SIDE
from morl_mini.tokenizer import SPECIAL, VOCABULARY, build_tokenizer

TEXT: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
    "initializer_range": 0.04,
}
"""The language model, with heads of size 32."""
VISION: Mapping[str, Any] = {
    "depth": 4,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_heads": 4,
    "out_hidden_size": 192,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": SIDE,
    "fullatt_block_indexes": [3],
    "tokens_per_second": 2,
    "initializer_range": 0.04,
}
"""The vision encoder; a window is a whole image."""


def build(
    folder: Path, seed: int = 0, text: Mapping[str, Any] | None = None, vision: Mapping[str, Any] | None = None
) -> Path:
    """Write a random `Qwen2_5_VLForConditionalGeneration` with its processor; the same seed gives the same bytes.

    `text` and `vision` replace settings of `TEXT` and `VISION`.
    """
    guard_torchvision()
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = build_tokenizer()
    _processor(tokenizer).save_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            **(text or {}),
        },
        vision_config={**VISION, **(vision or {})},
        tie_word_embeddings=False,
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        vision_token_id=ids["<|vision_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float()
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    return folder


def _processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"min_pixels": FRAME * FRAME, "max_pixels": 4 * SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        # Frames come at one per second; none is dropped.
        video_processor=Qwen2VLVideoProcessor(**pixels, do_sample_frames=False),
        chat_template=tokenizer.chat_template,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    build(options.folder, options.seed)


if __name__ == "__main__":
    main()
