"""Images and videos of rows: finding, checking and decoding them."""

from __future__ import annotations

from morl.media.items import KINDS, UNLIMITED, Image, Limits, Video, upright_size, without_media

__all__ = [
    "KINDS",
    "UNLIMITED",
    "Image",
    "Limits",
    "Video",
    "upright_size",
    "without_media",
]
