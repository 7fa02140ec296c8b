"""Data: sources of rows, templates that make prompts of them, and the mixture of objectives."""

from morl.data.mixture import Mixture
from morl.data.prompts import PromptSet, load_prompts
from morl.data.sources import SOURCES, Rows
from morl.data.templates import PromptTemplate

__all__ = ["SOURCES", "Mixture", "PromptSet", "PromptTemplate", "Rows", "load_prompts"]
