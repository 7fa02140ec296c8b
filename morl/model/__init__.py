"""Checkpoints of models: where they are and how they load, the chat codec, and the processor of images and videos."""
