"""The engines that sample responses: transformers in this process, and vLLM."""
