r"""Finds the answer in a response. All verifiers use these functions; they take linear time.

Only the text after the thinking counts, and within it the content of the last `<answer>`, if there is one. There,
the last `\boxed{}` wins, then what is stated after "answer", then what comes last. Answers that are offered
together ("3 or 4", two boxes side by side) are parts of one answer: this distinguishes a hedge from a correction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar

MAX_DIGITS = 400
"""Numbers with more digits, or a greater power of ten, have no value: they are too large to be an answer."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text and its position; `start` and `end` include its delimiters."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number(Span):
    """A number in a text."""

    value: Fraction | None
    """None when it is too large (see `MAX_DIGITS`) or divides by zero."""


def final_text(response: str) -> str:
    """The text after the last `</think>`; empty when the thinking is not closed, or nothing follows it."""
    text = response[response.rfind("</think>") + len("</think>") :] if "</think>" in response else response
    text = "" if "<think>" in text else text.strip()
    for token in _END_TOKENS:
        text = text.removesuffix(token).rstrip()
    return text


# Responses from other programs may keep their tokenizer's end-of-turn token.
_END_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>")


_OPENING, _CLOSING = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)


def within_tags(text: str) -> str:
    """The content of the last `<answer>…</answer>`, which may be unclosed; without one, the whole text."""
    start = None
    for opening in _OPENING.finditer(text) if "<" in text else ():
        start = opening.end()
    if start is None:
        return text
    closing = _CLOSING.search(text, start)
    return text[start : closing.start() if closing else len(text)].strip()


_BRACES = re.compile(r"\\\\?(?:boxed|fbox|framebox)\s*\{|\\.|[{}]", re.DOTALL)

_BRACELESS = re.compile(r"\\boxed\s{0,3}(-?\d[\d,./]{0,40}(?<![,./])|[A-Za-z](?!\w))")


def boxes(text: str, *, braceless: bool = True) -> list[Span]:
    r"""The contents of each outermost `\boxed{…}` with balanced braces.

    Escaped braces are text. A box that is never closed is skipped. If no box has braces, `\boxed 4` counts as
    one, unless `braceless` is off.
    """
    opened: list[tuple[int, int] | None] = []
    closed: list[tuple[int, int, int, int]] = []
    for match in _BRACES.finditer(text):
        brace = match.group()
        if brace == "{":
            opened.append(None)
        elif brace == "}":
            box = opened.pop() if opened else None
            if box is not None:
                closed.append((*box, match.start(), match.end()))
        elif brace[-1] == "{" and len(brace) > 2:
            opened.append(match.span())
    outer: list[Span] = []
    for start, inner_start, inner_end, end in sorted(closed):
        if not outer or start >= outer[-1].end:
            outer.append(Span(text[inner_start:inner_end].strip(), start, end))
    if braceless and not outer and "\\boxed" in text:
        return [Span(match[1], *match.span()) for match in _BRACELESS.finditer(text)]
    return outer


_STATED = re.compile(
    r"""
    (?: \banswers?\b [*_]{0,2} (?: (?: (?!\b(?:since|because)\b) [^.\n:：=] ){0,40}?
        \b(?:is|are)\b )? | 答案(?:是|为)? )
    \s{0,3} [*_]{0,2} \s{0,3} [:：=]? [ \t*_]{0,4}
    """,
    re.IGNORECASE | re.VERBOSE,
)
_LINE_END = re.compile(r"\n(?!\s{0,3}or\b)", re.IGNORECASE)
_HASHES = re.compile(r"^####[ \t]{0,3}(?=(?:[a-zA-Z] ?= ?)?[-+$\\(*]{0,4}\d)", re.MULTILINE)
# "3. Or 4" is one sentence, and so is "Rs. 5".
_SENTENCE_END = re.compile(
    r"(?<!\bRs)(?<!\b[DM]r)(?<!\bSt)(?<!\bapprox)[.!?。](?=\s|$)(?!\s{1,3}or\b)|\n(?!\s{0,3}or\b)", re.IGNORECASE
)
MAX_SENTENCE = 4000
"""Line breaks and full stops within formulas do not end a statement in its first characters, this many."""


def stated(text: str, *, whole_line: bool = False) -> str | None:
    """The sentence, or the line, that follows the last "answer is", "Answer:" or "####"; None without one."""
    starts = [match.end() for match in _HASHES.finditer(text)]
    for match in _STATED.finditer(text):
        phrase = match.group().rstrip(" \t\r\n*_").lower()
        if phrase.endswith((":", "：", "=", "is", "are", "是", "为")):
            starts.append(match.end())
    if not starts:
        return None
    rest = text[max(starts) :].lstrip(" \t\n*_:：")
    head = rest[:MAX_SENTENCE]
    without_formulas = _MATH.sub(lambda formula: "$" * len(formula.group()), head) + rest[MAX_SENTENCE:]
    end = (_LINE_END if whole_line else _SENTENCE_END).search(without_formulas)
    rest = rest[: end.start()] if end else rest
    rest = rest.strip(" \t*_")
    return None if not rest or rest.lower().startswith("not ") else rest


_MATH = re.compile(
    r"""
    \$\$ (?P<a> [^$]+ ) \$\$
    | (?<!\\) \$ (?!\s) (?P<b> (?: [^$\\\n] | \\. )+ ) (?<!\s) \$ (?!\d)   # but not "$5 and $7"
    | (?<!\\) \$ \s (?P<e> (?: [^$\\] | \\. )+ ) (?<=\s) \$ (?!\s?\d)
    | \\\( (?P<c> (?: [^\\] | \\[^()] )*+ ) \\\)
    | \\\[ (?P<d> (?: [^\\] | \\[^\[\]] )*+ ) \\\]
    """,
    re.VERBOSE,
)


def formulas(text: str) -> list[Span]:
    r"""The contents of `$…$`, `$$…$$`, `\(…\)` and `\[…\]`."""
    return [Span((match.group(match.lastgroup or 0)).strip(), *match.span()) for match in _MATH.finditer(text)]


# Chinese, Japanese and Korean (U+3040-U+9fff, U+ac00-U+d7af) need no space beside digits.
_NUMBER = re.compile(
    r"""
    \\[cdt]?frac\{(?P<top>-?[0-9]++)\}\{(?P<bottom>[0-9]++)\}
    | \\[cdt]?frac\s?(?P<short>[0-9]{2})(?![0-9])
    | (?<![^\W\u3040-\u9fff\uac00-\ud7af]) (?<![.^第]) 10 (?: [ ]?\^[ ]? | \*\* ) \{? (?P<ten>[-+−]?[0-9]++) \}?
    | (?<![^\W\u3040-\u9fff\uac00-\ud7af]) (?<![\^第]) (?<!\w\.) (?<!\^\{) (?<!_\{) (?<!\^-) (?<!\^\{-)
      (?P<whole> (?> [0-9]{1,3} (?: (?:,|\{,\}|\\,|[\u00a0\u202f\u2009]) [0-9]{3} )+ (?![0-9]) | [0-9]*+ ) )
      (?P<decimals> (?: \.[0-9]++ )?+ )
      (?<=[0-9])
      (?! (?:st|nd|rd|th)\b | \s?[万亿] )
      (?: [eE](?P<exponent>[-+]?[0-9]++)
        | \s? (?:\\times|\\cdot|[×·*x]) \s? 10 \s? (?:\^|\*\*) \s? \{? (?P<power>[-+−]?[0-9]++) \}?
        | \s?/\s? (?P<divisor>[0-9]++) (?! / | \.[0-9] ) )?
      (?! (?: [ ]?\^[ ]? | \*\* ) \{? [-+−]?[0-9] )
    """,
    re.VERBOSE,
)
_SIGN_BEFORE = re.compile(r"(?:^|[^\w)\]}.]|[\u3040-\u9fff\uac00-\ud7af])([-−–])[ $£€\\]{0,2}$")


def numbers(text: str) -> list[Number]:
    r"""The numbers of a text, with sign: `-5`, `0.5`, `1,234`, `3/4`, `1 3/4`, `\frac{3}{4}`, `1e-5`, `2 \times 10^3`.

    Digits within words, powers other than those of ten, indices and ordinals do not count as numbers.
    """
    result: list[Number] = []
    for match in _NUMBER.finditer(text):
        before = _SIGN_BEFORE.search(text[max(0, match.start() - 4) : match.start()])
        start = max(0, match.start() - 4) + before.start(1) if before else match.start()
        value = _value(match)
        if result and not before and (mixed := _mixed(text, result[-1], match, value)):
            result[-1] = mixed
            continue
        result.append(Number(text[start : match.end()], start, match.end(), -value if before and value else value))
    return result


def _mixed(text: str, whole: Number, match: re.Match[str], part: Fraction | None) -> Number | None:
    """A whole number and the fraction after it as one number: "1 3/4", but not "1 5/4" or "1.5 3/4"."""
    gap, digits = text[whole.end : match.start()], whole.text.lstrip("-−–")
    in_latex = bool(match["bottom"] or match["short"])
    if (gap != " " and (gap or not in_latex)) or not (in_latex or match["divisor"]):
        return None
    if not digits.isdigit() or whole.value is None or part is None or not 0 < part < 1:
        return None
    value = whole.value - part if whole.text[0] in "-−–" else whole.value + part
    return Number(text[whole.start : match.end()], whole.start, match.end(), value)


def _value(match: re.Match[str]) -> Fraction | None:
    part = {name: text or "" for name, text in match.groupdict().items()}
    if len(match.group()) > MAX_DIGITS:
        return None
    if part["bottom"] or part["divisor"]:
        top, bottom = part["top"] or _digits(part["whole"]) + part["decimals"], part["bottom"] or part["divisor"]
        return Fraction(top) / int(bottom) if int(bottom) else None
    if part["short"]:
        return Fraction(int(part["short"][0]), int(part["short"][1])) if part["short"][1] != "0" else None
    power = int((part["exponent"] or part["power"] or part["ten"] or "0").replace("−", "-"))
    if abs(power) > MAX_DIGITS:
        return None
    if part["ten"]:
        return Fraction(10) ** power
    return Fraction(Decimal(f"{_digits(part['whole'])}{part['decimals']}")) * Fraction(10) ** power


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text) or "0"


_WORD = re.compile(r"[^\W\d_]+")
_MARKUP = re.compile(r"\\(?:text|mathrm|textbf|quad|qquad|left|right)\b|\\[()\[\]]|[$*]")
_BREAK = re.compile(r"[.!?。](?=\s|$)|\n\s*\n")
_HEDGES = frozenset(
    "or either alternatively maybe perhaps possibly otherwise might could also 或 或者 也可能".split()  # noqa: SIM905
)
_TURNS = frozenset(
    "so thus hence therefore then finally final wait actually no not correction instead rather because since "  # noqa: SIM905
    "but means gives giving get makes making leaves leaving totaling which is are was 所以 因此".split()
)
_LEAD_INS = frozenset("the my our it its is are answer answers solution result equals that".split())  # noqa: SIM905
_JOINT = re.compile(r"[,;&/~–、，]|\bto\b|\band\b|-|\\pm", re.IGNORECASE)
# A calculation continues, also after units: "3 hours * 5 miles/hour = 15". But "3 and x = 4" has two parts.
_CONTINUES = re.compile(
    rf"[\s)\]}}\\&%]*(?:(?!(?:and|to|{'|'.join(sorted(_HEDGES))})\b)[a-z]{{2}}[a-z/-]{{0,30}} ){{0,3}}[=≈+*×^<>÷]",
    re.IGNORECASE,
)
MAX_GAP = 120
"""The most characters between two parts of one answer."""
MAX_PARTS = 200
"""The most parts of one answer; only the last ones are kept."""


def offered_together(gap: str) -> bool:
    """Whether the texts on both sides of the gap are parts of one answer: "3 or 4", "x = 3, y = 4".

    If not, the later one replaces the earlier one.
    """
    if len(gap) > MAX_GAP:
        return False
    gap = _MARKUP.sub(" ", gap)
    if _CONTINUES.match(gap):
        return False
    between = {word for word in _WORD.findall(gap.lower()) if len(word) > 1 or word in _HEDGES}
    if between & _HEDGES and between <= _HEDGES | _LEAD_INS:
        return True
    last_sentence = _BREAK.split(gap)[-1]
    words = [word.lower() for word in _WORD.findall(last_sentence)]
    if _HEDGES.intersection(words):
        return True
    # The gap is empty or only introduces an answer: "The answer is 3. The answer is 4."
    if not between or (between <= _LEAD_INS and re.search(r"[.!?\n]", gap)):
        return True
    return not _TURNS.intersection(words) and last_sentence == gap and _JOINT.search(gap) is not None


_DENYING = re.compile(
    r"""
    (?: \bnot\b | n['’]t\b | \bcannot\b | \bnever\b | \bunlikely\b | \binstead\s+of\b
      | \b(?:rather|other|more|less|fewer|greater|larger|smaller|higher|lower|bigger)\s+than\b )
    (?: \s{1,3} (?:be|equal|to|exactly|just|quite|really|the|an?|from|at|in|between)\b ){0,3} [\s$*_(\[{\\]{0,6} $
    """,
    re.VERBOSE | re.IGNORECASE,
)


def denied(text: str, span: Span) -> bool:
    """Whether the words before the span deny it: "not 5", "rather than 5", "more than 5"."""
    return _DENYING.search(text[max(0, span.start - 40) : span.start]) is not None


_S = TypeVar("_S", bound=Span)
_OPERATOR = re.compile(
    r"(?:^|[\s)}\]])(?:[-+−–*×·÷/=≈^]|\\(?:times|cdot|div|approx)\b|(?:plus|minus|times|equals|divided by)\b)",
    re.IGNORECASE,
)
_RESULT = re.compile(r"=|≈|\\approx|\b(?:equals|is|gives|makes)\b", re.IGNORECASE)


def first_together(text: str, spans: Sequence[_S]) -> list[_S]:
    """The first span and those offered together with it, in order; of "3 + 4 = 7", the 7."""
    first = last = 0
    while last + 1 < len(spans):
        gap = text[spans[last].end : spans[last + 1].start]
        if (
            len(gap) <= MAX_GAP
            and not _BREAK.search(gap)
            and (last > first or _OPERATOR.search(gap))
            and _RESULT.search(gap)
        ):
            first = last + 1
        elif not (len(gap) <= 30 and _OPERATOR.search(gap)) and not offered_together(gap):
            break
        last += 1
    return list(spans[first : last + 1])


def last_together(text: str, spans: Sequence[Span]) -> list[Span]:
    """The last span and those before it that are offered together with it, in order."""
    if not spans:
        return []
    first, earliest = len(spans) - 1, len(spans) - MAX_PARTS
    while first > max(earliest, 0) and offered_together(text[spans[first - 1].end : spans[first].start]):
        first -= 1
    return list(spans[first:])


def different(spans: Sequence[Span]) -> tuple[str, ...]:
    """The distinct texts of the spans; spaces do not matter."""
    return tuple({"".join(span.text.split()): span.text for span in reversed(spans)}.values())[::-1]
