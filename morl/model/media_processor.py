"""What a model that sees is given: its checkpoint's own processor resizes, cuts and places images and videos."""

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
"""What a processor returns beside images; times of frames are in the positions already."""


@dataclass(frozen=True, slots=True)
class MediaProcessor:
    """Makes of the images of a prompt what the checkpoint was trained to see."""

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
            raise UsageError(f"model.path: images are supported for models with M-RoPE, not for '{config.model_type}'")
        return cls(AutoProcessor.from_pretrained(folder), model.get_rope_index)

    @property
    def placeholder_ids(self) -> dict[str, int]:
        """The token that stands for each piece of an image, and of a video."""
        return {"image": self.processor.image_token_id, "video": self.processor.video_token_id}

    def encode(self, messages: Sequence[Mapping[str, Any]], media: Sequence[Any]) -> Encoded:
        """A chat up to the answer, with a token for each piece of an image or video.

        Args:
            messages: their typed parts name the media in order.
            media: images and videos, or what they can be made of.

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
            raise DataError(f"the messages name {len(kinds)} images, and there are {len(media)}")
        items = [KINDS[kind].of(item) for kind, item in zip(kinds, media, strict=True)]
        images = [item for item in items if isinstance(item, Image)]
        videos = [item for item in items if isinstance(item, Video)]
        decoded = tuple(image.load() for image in images)
        clips = tuple(Clip(video.load(), video.shown_fps) for video in videos)
        options = self._options(images, videos)
        text = self.processor.apply_chat_template([dict(message) for message in messages], add_generation_prompt=True)
        short_ids = self._short_ids(text, kinds)
        try:
            made = self.processor(
                text=[text],
                images=list(decoded) or None,
                videos=[clip.frames for clip in clips] or None,
                return_tensors="pt",
                **options,
                **({"video_metadata": [clip.metadata for clip in clips]} if clips else {}),
            )
        except ValueError as error:
            raise BadMediaError(f"the images cannot be used: {error}") from error
        ids = tuple(made["input_ids"][0].tolist())
        tensors = {name: value for name, value in made.items() if name not in _TEXT_KEYS}
        self._check_counts(ids, short_ids, kinds, items, tensors)
        return Encoded(ids, Features(tensors, self._positions(made)), Pixels(short_ids, decoded, clips, options))

    def _options(self, images: Sequence[Image], videos: Sequence[Video]) -> dict[str, Any]:
        """Arguments of the processor's call: limits of size, and that frames were chosen already.

        Sizes are named although they may be the processor's own: an engine may be set up for larger ones.
        """
        options: dict[str, Any] = {}
        if images:
            size = _size(self.processor.image_processor, [(image.limits, 1) for image in images])
            options["images_kwargs"] = {"size": size}
        if videos:
            processor = self.processor.video_processor
            steps = [(video.limits, -(-len(video.shown) // processor.temporal_patch_size)) for video in videos]
            own: dict[str, Any] = {"do_sample_frames": False, "size": _size(processor, steps)}
            if hasattr(processor, "cap_pixels_per_frame"):  # its default is about to change, which must not change runs
                own["cap_pixels_per_frame"] = bool(processor.cap_pixels_per_frame)
            options["videos_kwargs"] = own
        return options

    def _short_ids(self, text: str, kinds: Sequence[str]) -> tuple[int, ...]:
        """Token ids with one placeholder for each image or video. Raises: DataError when the text has its own."""
        ids = tuple(self.processor.tokenizer(text)["input_ids"])
        for kind, placeholder in self.placeholder_ids.items():
            if ids.count(placeholder) != kinds.count(kind):
                token = self.processor.tokenizer.convert_ids_to_tokens(placeholder)
                raise DataError(
                    f"the prompt has {ids.count(placeholder)} times {token}, and {kinds.count(kind)} of kind {kind}: "
                    "text of the row must not hold that token, and the chat template has to write it for each part"
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
        """Each placeholder must have become as many tokens as its image has features, within its limit."""
        merged = self.processor.image_processor.merge_size**2
        counts = {
            kind: iter((tensors[f"{kind}_grid_thw"].prod(-1) // merged).tolist() if kind in kinds else ())
            for kind in KINDS
        }
        kind_of = {placeholder: kind for kind, placeholder in self.placeholder_ids.items()}
        wanted: list[int] = []
        order = iter(items)
        for token in short_ids:
            if token not in kind_of:
                wanted.append(token)
                continue
            count, item = next(counts[kind_of[token]]), next(order)
            most = item.limits.max_tokens
            if most is not None and count > most:
                raise BadMediaError(f"{item.name} takes {count} tokens at the least, more than media.max_tokens={most}")
            wanted += [token] * count
        if tuple(wanted) != tuple(ids):
            raise DataError(f"the processor wrote {len(ids)} tokens, and the features are of {len(wanted)}")

    def _positions(self, made: Mapping[str, Any]) -> torch.Tensor:
        """M-RoPE positions of the prompt, `(3, T)`.

        What follows an image or video begins after the largest position in it, in time too. So the models
        were trained, so vLLM counts, and so an answer goes on from its prompt; transformers forgets the time.
        """
        grids = {name: value for name, value in made.items() if name.endswith("_grid_thw")}
        if "second_per_grid_ts" in made:
            # Of double precision, as in vLLM: a position that falls on a whole number must fall on the same one.
            grids["second_per_grid_ts"] = made["second_per_grid_ts"].double()
        types = made["mm_token_type_ids"]
        positions, _ = self.positions(made["input_ids"], mm_token_type_ids=types, **grids)
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
    """What an engine with a processor of its own is started with, for prompts of these objectives.

    Args:
        engine: its name.
        media: the model's processor; None if it sees nothing.
        specs: the objectives, evaluation sets among them.
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
    # For text alone too: vLLM leaves the vision tower out of a model without any, and new weights bring it.
    options["images_per_prompt"] = max(1, options["images_per_prompt"])
    return options


def check_frames(media: MediaProcessor | None, specs: Mapping[str, ObjectiveSpec]) -> None:
    """See that rewards read pixels of the resized image in the size that the model sees.

    Args:
        media: the model's processor; None if it sees nothing.
        specs: objectives by their place in the recipe.

    Raises: UsageError when a term with `frame: absolute_resized` resizes otherwise.
    """
    if media is None:
        return
    processor = media.processor.image_processor
    for place, spec in specs.items():
        for number, term in enumerate(spec.rewards):
            options = inspect.signature(REWARDS.load(term.use)).parameters
            if term.options.get("frame") != "absolute_resized" or "max_pixels" not in options:
                continue
            size = _size(processor, [(spec.data.media.limits, 1)])
            sees = {
                "factor": processor.patch_size * processor.merge_size,
                "min_pixels": size["shortest_edge"],
                "max_pixels": size["longest_edge"],
            }
            reads = {name: term.options.get(name, options[name].default) for name in sees}
            if sees != reads:
                wanted = ", ".join(f"{name}: {value}" for name, value in sees.items() if reads[name] != value)
                raise UsageError(
                    f"{place}.rewards.{number}: 'absolute_resized' is not how the model sees images: "
                    f"'{term.use}' resizes otherwise than the processor; set {wanted}"
                )


def _size(processor: Any, wanted: Sequence[tuple[Limits, int]]) -> dict[str, int]:
    """Pixels of an image or frame, at least and at most, for a processor's call; its own where nothing is wanted.

    Args:
        processor: of images, or of videos.
        wanted: for each image or video of a prompt its limits, and its length in steps of time.
    """
    own = processor.size
    piece = (processor.patch_size * processor.merge_size) ** 2
    least = [limits.min_pixels for limits, _ in wanted if limits.min_pixels is not None]
    most = [limits.max_pixels for limits, _ in wanted if limits.max_pixels is not None]
    most += [limits.max_tokens * piece // steps for limits, steps in wanted if limits.max_tokens is not None]
    longest = max(piece, min(most)) if most else own["longest_edge"]
    return {"shortest_edge": min(longest, max(least, default=own["shortest_edge"])), "longest_edge": longest}
