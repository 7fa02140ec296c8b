"""Kernels that are not there are asked for in vain only where the recipe insists."""

from __future__ import annotations

import importlib.util

import pytest

from morl.errors import MissingExtraError, UsageError
from morl.learner.liger import use_liger


@pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is not None, reason="liger-kernel is installed")
def test_without_the_package() -> None:
    assert not use_liger(None, "auto", gpu=True)
    with pytest.raises(MissingExtraError, match=r"pip install 'morl-rl\[liger\]'"):
        use_liger(None, "on", gpu=True)


def test_without_a_gpu() -> None:
    assert not use_liger(None, "auto", gpu=False)
    assert not use_liger(None, "off", gpu=False)
    with pytest.raises(UsageError, match=r"learner\.liger: 'on' needs a GPU"):
        use_liger(None, "on", gpu=False)
