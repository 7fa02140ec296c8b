"""What morl adds to vLLM's worker: named in `worker_extension_cls`, imported in the worker's process only.

Method names carry the prefix `morl_`, because they become methods of vLLM's own Worker.
"""

from __future__ import annotations

from typing import Any

from morl.rollout.engines.published_weights import read_policy_version
from morl.rollout.engines.vllm_engine import adapter_request


class WorkerExtension:
    """Methods that the engine reaches through `collective_rpc`."""

    # What vLLM's Worker has, and these methods use.
    model_runner: Any
    reload_weights: Any

    def morl_load_weights(self, folder: str) -> int:
        """Serve the checkpoint in `folder`; returns the policy version that it carries.

        Raises: CheckpointError when it carries none.
        """
        version = read_policy_version(folder)
        self.reload_weights(weights_path=folder)
        _repack_tied_head(self.model_runner.get_model())
        return version

    def morl_load_adapter(self, folder: str, number: int) -> tuple[int, list[str]]:
        """Serve the LoRA adapter in `folder` under `number`, and no other.

        Returns: the policy version that it carries, and the layers that vLLM would leave as they are
            although the adapter is for them too.

        Raises: CheckpointError when it carries no version.
        """
        version = read_policy_version(folder)
        self.model_runner.add_lora(adapter_request(folder, number))
        for other in self.model_runner.list_loras() - {number}:
            self.model_runner.remove_lora(other)
        manager = self.model_runner.lora_manager._adapter_manager
        loaded = manager.get_adapter(number).loras
        return version, sorted(loaded.keys() - manager.modules.keys())


def _repack_tied_head(model: Any) -> None:
    """Pack the output layer anew from the embedding it is tied to.

    The CPU build keeps linear layers in a packed copy. Reloading packs every layer that got
    weights; a tied output layer gets none of its own, and would go on with the old ones.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead) and module.weight.device.type == "cpu":
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _mend_seeded_requests() -> None:
    """Let a request with a seed have its prompt computed in several steps on the CPU.

    vLLM draws a token at every step and takes the draw back, if the prompt was not yet
    complete, by moving the generator's offset. A CPU generator has no offset, and the
    engine would die of it. Here the stream is started again and wound forward: one
    number for each token that was really drawn.
    """
    import torch
    from vllm.v1.worker.gpu_input_batch import InputBatch

    class RewindableGenerator(torch.Generator):
        drawn: list[int]

        def get_offset(self) -> int:
            return 4  # what vLLM subtracts from it

        def set_offset(self, offset: int) -> torch.Generator:
            self.manual_seed(self.initial_seed())
            torch.randint(0, 2**31, (len(self.drawn),), generator=self)
            return self

    add_request = InputBatch.add_request

    def add_rewindable_request(self: Any, request: Any) -> Any:
        generator = request.generator
        if type(generator) is torch.Generator and generator.device.type == "cpu":
            request.generator = RewindableGenerator()
            request.generator.manual_seed(generator.initial_seed())
            request.generator.set_state(generator.get_state())
        if isinstance(request.generator, RewindableGenerator):
            request.generator.drawn = request.output_token_ids
        return add_request(self, request)

    InputBatch.add_request = add_rewindable_request


_mend_seeded_requests()
