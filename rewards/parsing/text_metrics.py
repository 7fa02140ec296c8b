"""Similarity of two texts: pure functions, each with a value in [0, 1].

Texts must be `normalised`. The words of a text are its `tokens`: a number is one word, and so is each character of
a script without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from rapidfuzz.distance import Levenshtein

from morl.rewards.parsing.answer import numbers
from morl.rewards.parsing.scale_words import scaled

_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|textit|mathbf|operatorname)\s*\{([^{}]*)\}")
_DOLLARS = re.compile(r"\$([^$\n]{1,500})\$(?!\d)")
_APOSTROPHES = re.compile(r"(?<=\w)['’‘`ʼ](?=\w)|(?<=s)['’](?=\s|$)")
_INITIALS = re.compile(r"(?<![^\W_])([^\W\d_])\.(?!\d)")
# Marks that are part of a number or name: the dot of 3.5, the sign of -5, the sharp of C#, the percent of 5 %.
_MEANT = re.compile(
    r"(?<=\d)[.,:/](?=\d) | (?<![\w.])\.(?=\d) | (?<![\w)])-(?=[.$€£]?\d) | (?<=\w)[%#‰′″] | (?<=\d)\s% | [#@](?=\w)",
    re.VERBOSE,
)
_ARTICLES = re.compile(r"(?<![\w'-])(?:a|an|the)\s+(?=\S)", re.IGNORECASE)


class _Forms(dict[int, str]):
    """A table for `str.translate` whose entries are computed on first use."""

    def __init__(self, change: Callable[[str, str], str]) -> None:
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> str:
        self[code] = form = self._change(chr(code), unicodedata.category(chr(code)))
        return form


_VISIBLE = _Forms(
    lambda character, kind: "-" if kind == "Pd" or character == "−" else "" if kind == "Cf" else character
)
_WITHOUT_MARKS = _Forms(lambda character, kind: " " if kind[0] == "P" or kind == "Sk" else character)


def normalised(
    text: str, *, case: bool = True, punctuation: bool = True, articles: bool = False, latex: bool = True
) -> str:
    r"""The text in NFKC, with white space collapsed and without invisible characters.

    Args:
        case: fold case.
        punctuation: drop punctuation, except marks that are part of numbers, amounts and names (3.5, -5, 5 %, C#).
        articles: drop "a", "an" and "the" before a word.
        latex: unwrap `\text{…}` and `$…$`.
    """
    text = unicodedata.normalize("NFKC", text).translate(_VISIBLE)
    if latex:
        text = _DOLLARS.sub(r"\1", _WRAPPED.sub(r"\1", text))
    if case:
        text = text.casefold()
    if punctuation:
        text = _without_marks(text)
    text = " ".join(text.split())
    return _ARTICLES.sub("", text) if articles else text


def says_something(text: str) -> bool:
    """Whether the text has a visible character."""
    return any(unicodedata.category(character)[0] not in "CZM" for character in text)


def _without_marks(text: str) -> str:
    text = _INITIALS.sub(r"\1", _APOSTROPHES.sub("", text))
    kept: list[str] = []
    at = 0
    for match in _MEANT.finditer(text):
        kept += [text[at : match.start()].translate(_WITHOUT_MARKS), match.group().strip()]
        at = match.end()
    return "".join([*kept, text[at:].translate(_WITHOUT_MARKS)])


UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Scripts without spaces between words, as ranges for a character class."""
_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def tokens(text: str) -> list[str]:
    """The words of a normalised text."""
    return _TOKEN.findall(text)


def exact(answer: str, gold: str) -> float:
    """1 when the texts are equal."""
    return float(answer == gold)


def f1(answer: str, gold: str) -> float:
    """The harmonic mean of precision and recall over words, with multiplicity. As in SQuAD (arXiv 1606.05250)."""
    answer_tokens, gold_tokens = tokens(answer), tokens(gold)
    same = sum((Counter(answer_tokens) & Counter(gold_tokens)).values())
    return 2 * same / (len(answer_tokens) + len(gold_tokens)) if same else 0.0


def anls(answer: str, gold: str, *, threshold: float = 0.5) -> float:
    """1 - d / L, with d the edit distance in characters and L the length of the longer text; 0 below the threshold.

    As in ST-VQA and DocVQA (arXiv 1905.13648), where the threshold is 0.5.
    """
    longer = max(len(answer), len(gold))
    if min(len(answer), len(gold)) < threshold * longer:
        return 0.0
    similarity = 1.0 - Levenshtein.distance(answer, gold) / longer if longer else 1.0
    return similarity if similarity >= threshold else 0.0


def wer(answer: str, gold: str) -> float:
    """1 - word error rate, at least 0. The rate is words substituted, inserted or deleted per word of the gold."""
    answer_tokens, gold_tokens = tokens(answer), tokens(gold)
    if len(answer_tokens) >= 2 * len(gold_tokens):
        return 0.0
    return max(0.0, 1.0 - Levenshtein.distance(answer_tokens, gold_tokens) / len(gold_tokens))


_FUNCTION_WORDS = frozenset(
    """
    a an the this that these those there here it its is are was were
    be been am has have had do does did can will would of in at to for from by with as and so called named known
    name answer says reads shows which who what where when
    """.split()  # noqa: SIM905
)
_HEDGES = frozenset(
    "or either neither nor not never isnt maybe perhaps possibly alternatively 或 或者 不".split()  # noqa: SIM905
)


def contains(answer: str, gold: str, *, question: str = "", maximum_ratio: float = 1.0) -> float:
    """1 when the answer contains the gold's words, together and in order, and few others.

    With w words in the gold and e other words in the answer, the value is min(1, maximum_ratio * w / (w + e)).
    Function words ("it is in the") are free unless the gold has only such words, and words of the question are free
    unless it contains the gold. An answer that hedges or denies ("or", "maybe", "not") where the gold does not is 0.

    With a ratio of 1, offering k guesses of one length pays no more on average than the likeliest of them alone.
    """
    answer_tokens, gold_tokens = tokens(answer), tokens(gold)
    if not _stands_in(gold_tokens, answer_tokens) or (_HEDGES - set(gold_tokens)) & set(answer_tokens):
        return 0.0
    question_tokens = tokens(question)
    free = set() if _FUNCTION_WORDS.issuperset(gold_tokens) else _FUNCTION_WORDS
    free = free if _stands_in(gold_tokens, question_tokens) else free | set(question_tokens)
    extra = sum(count for word, count in (Counter(answer_tokens) - Counter(gold_tokens)).items() if word not in free)
    return min(1.0, maximum_ratio * len(gold_tokens) / (len(gold_tokens) + extra))


def _stands_in(run: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words contain the run; both are joined by a character that no word has, for a linear search."""
    return f"\n{chr(10).join(run)}\n" in f"\n{chr(10).join(words)}\n"


def relaxed(answer: str, gold: str, *, tolerance: float = 0.05) -> float:
    """1 when the texts are equal, or the answer's one number is within the relative tolerance of a numeric gold.

    As in ChartQA (arXiv 2203.10244), where the tolerance is 5 %. A percentage is also read as a fraction. A gold of
    "5 million" is 5,000,000; an answer of "5 million" is also 5, as on the axis of a chart in millions.
    """
    if answer == gold:
        return 1.0
    gold, answer = gold[:2000], answer[:2000]
    targets = _readings(scaled(gold), alone=True)
    values = _readings(scaled(answer), alone=False) | _readings(answer, alone=False)
    near = (abs(value - target) <= Fraction(tolerance) * abs(target) for target in targets for value in values)
    return float(any(near))


_AROUND_A_NUMBER = re.compile(r"[\s$€£¥%°.,~≈=+-]*")


def _readings(text: str, *, alone: bool) -> set[Fraction]:
    matches = numbers(text)
    values = {number.value for number in matches}
    value = values.pop() if len(values) == 1 else None
    if value is None or (alone and not _AROUND_A_NUMBER.fullmatch(text[: matches[0].start] + text[matches[-1].end :])):
        return set()
    percent = text[matches[-1].end :].lstrip().startswith("%")
    return {value, value / 100} if percent else {value}
