"""Numbers with a word of scale: "7 thousand", "1.05 million", "2 dozen"."""

from __future__ import annotations

import re
from decimal import Decimal

_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
_WORD = "(?:dozen|hundred|thousand|million|billion)"
# A capital K is kelvin.
_SCALED = re.compile(
    r"(?<![\w.,^])((?:[0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,9})(?:\.[0-9]{1,6})?|an?)"
    rf"((?:[\s-]{{1,2}}{_WORD}\b){{1,2}}|\s?\\(?:text|mathrm)\{{\s?{_WORD}\s?\}}|(?<=[0-9])(?-i:k)\b)",
    re.IGNORECASE,
)


def scaled(text: str) -> str:
    """The text with each number and its words of scale as one number; in linear time."""
    return _SCALED.sub(_product, text)


def _product(match: re.Match[str]) -> str:
    value = Decimal(match[1].replace(",", "") if match[1][0].isdigit() else 1)
    for word in re.findall(r"[a-z]+", match[2].lower()):
        value *= _SCALES.get(word, 1)
    return f"{value:f}"
