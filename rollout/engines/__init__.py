"""The engines that sample answers: transformers in this process, and vLLM."""
