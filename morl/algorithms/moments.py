"""Means and standard deviations that skip NaN: the parts of most advantages."""

from __future__ import annotations

import torch


def centre(values: torch.Tensor, dim: int) -> torch.Tensor:
    """`x - mean(x)` along `dim`, over the values that are not NaN.

    A NaN becomes 0 and counts in no mean. Equal values become exactly 0: their mean may have a
    rounding error, which a later division would amplify.
    """
    known = ~values.isnan()
    filled = torch.where(known, values, 0.0)
    mean = filled.sum(dim=dim, keepdim=True) / known.sum(dim=dim, keepdim=True).clamp(min=1)
    low = torch.where(known, values, torch.inf).amin(dim=dim, keepdim=True)
    high = torch.where(known, values, -torch.inf).amax(dim=dim, keepdim=True)
    return torch.where(known & (high > low), filled - mean, 0.0)


def spread(centred: torch.Tensor, known: torch.Tensor, dim: int) -> torch.Tensor:
    """Root mean square along `dim` over the `known` values, the rest being 0; `dim` stays, with size 1.

    Of centred values this is the population's standard deviation.
    """
    squares = centred.square().sum(dim=dim, keepdim=True)
    return (squares / known.sum(dim=dim, keepdim=True).clamp(min=1)).sqrt()


def divide(centred: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """`centred / (scale + eps)`; 0 where the scale is 0, even if eps is 0 too."""
    return torch.where(scale > 0, centred / (scale + eps), 0.0)


def standardise(values: torch.Tensor, dim: int, eps: float) -> torch.Tensor:
    """`(x - mean(x)) / (std(x) + eps)` along `dim`, over the values that are not NaN; 0 for a NaN."""
    centred = centre(values, dim)
    return divide(centred, spread(centred, ~values.isnan(), dim), eps)
