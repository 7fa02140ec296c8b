"""Images and videos of rows: what names them, what is wrong with them, and their pixels when they are wanted."""

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
