"""Pictures in prompts: from files to what the model takes, by the checkpoint's own processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl.errors import DataError, UsageError
from morl.types import Features

_TEXT_KEYS = {"input_ids", "attention_mask", "mm_token_type_ids", "second_per_grid_ts"}
"""What a processor returns beside pictures; times of frames are in the positions already."""


@dataclass(frozen=True, slots=True)
class MediaProcessor:
    """Resizes, cuts and places the pictures of a prompt as the checkpoint was trained to see them."""

    processor: Any
    positions: Any
    """The model's own computation of M-RoPE positions."""

    @classmethod
    def load(cls, folder: Path) -> MediaProcessor | None:
        """The processor of a checkpoint folder; None for a model that sees nothing.

        Raises: UsageError when the model places its tokens in a way that is not known here.
        """
        guard_torchvision()
        import torch
        from transformers import AutoConfig, AutoModel, AutoProcessor

        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "vision_config", None) is None:
            return None
        with torch.device("meta"):  # only its arithmetic is wanted, not its weights
            model = AutoModel.from_config(config)
        if not hasattr(model, "get_rope_index"):
            raise UsageError(
                f"model.path: pictures are supported for models with M-RoPE, not for '{config.model_type}'"
            )
        return cls(AutoProcessor.from_pretrained(folder), model.get_rope_index)

    def encode(self, messages: Sequence[Mapping[str, Any]], media: Sequence[Any]) -> tuple[tuple[int, ...], Features]:
        """Token ids of a chat up to the answer, with a token for each piece of a picture, and the pictures.

        Args:
            messages: their typed parts name the media in order.
            media: paths or PIL images.

        Raises: DataError when a picture cannot be read or does not fit.
        """
        kinds = [
            part["type"]
            for message in messages
            if not isinstance(message["content"], str)
            for part in message["content"]
            if part["type"] != "text"
        ]
        if kinds.count("video"):
            raise DataError("videos are not supported by this version")
        if len(kinds) != len(media):
            raise DataError(f"the messages name {len(kinds)} pictures, and there are {len(media)}")
        text = self.processor.apply_chat_template([dict(message) for message in messages], add_generation_prompt=True)
        images = [load_picture(item) for item in media]
        try:
            made = self.processor(text=[text], images=images, return_tensors="pt")
        except ValueError as error:
            raise DataError(f"the pictures cannot be used: {error}") from error
        tensors = {name: value for name, value in made.items() if name not in _TEXT_KEYS}
        positions, _ = self.positions(
            made["input_ids"],
            mm_token_type_ids=made["mm_token_type_ids"],
            **{name: value for name, value in tensors.items() if name.endswith("_grid_thw")},
        )
        return tuple(made["input_ids"][0].tolist()), Features(tensors, positions[:, 0])


def load_picture(source: Any) -> Any:
    """An RGB picture from a path or a PIL image. Raises: DataError with the reason."""
    from PIL import Image

    try:
        picture = Image.open(source) if isinstance(source, str | Path) else source
        if not isinstance(picture, Image.Image):
            raise DataError(f"a picture is a path or a PIL image, not {type(source).__name__}")
        return picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"picture {source!r:.80} cannot be read: {error}") from error
