"""Reinforcement-learning post-training of language models on many objectives at once."""

import os

# OpenMP threads that wait by spinning take the cores from the next process in the loop; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
