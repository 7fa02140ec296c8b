"""Images and videos for vLLM, whose processor must reproduce the learner's inputs.

A prompt has one placeholder for each; vLLM resizes, cuts and expands with the checkpoint's processor and
the same size limits. For every prompt, the resulting tokens are compared with the learner's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morl.errors import RunError
from morl.rollout.engine import Request


def is_multimodal(model: str) -> bool:
    """Whether the folder `model` holds a checkpoint of a multimodal model."""
    config = Path(model) / "config.json"
    return config.is_file() and "vision_config" in json.loads(config.read_text(encoding="utf-8"))


def engine_arguments(
    model: str, images: int | None, videos: int | None, image_pixels: int | None, video_pixels: int | None
) -> dict[str, Any]:
    """Arguments of vLLM: the most images and videos in a prompt, and the most pixels of each."""
    if not is_multimodal(model):
        return {"skip_tokenizer_init": True}
    counts = {"image": images, "video": videos}
    pixels = {"images_kwargs": image_pixels, "videos_kwargs": video_pixels}
    return {
        # The processor needs the tokenizer.
        "skip_tokenizer_init": False,
        "limit_mm_per_prompt": {kind: count for kind, count in counts.items() if count is not None},
        # vLLM reserves memory for the largest image possible. Each request states its sizes in this same form;
        # max_pixels here would override them.
        "mm_processor_kwargs": {
            kind: {"size": {"shortest_edge": 1, "longest_edge": most}}
            for kind, most in pixels.items()
            if most is not None
        },
    }


def vllm_prompt(request: Request) -> dict[str, Any]:
    """A request's prompt in vLLM's format, the same for all its samples."""
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
            # Otherwise vLLM would hash the images again for each sample.
            multi_modal_uuids={
                "image": [_digest(image.tobytes(), image.size) for image in pixels.images],
                "video": [_digest(video.frames.tobytes(), video.frames.shape, video.fps) for video in pixels.videos],
            },
        )
    )


def check_expanded(request: Request, expanded: Sequence[int] | None) -> None:
    """Raises: RunError when vLLM's prompt differs from the learner's."""
    if request.prompt.pixels is not None and tuple(expanded or ()) != request.prompt.token_ids_T:
        raise RunError(
            f"request {request.id!r}: vLLM expanded a prompt with images to {len(expanded or ())} tokens, the "
            f"checkpoint's processor to {len(request.prompt.token_ids_T)}; compare the size limits in rollout.options"
        )


def _digest(data: bytes, *properties: Any) -> str:
    return hashlib.blake2b(data + repr(properties).encode(), digest_size=16).hexdigest()
