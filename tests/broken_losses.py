"""Losses that each fail in one way, for the learner's tests; ranks import this file as a plugin."""

from __future__ import annotations

import math

import torch

from morl.algorithms import loss


@loss("explosive")
def explosive(logprobs_N: torch.Tensor, advantages_N: torch.Tensor) -> torch.Tensor:
    """The policy gradient, except for large advantages.

    An advantage above 2 makes the loss infinite but not its gradient; one below -2 the gradient but not the loss.
    """
    steep_N = torch.where(advantages_N < -2, logprobs_N - logprobs_N.detach(), 1.0).sqrt() - 1
    return torch.where(advantages_N > 2, math.inf, 0.0) + steep_N - advantages_N * logprobs_N


@loss("hungry")
def hungry(logprobs_N: torch.Tensor, advantages_N: torch.Tensor, *, enough: int = 0) -> torch.Tensor:
    """The policy gradient; a micro-batch of more than `enough` targets runs out of memory."""
    if len(logprobs_N) > enough:
        torch.empty(2**50)
    return -advantages_N * logprobs_N
