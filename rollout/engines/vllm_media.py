"""Images and videos for vLLM, whose own processor makes of them what the learner was given.

A prompt comes with one placeholder for each; vLLM resizes, cuts and expands with the checkpoint's processor, told
the same sizes. Whether that gave the very tokens that the learner has is looked at for every prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morl.errors import RunError
from morl.rollout.engine import Request


def sees(model: str) -> bool:
    """Whether the checkpoint in the folder `model` is of a model that sees."""
    config = Path(model) / "config.json"
    return config.is_file() and "vision_config" in json.loads(config.read_text(encoding="utf-8"))


def engine_arguments(
    model: str, images: int | None, videos: int | None, image_pixels: int | None, video_pixels: int | None
) -> dict[str, Any]:
    """What vLLM is started with: how many of each a prompt has, and of how many pixels, at most."""
    if not sees(model):
        return {"skip_tokenizer_init": True}
    counts = {"image": images, "video": videos}
    pixels = {"images_kwargs": image_pixels, "videos_kwargs": video_pixels}
    return {
        # Its processor wants the tokenizer.
        "skip_tokenizer_init": False,
        "limit_mm_per_prompt": {kind: count for kind, count in counts.items() if count is not None},
        # It reserves memory for the largest image that there can be. Each request names its own sizes, in this same
        # form: what is called max_pixels would win over them.
        "mm_processor_kwargs": {
            kind: {"size": {"shortest_edge": 1, "longest_edge": most}}
            for kind, most in pixels.items()
            if most is not None
        },
    }


def vllm_prompt(request: Request) -> dict[str, Any]:
    """A request's prompt in vLLM's form, the same for all its samples."""
    from vllm.inputs import TokensPrompt

    pixels = request.prompt.pixels
    if pixels is None:
        return dict(TokensPrompt(prompt_token_ids=list(request.prompt.token_ids_T)))
    data: dict[str, Any] = {}
    if pixels.images:
        data["image"] = list(pixels.images)
    if pixels.videos:
        data["video"] = [(video.frames, video.metadata) for video in pixels.videos]
    return dict(
        TokensPrompt(
            prompt_token_ids=list(pixels.prompt_ids_T),
            multi_modal_data=data,
            mm_processor_kwargs=dict(pixels.options),
            # Otherwise each sample would have its images hashed again.
            multi_modal_uuids={
                "image": [_digest(image.tobytes(), image.size) for image in pixels.images],
                "video": [_digest(video.frames.tobytes(), video.frames.shape, video.fps) for video in pixels.videos],
            },
        )
    )


def check_expanded(request: Request, expanded: Sequence[int] | None) -> None:
    """Raises: RunError when vLLM's prompt is not the one that the learner has."""
    if request.prompt.pixels is not None and tuple(expanded or ()) != request.prompt.token_ids_T:
        raise RunError(
            f"request {request.id!r}: vLLM made {len(expanded or ())} tokens of a prompt with images that has "
            f"{len(request.prompt.token_ids_T)} by the checkpoint's processor; other limits of size in rollout.options?"
        )


def _digest(data: bytes, *more: Any) -> str:
    return hashlib.blake2b(data + repr(more).encode(), digest_size=16).hexdigest()
