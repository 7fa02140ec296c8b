"""Rewards that query a model: a learned reward model, or a remote reward service."""
