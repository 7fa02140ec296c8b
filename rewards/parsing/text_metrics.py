"""How near one text is to another: pure functions of two texts, each in [0, 1].

Texts are compared as `normalised` leaves them. The words of a text are its `tokens`: a number is one word, and
so is each character of a script that writes no spaces.
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
# A mark that belongs to what it touches: the dot of 3.5, the sign of -5, the sharp of C#, the percent of 5 %.
_MEANT = re.compile(
    r"(?<=\d)[.,:/](?=\d) | (?<![\w.])\.(?=\d) | (?<![\w)])-(?=[.$€£]?\d) | (?<=\w)[%#‰′″] | (?<=\d)\s% | [#@](?=\w)",
    re.VERBOSE,
)
_ARTICLES = re.compile(r"(?<![\w'-])(?:a|an|the)\s+(?=\S)", re.IGNORECASE)


class _Forms(dict[int, str]):
    """What becomes of each character, worked out when it is first met: a table for `str.translate`."""

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
    r"""The text in one form: Unicode NFKC, one space for any, no invisible characters.

    Args:
        case: make capitals small.
        punctuation: leave out marks, but not those that numbers, amounts and names are made of (3.5, -5, 5 %, C#).
        articles: leave out "a", "an" and "the" where a word follows.
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
    """Whether there is more in the text than spaces and what nobody sees."""
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
"""The scripts that write no spaces between words, as ranges for a character class."""
_TOKEN = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


def tokens(text: str) -> list[str]:
    """The words of a normalised text."""
    return _TOKEN.findall(text)


def exact(answer: str, gold: str) -> float:
    """1 when they are the same."""
    return float(answer == gold)


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of the share of the answer's words found in the gold and of the gold's found in the answer.

    A word counts as often as both have it. As in SQuAD (arXiv 1606.05250).
    """
    given, wanted = tokens(answer), tokens(gold)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted)) if same else 0.0


def anls(answer: str, gold: str, *, threshold: float = 0.5) -> float:
    """1 - d / L, d being the edits between the two in characters and L the longer one's length; 0 below the threshold.

    As in ST-VQA and DocVQA (arXiv 1905.13648), where the threshold is 0.5.
    """
    longer = max(len(answer), len(gold))
    if min(len(answer), len(gold)) < threshold * longer:
        return 0.0
    similarity = 1.0 - Levenshtein.distance(answer, gold) / longer if longer else 1.0
    return similarity if similarity >= threshold else 0.0


def wer(answer: str, gold: str) -> float:
    """1 - word error rate: the words to substitute, insert or delete, per word of the gold; never below 0."""
    given, wanted = tokens(answer), tokens(gold)
    if len(given) >= 2 * len(wanted):
        return 0.0
    return max(0.0, 1.0 - Levenshtein.distance(given, wanted) / len(wanted))


_LITTLE_WORDS = frozenset(
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
    """1 when the gold's words stand in the answer, together and in order, and little else does.

    With w words in the gold and e other words in the answer, the value is min(1, maximum_ratio * w / (w + e)).
    Little words ("it is in the") are free where the gold has others, and so are the question's unless it names
    the gold. An answer that offers alternatives or denies ("or", "maybe", "not") where the gold does not is 0.

    With a ratio of 1, offering k guesses of one length pays no more on average than the likeliest of them alone.
    """
    given, wanted = tokens(answer), tokens(gold)
    if not _stands_in(wanted, given) or (_HEDGES - set(wanted)) & set(given):
        return 0.0
    asked = tokens(question)
    free = set() if _LITTLE_WORDS.issuperset(wanted) else _LITTLE_WORDS
    free = free if _stands_in(wanted, asked) else free | set(asked)
    extra = sum(count for word, count in (Counter(given) - Counter(wanted)).items() if word not in free)
    return min(1.0, maximum_ratio * len(wanted) / (len(wanted) + extra))


def _stands_in(run: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the run is a part of the words. Both are joined by what no word holds, to be searched in linear time."""
    return f"\n{chr(10).join(run)}\n" in f"\n{chr(10).join(words)}\n"


def relaxed(answer: str, gold: str, *, tolerance: float = 0.05) -> float:
    """1 when the answer's one number is within that part of a gold that is a number; else 1 when they are the same.

    As in ChartQA (arXiv 2203.10244), where the tolerance is 5 %. A percentage is also read as a part of 1. A
    gold of "5 million" is 5,000,000; the same words of an answer are also 5, as on the axis of a chart in millions.
    """
    if answer == gold:
        return 1.0
    gold, answer = gold[:2000], answer[:2000]
    targets = _readings(scaled(gold), alone=True)
    given = _readings(scaled(answer), alone=False) | _readings(answer, alone=False)
    near = (abs(value - target) <= Fraction(tolerance) * abs(target) for target in targets for value in given)
    return float(any(near))


_AROUND_A_NUMBER = re.compile(r"[\s$€£¥%°.,~≈=+-]*")


def _readings(text: str, *, alone: bool) -> set[Fraction]:
    found = numbers(text)
    values = {number.value for number in found}
    value = values.pop() if len(values) == 1 else None
    if value is None or (alone and not _AROUND_A_NUMBER.fullmatch(text[: found[0].start] + text[found[-1].end :])):
        return set()
    percent = text[found[-1].end :].lstrip().startswith("%")
    return {value, value / 100} if percent else {value}
