"""Model checkpoints: finding and loading them, the chat codec, and the processor of images and videos."""

from __future__ import annotations

from morl.model.calibration import CALIBRATION, read_calibration
from morl.model.chat_codec import ChatCodec
from morl.model.loading import copy_tokenizer_files, load_policy, load_reward_model, resolve_model
from morl.model.media_processor import MediaProcessor, check_frames, engine_options

__all__ = [
    "CALIBRATION",
    "ChatCodec",
    "MediaProcessor",
    "check_frames",
    "copy_tokenizer_files",
    "engine_options",
    "load_policy",
    "load_reward_model",
    "read_calibration",
    "resolve_model",
]
