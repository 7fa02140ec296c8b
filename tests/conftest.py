"""Shared fixtures: one tiny model, one Ray cluster for the whole session."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest
from tiny import make_tiny_model, make_tiny_vision_model

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs and their children ignore SIGINT: tests that send it would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# No deadline: a busy machine must not fail a test.
hypothesis.settings.register_profile("morl", deadline=None)
hypothesis.settings.load_profile("morl")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal language model of about 0.1M parameters with a real tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2.5-VL of about 0.2M parameters with its processor."""
    return make_tiny_vision_model(tmp_path_factory.mktemp("models") / "vision", seed=0)


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray cluster shared by the tests."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 * 1024**2,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()
