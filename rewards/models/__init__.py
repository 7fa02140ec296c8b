"""Rewards that ask a model: a learned reward model, or a reward service elsewhere."""
