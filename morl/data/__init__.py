"""Data: sources of rows, templates that make prompts of them, and the mixture of objectives."""

from morl.data.mixture import Mixture
from morl.data.prompt_set import PromptSet, load_prompts
from morl.data.sources import Rows
from morl.data.templates import PromptTemplate
from morl.registry import SOURCES

__all__ = ["SOURCES", "Mixture", "PromptSet", "PromptTemplate", "Rows", "load_prompts"]
