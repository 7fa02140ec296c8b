"""Statistics of a reward model that `morl rm` writes beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CALIBRATION = "reward.json"
"""File name in a reward model's folder."""


def read_calibration(folder: Path) -> Mapping[str, Any]:
    """The statistics of the reward model in `folder`; empty for a model that `morl rm` did not train."""
    file = folder / CALIBRATION
    statistics: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    return statistics
