"""Reinforcement-learning post-training of language models on many objectives at once."""

from morl.compat import wait_briefly

wait_briefly()
