"""Images and videos of prompts, prepared by the processor of a multimodal model's checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morl.compat import guard_torchvision
from morl.data import PromptTemplate
from morl.errors import BadMediaError, DataError, UsageError
from morl.media import KINDS, Image, Limits, Video
from morl.registry import REWARDS
from morl.rollout import engine_info
from morl.types import Clip, Encoded, Features, Pixels

if TYPE_CHECKING:
    import torch

    from morl.recipe import ObjectiveSpec

_TEXT_KEYS = {"input_ids", "attention_mask", "mm_token_type_ids", "second_per_grid_ts"}
"""Outputs of a processor that are not image tensors; frame times are in the positions already."""


@dataclass(frozen=True, slots=True)
class MediaProcessor:
    """Turns the images and videos of a prompt into the model's inputs."""

    processor: Any
    positions: Any
    """The model's function for M-RoPE positions."""

    @classmethod
    def load(cls, folder: Path) -> MediaProcessor | None:
        """The processor of a checkpoint folder; None for a text model.

        Raises: UsageError when the model does not use M-RoPE.
        """
        guard_torchvision()
        import torch
        from transformers import AutoConfig, AutoModel, AutoProcessor

        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "vision_config", None) is None:
            return None
        with torch.device("meta"):  # only the position arithmetic is needed, not the weights
            model = AutoModel.from_config(config)
        if not hasattr(model, "get_rope_index"):
            raise UsageError(f"model.path: images need a model with M-RoPE, and '{config.model_type}' has none")
        return cls(AutoProcessor.from_pretrained(folder), model.get_rope_index)

    @property
    def placeholder_ids(self) -> dict[str, int]:
        """The placeholder tokens of images and of videos."""
        return {"image": self.processor.image_token_id, "video": self.processor.video_token_id}

    def encode(self, messages: Sequence[Mapping[str, Any]], media: Sequence[Any]) -> Encoded:
        """A chat up to the response, with placeholder tokens for its images and videos.

        Args:
            messages: their typed parts refer to the media in order.
            media: images and videos, or what `morl.media` makes them from.

        Raises: DataError when one of them cannot be read or does not fit.
        """
        kinds = [
            part["type"]
            for message in messages
            if not isinstance(message["content"], str)
            for part in message["content"]
            if part["type"] != "text"
        ]
        if len(kinds) != len(media):
            raise DataError(f"the messages refer to {len(kinds)} images, but there are {len(media)}")
        items = [KINDS[kind].of(item) for kind, item in zip(kinds, media, strict=True)]
        images = [item for item in items if isinstance(item, Image)]
        videos = [item for item in items if isinstance(item, Video)]
        decoded = tuple(image.load() for image in images)
        clips = tuple(Clip(video.load(), video.shown_fps) for video in videos)
        options = self._options(images, videos)
        text = self.processor.apply_chat_template([dict(message) for message in messages], add_generation_prompt=True)
        short_ids = self._short_ids(text, kinds)
        try:
            inputs = self.processor(
                text=[text],
                images=list(decoded) or None,
                videos=[clip.frames for clip in clips] or None,
                return_tensors="pt",
                **options,
                **({"video_metadata": [clip.metadata for clip in clips]} if clips else {}),
            )
        except ValueError as error:
            raise BadMediaError(f"the images cannot be used: {error}") from error
        ids = tuple(inputs["input_ids"][0].tolist())
        tensors = {name: value for name, value in inputs.items() if name not in _TEXT_KEYS}
        self._check_counts(ids, short_ids, kinds, items, tensors)
        return Encoded(ids, Features(tensors, self._positions(inputs)), Pixels(short_ids, decoded, clips, options))

    def _options(self, images: Sequence[Image], videos: Sequence[Video]) -> dict[str, Any]:
        """Arguments of the processor's call: size limits, and that frames are sampled already.

        Sizes are stated even if they are the processor's defaults: an engine may be set up for larger ones.
        """
        options: dict[str, Any] = {}
        if images:
            size = _size(self.processor.image_processor, [(image.limits, 1) for image in images])
            options["images_kwargs"] = {"size": size}
        if videos:
            processor = self.processor.video_processor
            steps = [(video.limits, -(-len(video.shown) // processor.temporal_patch_size)) for video in videos]
            video_options: dict[str, Any] = {"do_sample_frames": False, "size": _size(processor, steps)}
            if hasattr(processor, "cap_pixels_per_frame"):  # its default will change, which must not change runs
                video_options["cap_pixels_per_frame"] = bool(processor.cap_pixels_per_frame)
            options["videos_kwargs"] = video_options
        return options

    def _short_ids(self, text: str, kinds: Sequence[str]) -> tuple[int, ...]:
        """Token ids with one placeholder per image or video. Raises: DataError when the text has others."""
        ids = tuple(self.processor.tokenizer(text)["input_ids"])
        for kind, placeholder in self.placeholder_ids.items():
            if ids.count(placeholder) != kinds.count(kind):
                token = self.processor.tokenizer.convert_ids_to_tokens(placeholder)
                raise DataError(
                    f"the prompt has {ids.count(placeholder)} times {token}, but {kinds.count(kind)} of kind {kind}: "
                    "the row's text must not hold that token, and the chat template must write it for each part"
                )
        return ids

    def _check_counts(
        self,
        ids: Sequence[int],
        short_ids: Sequence[int],
        kinds: Sequence[str],
        items: Sequence[Image | Video],
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        """Check that each placeholder became as many tokens as its image has features, within the limit."""
        merged = self.processor.image_processor.merge_size**2
        counts = {
            kind: iter((tensors[f"{kind}_grid_thw"].prod(-1) // merged).tolist() if kind in kinds else ())
            for kind in KINDS
        }
        kind_of = {placeholder: kind for kind, placeholder in self.placeholder_ids.items()}
        expected: list[int] = []
        order = iter(items)
        for token in short_ids:
            if token not in kind_of:
                expected.append(token)
                continue
            count, item = next(counts[kind_of[token]]), next(order)
            most = item.limits.max_tokens
            if most is not None and count > most:
                raise BadMediaError(f"{item.name} takes at least {count} tokens, more than media.max_tokens={most}")
            expected += [token] * count
        if tuple(expected) != tuple(ids):
            raise DataError(f"the processor wrote {len(ids)} tokens, but the features need {len(expected)}")

    def _positions(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """M-RoPE positions of the prompt, `(3, T)`.

        The token after an image or video gets the position after the largest one in it, time included. The models
        were trained that way, vLLM counts that way, and the response continues so; transformers ignores the time axis.
        """
        grids = {name: value for name, value in inputs.items() if name.endswith("_grid_thw")}
        if "second_per_grid_ts" in inputs:
            # Double precision, as in vLLM: both must round a position to the same whole number.
            grids["second_per_grid_ts"] = inputs["second_per_grid_ts"].double()
        types = inputs["mm_token_type_ids"]
        positions, _ = self.positions(inputs["input_ids"], mm_token_type_ids=types, **grids)
        positions_3T: torch.Tensor = positions[:, 0].clone()
        types_T = types[0]
        starts = (types_T.diff() != 0).nonzero()[:, 0].tolist()
        after = 0
        for start, end in zip([0, *(s + 1 for s in starts)], [*(s + 1 for s in starts), len(types_T)], strict=True):
            run = positions_3T[:, start:end]
            run += after - int(run.min())
            after = int(run.max()) + 1
        return positions_3T


def engine_options(engine: str, media: MediaProcessor | None, specs: Iterable[ObjectiveSpec]) -> dict[str, Any]:
    """Options for an engine that runs the processor itself: the most images and videos per prompt, and their sizes.

    Args:
        engine: name of the engine.
        media: the model's processor; None for a text model.
        specs: the objectives, including evaluation sets.
    """
    specs = list(specs)
    if media is None or not engine_info(engine).takes_media_limits:
        return {}
    options: dict[str, Any] = {}
    processors = {"image": media.processor.image_processor, "video": media.processor.video_processor}
    for kind, processor in processors.items():
        counts = [PromptTemplate(spec.prompt).media_count(kind) for spec in specs]
        sizes = [_size(processor, [(spec.data.media.limits, 1)]) for spec in specs]
        options[f"{kind}s_per_prompt"] = max(counts, default=0)
        if any(counts):
            options[f"{kind}_pixels"] = max(
                size["longest_edge"] for count, size in zip(counts, sizes, strict=True) if count
            )
    # Even for text: with 0 images vLLM drops the vision tower, for which a weight sync still brings weights.
    options["images_per_prompt"] = max(1, options["images_per_prompt"])
    return options


def check_frames(media: MediaProcessor | None, specs: Mapping[str, ObjectiveSpec]) -> None:
    """Check that rewards with `frame: absolute_resized` resize images as the model's processor does.

    Args:
        media: the model's processor; None for a text model.
        specs: objectives by their key path in the recipe.

    Raises: UsageError when a term resizes differently.
    """
    if media is None:
        return
    processor = media.processor.image_processor
    for path, spec in specs.items():
        for number, term in enumerate(spec.rewards):
            options = inspect.signature(REWARDS.load(term.use)).parameters
            if term.options.get("frame") != "absolute_resized" or "max_pixels" not in options:
                continue
            size = _size(processor, [(spec.data.media.limits, 1)])
            by_processor = {
                "factor": processor.patch_size * processor.merge_size,
                "min_pixels": size["shortest_edge"],
                "max_pixels": size["longest_edge"],
            }
            by_reward = {name: term.options.get(name, options[name].default) for name in by_processor}
            if by_processor != by_reward:
                remedy = ", ".join(
                    f"{name}: {value}" for name, value in by_processor.items() if by_reward[name] != value
                )
                raise UsageError(
                    f"{path}.rewards.{number}: frame 'absolute_resized': '{term.use}' resizes images differently "
                    f"from the model's processor; set {remedy}"
                )


def _size(processor: Any, limits_and_steps: Sequence[tuple[Limits, int]]) -> dict[str, int]:
    """Smallest and largest number of pixels of an image or frame; the processor's defaults where no limit is set.

    Args:
        processor: of images, or of videos.
        limits_and_steps: for each image or video of a prompt its limits, and its length in temporal patches.
    """
    default = processor.size
    piece = (processor.patch_size * processor.merge_size) ** 2
    least = [limits.min_pixels for limits, _ in limits_and_steps if limits.min_pixels is not None]
    most = [limits.max_pixels for limits, _ in limits_and_steps if limits.max_pixels is not None]
    most += [limits.max_tokens * piece // steps for limits, steps in limits_and_steps if limits.max_tokens is not None]
    longest = max(piece, min(most)) if most else default["longest_edge"]
    return {"shortest_edge": min(longest, max(least, default=default["shortest_edge"])), "longest_edge": longest}
