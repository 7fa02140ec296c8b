"""Methods added to vLLM's worker: named in `worker_extension_cls`, imported only in the worker's process.

Their names start with `morl_`, because they become methods of vLLM's Worker.
"""

from __future__ import annotations

from typing import Any

from morl.rollout.engines.published_weights import read_policy_version
from morl.rollout.engines.vllm_engine import adapter_request


class WorkerExtension:
    """Methods that the engine calls through `collective_rpc`."""

    # Attributes of vLLM's Worker that these methods use.
    model_runner: Any
    reload_weights: Any

    def morl_load_weights(self, folder: str) -> int:
        """Serve the checkpoint in `folder` and return its policy version.

        Raises: CheckpointError when it has none.
        """
        version = read_policy_version(folder)
        self.reload_weights(weights_path=folder)
        _repack_tied_head(self.model_runner.get_model())
        return version

    def morl_load_adapter(self, folder: str, number: int) -> tuple[int, list[str]]:
        """Serve only the LoRA adapter in `folder`, under `number`.

        Returns: its policy version, and the layers that it adapts but vLLM would leave as they are.

        Raises: CheckpointError when it has no version.
        """
        version = read_policy_version(folder)
        self.model_runner.add_lora(adapter_request(folder, number))
        for other in self.model_runner.list_loras() - {number}:
            self.model_runner.remove_lora(other)
        manager = self.model_runner.lora_manager._adapter_manager
        loaded = manager.get_adapter(number).loras
        return version, sorted(loaded.keys() - manager.modules.keys())


def _repack_tied_head(model: Any) -> None:
    """Repack the output layer from the embedding it is tied to.

    The CPU build keeps a packed copy of each linear layer. Reloading repacks only the layers that
    receive weights; a tied output layer receives none and would keep the old ones.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead) and module.weight.device.type == "cpu":
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def _mend_seeded_requests() -> None:
    """Let vLLM compute the prompt of a seeded request in several steps on the CPU.

    vLLM draws a token at every step and, if the prompt was not yet complete, undoes the
    draw by moving the generator's offset. A CPU generator has no offset, which would crash
    the engine. Here the stream restarts and skips one number for each token drawn so far.
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
