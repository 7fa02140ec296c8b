"""Data: sources of rows, templates that turn rows into prompts, and the mixture of objectives."""

from __future__ import annotations

from morl.data.mixture import Mixture
from morl.data.preference_pairs import Pair, load_pairs, pairs_of_step, split
from morl.data.prompt_set import Asked, PromptSet, load_prompts, load_rows
from morl.data.sources import JsonLines, Rows, TableRows
from morl.data.templates import PromptTemplate
from morl.registry import SOURCES

__all__ = [
    "SOURCES",
    "Asked",
    "JsonLines",
    "Mixture",
    "Pair",
    "PromptSet",
    "PromptTemplate",
    "Rows",
    "TableRows",
    "load_pairs",
    "load_prompts",
    "load_rows",
    "pairs_of_step",
    "split",
]
