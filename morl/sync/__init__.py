"""Weight sync from the learner to the engines, one transport per file."""

from __future__ import annotations

from morl.sync.choose_sync import check_sync, open_sync, plan_sync
from morl.sync.disk_sync import DiskSync
from morl.sync.nccl_sync import Link, NcclSync

__all__ = [
    "DiskSync",
    "Link",
    "NcclSync",
    "check_sync",
    "open_sync",
    "plan_sync",
]
