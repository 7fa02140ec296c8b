"""What `morl rm` has measured of a reward model, in a file beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CALIBRATION = "reward.json"
"""Name of the file in the folder of a reward model."""


def read_calibration(folder: Path) -> Mapping[str, Any]:
    """What `morl rm` found out about the model in `folder`; empty for a model that comes from elsewhere."""
    file = folder / CALIBRATION
    found: dict[str, Any] = json.loads(file.read_bytes()) if file.is_file() else {}
    return found
