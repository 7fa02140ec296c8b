"""Counting: how many are there?"""

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
"""Only the last characters of an answer are read, this many."""


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
    r"""1 when the answer is one number and equals the gold count, else 0; several different numbers are wrong.

    Reads the last `\boxed{}` or `<answer>` after the thinking; else the number that follows "answer is"; else the
    one after "total of"; else the last number that is not denied ("not 3", "more than 3"). English number words
    count as numbers ("three", "twenty-one", "two dozen", "7 thousand"), but the pronoun of "this one" does not.
    43.0 is 43; 43.5 is wrong. The gold is a non-negative whole number, or its text.

    Several numbers are wrong, with these exceptions: in "3 cats: one black and two white", "3 apples in 1 basket" and
    "5 cats, 2 of them black" the first number counts; in "3 people and 1 dog" the one whose noun the question asks
    for ("how many people"). "None" and "there are no cats" are 0, and so is "no cats, but 3 dogs" if the question is
    about cats; "a single cat" is 1. In an answer that is a JSON object, `count` (or `total`, …) is read.

    `falloff`: with 0, the default, only the exact count scores. Otherwise the value is
    max(0, 1 - |answer - gold| / (falloff * gold)): with 0.2, 9 instead of 10 scores 0.5, and 8 scores 0.
    """
    target = _gold_count(gold)
    if target is None:
        return Verdict(None, "bad_gold", "the gold must be one non-negative whole number")
    text = numbers_for_words(answer_text(final_text(response))[-MAX_TEXT:])
    text_of_count = _keyed(text) or _total(text) or _asked_for(text, messages) or _without_parts(text)
    answers = _counted_aloud(answer_numbers(text_of_count)) or answer_numbers(_without_digits(text))
    if not answers:
        return Verdict(0.0, "no_answer", "no number in the answer")
    shown = ", ".join(item.text for item in answers[:5])
    if len({item.value for item in answers}) > 1:
        return Verdict(0.0, "ok", f"several numbers: {shown}")
    value = answers[0].value
    if value is None or value.denominator != 1 or value < 0:
        return Verdict(0.0, "ok", f"{shown[:50]}: not a whole number that can be a count")
    distance = abs(value - target)
    if not distance or not falloff:
        return Verdict(float(not distance), "ok", shown)
    reach = Fraction(falloff) * target
    return Verdict(float(max(Fraction(0), 1 - distance / reach)) if reach else 0.0, "ok", shown)


_KEYS = ("count", "total", "answer", "number")


def _keyed(text: str) -> str | None:
    """The values of keys such as "count" in an answer that is one JSON object; None for any other answer."""
    value = decoded(_FENCE.sub("", text))
    if not isinstance(value, Mapping):
        return None
    return ", ".join(str(value[key]) for key in _KEYS if key in value) or None


_FENCE = re.compile(r"\A```[A-Za-z]*+|```\Z")


def _counted_aloud(answers: list[Number]) -> list[Number]:
    """The numbers; only the last of an answer that counts aloud and then repeats the total: "1, 2, 3. So 3"."""
    values = [item.value for item in answers]
    aloud = len(values) > 2 and values[-1] == len(values) - 1 and values[:-1] == list(range(1, len(values)))
    return answers[-1:] if aloud else answers


_TOTAL = re.compile(
    r"\b(?:total|altogether)\b[\s,:=*]*+(?:(?:of|is|are|number|count|there|it|comes|to|i|see)\b[\s,:=*]*+){0,5}+(?=[0-9])"
    r"|(?<![\w.,-])(?P<number>[0-9]{1,9})(?:[ ][a-z]{1,20}){0,2},?[ ](?:altogether|in[ ](?:all|total))\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)|\n")


def _total(text: str) -> str | None:
    """What follows the last "total of", and one offered with it; None where the answer has a box or "answer is"."""
    matches = _TOTAL.finditer(text)
    starts = list(dict.fromkeys(match.end() if match["number"] is None else match.start() for match in matches))
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
    """The number of an answer without digits: 0 for "there are no cats", 1 for "a single cat"; else empty."""
    tail = text[-MAX_TAIL:]
    return "0" if _NONE.fullmatch(tail) else "1" if _SINGLE.fullmatch(tail) else ""


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
    """The text without later numbers that say where the counted things are, or describe some of them.

    What follows "3 cats:" or "3 cats (" is dropped if it adds up to the count, but not in "5, removing 2, leaves 3".
    """
    statement = text if boxes(text) else stated(text) or text[-MAX_TAIL:]
    head = _BREAKDOWN.search(statement)
    if head is not None and not _RESULT.search(statement, head.end()):
        first, *rest = numbers(_ONE.sub("1", statement[head.start() :]))
        if len(rest) > 1 and sum((item.value or Fraction(0) for item in rest), Fraction(0)) == first.value:
            return statement[: head.end() - 1]
    end = next((item.end for item in numbers(statement)), 0)
    kept = statement[:end] + _PART.sub(" ", statement[end:])
    return text if boxes(text) or kept == statement else kept


_HOW_MANY = re.compile(r"\bhow\s+many\s+((?:[a-z'-]{1,30}\s+){0,5}[a-z'-]{1,30})", re.IGNORECASE)
_AFTER_NOUN = frozenset(
    "are is were was do does did can could have has had will would in on of at there you i".split()  # noqa: SIM905
)
_COUNTED = re.compile(r"[ ]([a-z'-]{1,30}(?:[ ][a-z'-]{1,30}){0,3})", re.IGNORECASE)
_JOINERS = frozenset("or and to plus minus times maybe perhaps of by on in at".split())  # noqa: SIM905
# After these words a number is computed from those before it, or replaces them.
_TURN = re.compile(
    r"\b(?:so|thus|hence|therefore|then|wait|actually|no|not|leav(?:es|ing)|mak(?:es|ing)|each)\b|=", re.IGNORECASE
)


def _asked_for(text: str, messages: Sequence[Any]) -> str | None:
    """The one number whose noun follows "how many" in the question, if every number has a noun; else None.

    "No dogs" counts as 0 dogs.
    """
    questions = _HOW_MANY.findall(question(messages)[-MAX_TAIL:])
    if not questions or boxes(text):
        return None
    words = questions[-1].lower().split()
    noun = next((word for word, after in pairwise(words) if after in _AFTER_NOUN), words[-1])
    if noun in _AFTER_NOUN:
        return None
    statement = _none_of(noun).sub(" 0 ", stated(text) or text[-MAX_TAIL:])
    stated_numbers = numbers(statement)
    if not stated_numbers or _TURN.search(statement, stated_numbers[0].end, stated_numbers[-1].start):
        return None
    wanted = set()
    for item in stated_numbers:
        counted = _COUNTED.match(statement, item.end)
        nouns = counted[1].lower().split() if counted else ["or"]
        if nouns[0] in _JOINERS:
            return None
        if noun in nouns or noun.removesuffix("s") in nouns:
            wanted.add(item.text)
    return wanted.pop() if len(wanted) == 1 else None


def _none_of(noun: str) -> re.Pattern[str]:
    """Matches statements that there are none of the noun: "no red cars", "aren't any cars"."""
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
    values = {item.value for item in numbers(numbers_for_words(answer_text(text)))}
    value = values.pop() if len(values) == 1 else None
    return int(value) if value is not None and value.denominator == 1 and value >= 0 else None
