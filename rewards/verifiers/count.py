"""How many are there?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.parsing.answer import Number, boxes, final_text, numbers, offered_together, stated
from morl.rewards.parsing.answer_numbers import MAX_TAIL, answer_numbers
from morl.rewards.parsing.number_words import numbers_for_words
from morl.rewards.parsing.question import question
from morl.rewards.parsing.stated_values import answer_text, decoded
from morl.rewards.reward import Example, Verdict, reward

MAX_TEXT = 50_000
"""Characters of an answer that are looked at, the last ones."""


@reward(
    "count",
    examples=[
        Example("<think>3</think>There are 43 of them.", 43, 1.0),
        Example("43.0", 43, 1.0),
        Example("43.5", 43, 0.0),
        Example("There are three cats.", 3, 1.0),
        Example("twenty-one", "21", 1.0),
        Example("3 or 4", 3, 0.0),
        Example("three or 4", 3, 0.0),
        Example("No one else is there, so 2.", 2, 1.0),
        Example("44", 43, 0.0),
        Example("many", 43, 0.0),
        Example("3 cats: one black and two white", 3, 1.0),
        Example("3 apples in 1 basket", 3, 1.0),
        Example("There are no cats.", 0, 1.0),
        Example("9", 10, 0.5, {"falloff": 0.2}),
        Example("43", -1, None),
        Example("43", 43.5, None),
    ],
    answer=lambda gold: f"There are {gold}.",
)
def count(
    response: str,
    gold: Any,
    messages: Sequence[Any] = (),
    *,
    falloff: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Verdict:
    r"""1 when the one number of the answer is the gold count, else 0; several different numbers are wrong.

    Reads the last `\boxed{}` or `<answer>` after the thinking; else the number that follows "answer is"; else the
    one after "total of"; else the last number that is not denied ("not 3", "more than 3"). English number words are
    numbers too ("three", "twenty-one", "two dozen", "7 thousand"), but not the pronoun of "this one". 43.0 is 43; 43.5
    is wrong. The gold is a whole number that is not negative, or its text.

    Several numbers are wrong, but of "3 cats: one black and two white", "3 apples in 1 basket" and "5 cats, 2 of
    them black" the first one counts, and of "3 people and 1 dog" the one whose noun the question asks for ("how
    many people"). "None" and "there are no cats" are 0, and so is "no cats, but 3 dogs" where cats are asked for; "a
    single cat" is 1. Of an answer that is a JSON object, its `count` is read.

    `falloff`: with 0, the default, only the exact count scores. With more, a wrong count scores what is left
    of 1 after its distance over `falloff` times the gold: with 0.2, 9 for 10 scores 0.5, and 8 scores 0.
    """
    target = _gold_count(gold)
    if target is None:
        return Verdict(None, "bad_gold", "the gold must be one whole number that is not negative")
    text = numbers_for_words(answer_text(final_text(response))[-MAX_TEXT:])
    said = _keyed(text) or _total(text) or _asked_for(text, messages) or _without_parts(text)
    found = _said_again(answer_numbers(said)) or answer_numbers(_without_digits(text))
    if not found:
        return Verdict(0.0, "no_answer", "no number in the answer")
    shown = ", ".join(item.text for item in found[:5])
    if len({item.value for item in found}) > 1:
        return Verdict(0.0, "ok", f"several numbers: {shown}")
    value = found[0].value
    if value is None or value.denominator != 1 or value < 0:
        return Verdict(0.0, "ok", f"{shown[:50]}: no whole number that can be counted to")
    distance = abs(value - target)
    if not distance or not falloff:
        return Verdict(float(not distance), "ok", shown)
    room = Fraction(falloff) * target
    return Verdict(float(max(Fraction(0), 1 - distance / room)) if room else 0.0, "ok", shown)


_KEYS = ("count", "total", "answer", "number")


def _keyed(text: str) -> str | None:
    """What an answer that is one JSON object has under a key such as "count"; None where it is none."""
    value = decoded(_FENCE.sub("", text))
    if not isinstance(value, Mapping):
        return None
    return ", ".join(str(value[key]) for key in _KEYS if key in value) or None


_FENCE = re.compile(r"\A```[A-Za-z]*+|```\Z")


def _said_again(found: list[Number]) -> list[Number]:
    """The numbers; of those that count aloud, "1, 2, 3" and then "3" again, the one that is said again."""
    values = [item.value for item in found]
    aloud = len(values) > 2 and values[-1] == len(values) - 1 and values[:-1] == list(range(1, len(values)))
    return found[-1:] if aloud else found


_TOTAL = re.compile(
    r"\b(?:total|altogether)\b[\s,:=*]*+(?:(?:of|is|are|number|count|there|it|comes|to|i|see)\b[\s,:=*]*+){0,5}+(?=[0-9])"
    r"|(?<![\w.,-])(?P<number>[0-9]{1,9})(?:[ ][a-z]{1,20}){0,2},?[ ](?:altogether|in[ ](?:all|total))\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)|\n")


def _total(text: str) -> str | None:
    """What follows the last "total of", and the one offered with it; None where the answer is stated more plainly."""
    found = _TOTAL.finditer(text)
    starts = list(dict.fromkeys(match.end() if match["number"] is None else match.start() for match in found))
    if not starts or boxes(text) or stated(text) is not None:
        return None
    start, gap = starts[-1], text[starts[-2] : starts[-1]] if len(starts) > 1 else ""
    end = _SENTENCE_END.search(text, start)
    if len(gap) <= MAX_TAIL and len(numbers(gap)) == 1 and offered_together(gap):
        start = starts[-2]  # "4 in total or 3 in total"
    return _without_parts(text[start : end.start() if end else len(text)])


_THINGS = (
    r"(?!ways?\b|means\b|details?\b|clues?\b|ideas?\b|one\b|image\b|picture\b|answer\b|information\b|doubt\b)"
    r"(?:[a-z'-]{1,30}\s){0,2}[a-z'-]{1,30}"
)
_IN_IMAGE = r"(?:\s(?:in|on|at|visible|present|shown|here|depicted)\b[^.\n]{0,100})?\W*"
_NONE = re.compile(
    r"\W*(?:(?:(?:the|my|final|correct)\s){0,3}(?:answer\W{1,3}(?:is\s)?)?none"
    rf"|none\sof\s(?:them|these|those)(?:\s{_THINGS})?"
    r"|(?:[^.\n]{0,80}\s)?there\s(?:is|are|were)\snone"
    r"|(?:(?:[^.\n]{0,80}\s)?(?:there\s(?:is|are|were)|contains?|shows?|has|have|i\s(?:can\s)?see)\s)?no\s"
    rf"{_THINGS}"
    r"|(?:i\s(?:do\snot|don['’]t|can['’]t|cannot)\ssee|there\s(?:is|are|was|were)(?:\snot|n['’]t))\s"
    rf"(?:any|a\ssingle)\s{_THINGS})"
    rf"{_IN_IMAGE}",
    re.IGNORECASE,
)
_SINGLE = re.compile(
    rf"\W*(?:(?:there\sis|i\s(?:can\s)?see|i\scount|contains|shows|has)\s|[^.\n]{{0,80}}\s(?:contains|shows|has)\s)?"
    rf"(?:just\s|only\s)?a\ssingle\s{_THINGS}{_IN_IMAGE}",
    re.IGNORECASE,
)


def _without_digits(text: str) -> str:
    """The number of an answer that names none: of "there are no cats" 0, of "a single cat" 1; else nothing."""
    said = text[-MAX_TAIL:]
    return "0" if _NONE.fullmatch(said) else "1" if _SINGLE.fullmatch(said) else ""


_BREAKDOWN = re.compile(r"[0-9]{1,9}(?:[ ][a-z'-]{1,30}){0,6}[ ]?[:(,.;]", re.IGNORECASE)
_RESULT = re.compile(r"\b(?:leav|mak)(?:es|ing)\b", re.IGNORECASE)
_ONE = re.compile(r"(?<![\w-])one\b(?!-)", re.IGNORECASE)
_PART = re.compile(
    r"[ ](?:in|on|at|across|over|out[ ]of|of)[ ]"
    r"(?:(?:the|these|those|all|image|picture|photo|figure|frame|panel|scene)[ ]){0,2}[0-9]{1,9}(?![0-9.,]*[0-9/])"
    r"|,?[ ]including[ ][0-9]{1,9}\b"
    r"|(?:[,.;]\s|[ ]and[ ])[0-9]{1,9}[ ]of[ ](?:which|whom|them|these|those)\b"
    r"|,?[ ]of[ ](?:which|whom)[ ][0-9]{1,9}\b",
    re.IGNORECASE,
)


def _without_parts(text: str) -> str:
    """The text without numbers, after the first, that say where the counted things are or how some of them look.

    What follows "3 cats:" or "3 cats (" goes as well if it adds up to the count; not in "5, removing 2, leaves 3".
    """
    said = text if boxes(text) else stated(text) or text[-MAX_TAIL:]
    head = _BREAKDOWN.search(said)
    if head is not None and not _RESULT.search(said, head.end()):
        first, *rest = numbers(_ONE.sub("1", said[head.start() :]))
        if len(rest) > 1 and sum((item.value or Fraction(0) for item in rest), Fraction(0)) == first.value:
            return said[: head.end() - 1]
    end = next((item.end for item in numbers(said)), 0)
    kept = said[:end] + _PART.sub(" ", said[end:])
    return text if boxes(text) or kept == said else kept


_HOW_MANY = re.compile(r"\bhow\s+many\s+((?:[a-z'-]{1,30}\s+){0,5}[a-z'-]{1,30})", re.IGNORECASE)
_AFTER_NOUN = frozenset(
    "are is were was do does did can could have has had will would in on of at there you i".split()  # noqa: SIM905
)
_COUNTED = re.compile(r"[ ]([a-z'-]{1,30}(?:[ ][a-z'-]{1,30}){0,3})", re.IGNORECASE)
_JOINERS = frozenset("or and to plus minus times maybe perhaps of by on in at".split())  # noqa: SIM905
# Words after which a number is worked out from those before it, or replaces them.
_TURN = re.compile(
    r"\b(?:so|thus|hence|therefore|then|wait|actually|no|not|leav(?:es|ing)|mak(?:es|ing)|each)\b|=", re.IGNORECASE
)


def _asked_for(text: str, messages: Sequence[Any]) -> str | None:
    """The one number whose noun follows "how many" in the question, where each has a noun; else None.

    "No dogs" is a number of dogs.
    """
    asked = _HOW_MANY.findall(question(messages)[-MAX_TAIL:])
    if not asked or boxes(text):
        return None
    words = asked[-1].lower().split()
    noun = next((word for word, after in pairwise(words) if after in _AFTER_NOUN), words[-1])
    if noun in _AFTER_NOUN:
        return None
    said = _none_of(noun).sub(" 0 ", stated(text) or text[-MAX_TAIL:])
    found = numbers(said)
    if not found or _TURN.search(said, found[0].end, found[-1].start):
        return None
    wanted = set()
    for item in found:
        counted = _COUNTED.match(said, item.end)
        nouns = counted[1].lower().split() if counted else ["or"]
        if nouns[0] in _JOINERS:
            return None
        if noun in nouns or noun.removesuffix("s") in nouns:
            wanted.add(item.text)
    return wanted.pop() if len(wanted) == 1 else None


def _none_of(noun: str) -> re.Pattern[str]:
    """How it is said that there is nothing of the noun: "no red cars", "aren't any cars"."""
    return re.compile(
        rf"(?:\bno|(?:\bnot|n['’]t)(?:[ ](?:see|have|contain|show))?[ ](?:any|a[ ]single))[ ]"
        rf"(?=(?:[a-z'-]{{1,30}}[ ]){{0,2}}{re.escape(noun.removesuffix('s'))}(?:e?s)?\b)",
        re.IGNORECASE,
    )


def _gold_count(gold: Any) -> int | None:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return None
    try:
        text = str(gold)[:MAX_TAIL]
    except ValueError:  # more digits than Python prints
        return None
    found = {item.value for item in numbers(numbers_for_words(answer_text(text)))}
    value = found.pop() if len(found) == 1 else None
    return int(value) if value is not None and value.denominator == 1 and value >= 0 else None
