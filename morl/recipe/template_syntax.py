"""Checks that a string of a recipe is a valid Jinja template when the recipe is read, before there are rows."""

from __future__ import annotations

import functools
import re

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from morl.error_messages import did_you_mean

FILTERS = ("boxed",)
"""Filters in addition to Jinja's; `morl.data.templates` implements them."""


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment()
    environment.filters.update(dict.fromkeys(FILTERS, str))
    return environment


def flaw_of(template: str) -> str:
    """Why a string is not a valid template, and the remedy; empty when it is valid."""
    environment = _environment()
    try:
        environment.compile(template)
    except jinja2.TemplateSyntaxError as error:
        unknown = re.fullmatch(r"No filter named '(.*)'\.", str(error.message))
        if unknown:
            return f"no filter is called '{unknown[1]}'{did_you_mean(unknown[1], environment.filters)}"
        return f"not a template: {error.message}"
    return ""
