"""Languages are told apart, and what is no language is left out."""

from __future__ import annotations

from morl.rewards import language as module
from morl.rewards.language import LANGUAGES


def test_the_languages_are_those_of_the_detector() -> None:
    assert set(module._detector().labels) - {"zxx"} == set(LANGUAGES)
    assert set(module._SCRIPTS_OF) | set(module._KIN_OF) | set(module._CODES.values()) <= set(LANGUAGES)
