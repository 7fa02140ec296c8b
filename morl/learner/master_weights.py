"""Access to the master weights and optimiser state that a rank holds in DeepSpeed, for every ZeRO stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morl.learner.shards import MOMENTS, About, Kind, Shape, Shard, Shards

_SCALE = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""State of DeepSpeed's loss scalers; each has some of these attributes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice of a flattened parameter, and its position in this rank's optimiser."""

    name: str
    offset: int
    """Of the slice's first element in the flattened parameter."""
    count: int
    master: torch.Tensor
    """The tensor that the optimiser updates, of any shape; flattened, it holds the slice from `start` on."""
    start: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The slice's view of a tensor that is laid out like `master`."""
        return tensor.detach().view(-1)[self.start : self.start + self.count]


def held_by(engine: Any) -> list[Piece]:
    """The slices of trainable parameters whose master weights this rank holds, in the model's order."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    masters = {id(low): high for low, high in _copies(optimizer)}
    pieces = []
    for name, parameter in _trainable(engine.module):
        numel = math.prod(_shape(parameter))
        if stage == 0:
            pieces.append(Piece(name, 0, numel, masters.get(id(parameter), parameter), 0))
        elif stage < 3:
            mapping = parameter._hp_mapping
            if mapping is not None:
                master = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
                low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
                pieces.append(Piece(name, low.start, low.numel, master, high.start))
        else:
            group, start, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
            offset = count * optimizer._get_param_partition_rank(parameter)
            # All partitions have one size: the last ones reach beyond the end.
            count = min(count, numel - offset)
            if count > 0:
                pieces.append(Piece(name, offset, count, optimizer.fp32_partitioned_groups_flat[group], start))
    return pieces


def snapshot(engine: Any, rank: int, ranks: int) -> Shard:
    """Copy this rank's part of the checkpoint to host memory. Not collective.

    Args:
        engine: DeepSpeed's, between two steps.
        rank: of this process.
        ranks: number of ranks.
    """
    pieces: Sequence[Piece] = held_by(engine)
    if engine.zero_optimization_stage() == 0:
        pieces = list(_split_evenly(pieces, rank, ranks))
    steps: dict[str, int] = {}
    slices: dict[tuple[str, int, Kind], torch.Tensor] = {}
    for piece in pieces:
        adam = engine.optimizer.state.get(piece.master, {})
        steps[piece.name] = int(adam.get("step", 0))
        slices[piece.name, piece.offset, "weight"] = _on_host(piece.of(piece.master))
        for kind in MOMENTS:
            if kind in adam:
                slices[piece.name, piece.offset, kind] = _on_host(piece.of(adam[kind]))
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    scaler = _scaler(engine.optimizer)
    loss_scale = {name: getattr(scaler, name) for name in _SCALE if hasattr(scaler, name)}
    return Shard(rank, About(ranks, shapes_of(engine.module), steps, loss_scale), slices, _rng(engine.device))


def restore(engine: Any, folder: Path, rank: int, ranks: int, seed: int) -> int:
    """Load this rank's part from the shards in `folder`, written in any layout. Collective.

    With another number of ranks, or on another kind of device, random numbers restart from the seed, the
    optimiser's step and the rank.

    Returns: the number of ranks that wrote the shards.
    Raises: CheckpointError when they do not fit the model.
    """
    optimizer, saved = engine.optimizer, Shards(folder)
    saved.require(shapes_of(engine.module))
    sharded = engine.zero_optimization_stage() == 3
    if sharded:
        optimizer.checkpoint_event_prologue()
    pieces = held_by(engine)
    for piece in pieces:
        adam = _adam(optimizer, piece.master)
        adam["step"].zero_()
        piece.of(piece.master).copy_(saved.read(piece.name, "weight", piece.offset, piece.count))
        for kind in MOMENTS:
            piece.of(adam[kind]).copy_(saved.read(piece.name, kind, piece.offset, piece.count))
    for piece in pieces:
        # Without ZeRO a parameter without a gradient takes no step; with ZeRO all parameters in a tensor step together.
        optimizer.state[piece.master]["step"].clamp_(min=saved.about.steps[piece.name])
    _update_copies(engine)
    if sharded:
        optimizer.checkpoint_event_epilogue()
    scaler = _scaler(optimizer)
    for name, value in saved.about.loss_scale.items():
        if hasattr(scaler, name):
            setattr(scaler, name, value)
    _restore_rng(saved, engine.device, rank, ranks, seed)
    return saved.about.ranks


def forget_trial_step(engine: Any) -> None:
    """Undo the step that DeepSpeed takes on zero gradients to create the optimiser's state.

    It does so in mixed precision without ZeRO. The step would count in Adam's bias correction and decay the master
    weights.
    """
    if hasattr(engine.optimizer, "fp32_groups"):
        engine.optimizer.state.clear()
        engine.optimizer.refresh_fp32_params()


def shapes_of(module: torch.nn.Module) -> dict[str, Shape]:
    """Full shapes of all trainable parameters, in the model's order."""
    return {name: _shape(parameter) for name, parameter in _trainable(module)}


def _trainable(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _shape(parameter: Any) -> Shape:
    # Under ZeRO-3 a parameter that is not gathered is an empty tensor.
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _split_evenly(pieces: Sequence[Piece], rank: int, ranks: int) -> Iterator[Piece]:
    """This rank's part of replicated pieces, split evenly by elements, in the model's order."""
    total = sum(piece.count for piece in pieces)
    low, high = total * rank // ranks, total * (rank + 1) // ranks
    for piece in pieces:
        begin, end = max(0, low), min(piece.count, high)
        if begin < end:
            yield replace(piece, offset=piece.offset + begin, start=piece.start + begin, count=end - begin)
        low, high = low - piece.count, high - piece.count


def _on_host(elements: torch.Tensor) -> torch.Tensor:
    if elements.device.type == "cpu":
        return elements.to(torch.float32, copy=True)
    host = torch.empty(elements.shape, dtype=torch.float32, pin_memory=True)
    return host.copy_(elements, non_blocking=True)


def _adam(optimizer: Any, master: torch.Tensor) -> dict[str, torch.Tensor]:
    """Adam's state of a tensor, initialised if there is none yet."""
    adam: dict[str, torch.Tensor] = optimizer.state[master]
    if not adam:
        device = master.device if optimizer.param_groups[0]["fused"] else torch.device("cpu")
        adam["step"] = torch.zeros((), dtype=torch.float32, device=device)
        for kind in MOMENTS:
            adam[kind] = torch.zeros_like(master, requires_grad=False)
    return adam


def _copies(optimizer: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    """Without ZeRO, each low-precision parameter and its master; none in full precision, where they are one tensor."""
    lows, highs = getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ())
    return ((low, high) for pair in zip(lows, highs, strict=False) for low, high in zip(*pair, strict=True))


def _update_copies(engine: Any) -> None:
    """Copy the master weights to the weights that the model computes with."""
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
    elif stage:
        optimizer.update_lp_params()
    else:
        for low, high in _copies(optimizer):
            low.data.copy_(high.data)


def _scaler(optimizer: Any) -> Any:
    """The loss scaler; None in full precision without ZeRO."""
    return getattr(optimizer, "loss_scale_config", None) or getattr(optimizer, "loss_scaler", None)


def _restore_rng(saved: Shards, device: torch.device, rank: int, ranks: int, seed: int) -> None:
    states = saved.rng(rank) if saved.about.ranks == ranks else {}
    if states.keys() != _rng(device).keys():
        torch.manual_seed(int(np.random.SeedSequence((seed, saved.step, rank)).generate_state(1)[0]))
        return
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _rng(device: torch.device) -> dict[str, torch.Tensor]:
    """State of torch's random number generator on each kind of device in use."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    return states
