r"""Mathematics: does the answer equal the gold, as a number, formula, set, interval, equation or matrix?

math-verify compares: see `algebra`. Expressions that it would never finish do not reach it: see `_too_large`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from morl.rewards.parsing.algebra import equal, parsed
from morl.rewards.parsing.answer import (
    Span,
    boxes,
    denied,
    different,
    final_text,
    first_together,
    formulas,
    last_together,
    numbers,
    stated,
)
from morl.rewards.parsing.latex import DECIMAL_COMMA, MAX_LENGTH, tidy, without_unit
from morl.rewards.parsing.math_words import labelled
from morl.rewards.parsing.plain_numbers import plain_value
from morl.rewards.parsing.question import question
from morl.rewards.parsing.stated_values import answer_text
from morl.rewards.parsing.unevaluated import after_approximation, left_undone
from morl.rewards.reward import Example, Verdict, reward

MAX_NESTING = 12
"""The greatest depth of brackets; the parser's time grows steeply with it."""
MAX_TAIL = 2000
"""Characters at the end of a response that are searched for an answer without a box or "answer is"."""


def _boxed(gold: Any) -> str:
    return f"\\boxed{{{gold_text(gold)}}}"


@reward(
    "math",
    examples=[
        # A worker warms up with the first example, so it must need the parser.
        Example(r"So it is \boxed{2\sqrt{3}}.", r"\sqrt{12}", 1.0),
        Example(r"So it is \boxed{\frac{1}{2}}.", "0.5", 1.0),
        Example(r"So it is \boxed{\frac{1}{3}}.", "0.5", 0.0),
        Example(r"<think>\boxed{3}</think> Therefore \boxed{4}.", "4", 1.0),
        Example(r"<think>It may be \boxed{4}, or", "4", 0.0),
        Example(r"First \boxed{3}, so finally \boxed{4}.", "4", 1.0),
        Example(r"It is \boxed{3} or \boxed{4}.", "4", 0.0),
        Example(r"x = \boxed{3 \text{ or } 4}", "$3, 4$", 1.0),
        Example(r"\boxed{3}", "3, 4", 0.0),
        Example("The answer is 1,234 dollars.", "1234", 1.0),
        Example("The answer is 4 or 5.", "4", 0.0),
        Example("I give up.", "4", 0.0),
        Example("2 * 2", "4", 0.0),
        Example("2 + 2 = 4", "4", 1.0),
        Example("2 + 2 ≈ 5", "4", 0.0),
        Example(r"\boxed{\frac{8}{2}}", "4", 0.0),
        Example(r"\boxed{9^{9^{9^{9}}}}", "4", 0.0),
        Example(r"\boxed{4}", "", None),
        Example(r"\boxed{4}", r"\frac{1}{", None),
    ],
    answer=_boxed,
)
def math(response: str, gold: Any, messages: Sequence[Any] = ()) -> Verdict:
    r"""1 when the answer equals the gold mathematically, else 0.

    Reads the last `<answer>` after the thinking, if there is one, and in it the last `\boxed{}`; without a box,
    what follows "answer is" or `####`, in prose its first formula or number; without that, the last formula or
    number. A denied number ("not 5", "more than 5") is skipped. "3 or 4" and two boxes side by side are one answer of
    two parts: right if the gold has those two parts, or if each part equals the gold; wrong otherwise.

    An unevaluated calculation ("34 * 2" for 68) is wrong if the gold is a plain number or the question asks for just
    that calculation. An answer on which math-verify times out is wrong. If the gold is a letter, `(B) 12` is read
    as B.

    The gold is LaTeX, a number, a list whose order does not matter, or a GSM8K solution, whose answer follows `####`.
    """
    try:
        gold_latex = gold_text(gold)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    refusal = _refusal(gold_latex)
    if refusal is None and _HUGE_POWER.search(gold_latex):
        refusal = "its power of ten has six or more digits"
    if refusal is None and not _is_mathematics(gold_latex):
        refusal = "cannot be read as mathematics"
    if refusal is not None:
        return Verdict(None, "bad_gold", f"the gold {gold_latex[:100]!r}: {refusal}")
    parts = [labelled(tidy(after_approximation(part, gold_latex)), gold_latex) for part in answer_parts(response)]
    if isinstance(plain_value(gold_latex), Fraction):
        parts = [without_unit(DECIMAL_COMMA.sub(r"\1.\2", part) if "." in gold_latex else part) for part in parts]
    if not any(parts):
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    shown = " ; ".join(parts)
    if _without_spaces(shown) == _without_spaces(gold_latex):
        return Verdict(1.0, "ok", f"{shown[:200]}: the gold itself")
    pieces = [piece for part in parts for piece in _BETWEEN.split(part) if piece]
    if any(left_undone(piece, gold_latex, question(messages)) for piece in pieces):
        return Verdict(0.0, "ok", f"{shown[:200]}: a calculation, not its result")
    refusal = _refusal(shown)
    if refusal is None and _too_large(shown) and not _too_large(gold_latex):
        refusal = "a number too large to be an answer"
    if refusal is not None:
        return Verdict(0.0, "ok", f"{shown[:200]}: {refusal}")
    try:
        right = equal(gold_latex, " ; ".join(parts)) or (
            len(pieces) > 1 and all(equal(gold_latex, piece) for piece in pieces)
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # sympy may raise anything on what a policy wrote
        return Verdict(0.0, "ok", f"{shown[:200]}: cannot be compared with the gold ({type(error).__name__})")
    except BaseException as error:
        from math_verify.errors import TimeoutException

        # It is not an Exception. The gold has been parsed above; if it is not too large, the answer is the slow one.
        if not isinstance(error, TimeoutException) or _too_large(gold_latex):
            raise
        return Verdict(0.0, "ok", f"{shown[:200]}: a calculation that takes too long")
    if right:
        return Verdict(1.0, "ok", shown)
    return Verdict(0.0, "ok", f"{shown}: not equal to {gold_latex[:100]}")


_BETWEEN = re.compile(r"\s*(?:\\text\s*\{\s*or\s*\}|\bor\b)\s*")


def gold_text(gold: Any) -> str:
    """The gold as LaTeX without delimiters. Raises: ValueError when it is empty or not one answer."""
    if isinstance(gold, Sequence) and not isinstance(gold, str):
        if not gold:
            raise ValueError("the gold is an empty list")
        return " ; ".join(gold_text(part) for part in gold)
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise ValueError(f"the gold must be text, a number or a list of them, not {type(gold).__name__}")
    text = answer_text(str(gold).rpartition("####")[2])
    spans = last_together(text, boxes(text))
    if not spans:
        spans = formulas(text)
        if len(spans) != len(last_together(text, spans)):
            raise ValueError("the gold is a text with several formulas: put the answer in \\boxed{}")
    text = tidy(" ; ".join(different(spans)) if spans else text)
    if not text or text in ("nan", "inf", "-inf"):
        raise ValueError("the gold is empty" if not text else f"the gold is {text}")
    return text


def answer_parts(response: str) -> tuple[str, ...]:
    """The parts of the answer as written: one, unless several are offered together."""
    text = answer_text(final_text(response))
    if "\\begin" in text:  # the rows of a matrix are not separate lines
        text = text[:-MAX_ROWS] + _ENVIRONMENT.sub(lambda match: " ".join(match.group().split()), text[-MAX_ROWS:])
    boxed = last_together(text, boxes(text))
    if boxed:
        return different(_with_hedge(text, boxed))
    if "\\boxed" in text:
        return ()  # cut off inside the box
    statement = stated(text)
    return (
        _unboxed(text[-MAX_TAIL:], stated=False) if statement is None else _unboxed(statement[:MAX_TAIL], stated=True)
    )


_ENVIRONMENT = re.compile(r"\\begin\{([a-z]{1,12}\*?)\}.{0,2000}?\\end\{\1\}", re.DOTALL)
MAX_ROWS = 20_000
"""Characters at the end of a response in which a matrix may run over several lines."""

_HEDGE = r"\b(?:or|alternatively|otherwise|maybe|perhaps|possibly)\b"
_OR = re.compile(
    rf"[\s$)\\,.;:(*]{{0,6}}(?:text\{{\s*)?{_HEDGE}(?:[\s,]{{1,3}}(?:{_HEDGE}|even|else|also)){{0,2}}[\s,}}$(\\*:]{{0,8}}",
    re.IGNORECASE,
)
_PERCENT_SIGN = re.compile(r"\s?\\?%")
# "9π", "√2/2": a number within them would be another answer.
_SYMBOLIC = re.compile(r"(?<!\w)[-−]?\d{0,9}[√π][\d√π()/^²³*·]{0,30}(?<![(*·/^])(?: ?≈ ?\d[\d.]{0,15}(?<!\.))?")
_HALF_OPEN = re.compile(r"\[[^][(),\n]{1,40},[^][(),\n]{1,40}\)|\([^][(),\n]{1,40},[^][(),\n]{1,40}\]")


def _with_hedge(text: str, boxed: list[Span]) -> list[Span]:
    """The boxes, and a number or formula that an "or" joins to them."""
    start, end = boxed[0].start, boxed[-1].end
    before, after = text[max(0, start - 60) : start], text[end : end + 60]
    left = [other for other in _candidates(before)[-1:] if _OR.fullmatch(before, other.end)]
    right = [other for other in _candidates(after)[:1] if _OR.fullmatch(after, 0, other.start)]
    return [*left, *boxed, *right]


_PROSE = re.compile(r"(?<![\\\w])(?!(?:or|and|sqrt|pi|ln|log|sin|cos|tan|exp)\b)[^\W\d_]{2,}")
MAX_LEAD = 2
"""The most words between "answer is" and its number ("answer is about 5"); after more, the last number counts."""


def _candidates(text: str) -> list[Span]:
    """The formulas of a text, and the half-open intervals and numbers outside them, in order."""
    spans = formulas(text)
    notations = [
        Span(match.group(), *match.span()) for match in (*_HALF_OPEN.finditer(text), *_SYMBOLIC.finditer(text))
    ]
    for span in (*notations, *numbers(text)):
        if not any(other.start <= span.start < other.end for other in spans):
            percent = r"\%" if _PERCENT_SIGN.match(text, span.end) else ""
            spans.append(Span(span.text + percent, span.start, span.end))
    return sorted(spans, key=lambda span: span.start)


def _unboxed(text: str, *, stated: bool) -> tuple[str, ...]:
    candidates = _candidates(text)
    in_formulas = bool(formulas(text))
    # A short text of symbols, or a name, is the answer as a whole. In prose, the answer is a formula or number: the
    # first one after "answer is", else the last one.
    words = _PROSE.findall(text)
    if (
        not in_formulas
        and len(text) <= 60
        and "\n" not in text
        and (not words or ((stated or len(words) <= 2) and not candidates))
    ):
        return (text,)
    affirmed = [span for span in candidates if not denied(text, span)]
    if stated and affirmed and len(_PROSE.findall(text, 0, affirmed[0].start)) <= MAX_LEAD:
        return different(first_together(text, affirmed))
    return different(last_together(text, affirmed))


_SET_AS_TEXT = re.compile(r"\\text\s?\{([^{}]*)\}")


def _without_spaces(text: str) -> str:
    return "".join(_SET_AS_TEXT.sub(r"\1", text).split())


def _refusal(text: str) -> str | None:
    """Why the text must not reach the parser; None if it may."""
    if len(text) > MAX_LENGTH:
        return "too long to be read"
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return "brackets nested too deeply to be read" if deepest > MAX_NESTING else None


_LARGE = re.compile(
    r"""
    (?<![\d.]) (?!1[^\d.]) [\d.]+ [\s})]* (?:\^|\*\*) [-+\s{(]*    # a base that is not 1, and as its exponent
      (?: [^{}()^]* (?:\^|\*\*) [-+\s{(]* \d | \d{5,} | [^{}()^!]*! )  # a power, five digits or a factorial
    | \d{6,} [\s})]* !  |  ! [\s})]* !                             # 999999!, (9!)!
    | ! [\s})]* (?:\^|\*\*) [-+\s{(]* (?: \d{3,} | [^{}()^!]*! )  # 9!^{999}, 9!^{9!}
    | \d [eE] [-+]? \d{5,}
    | \\[dt]?binom \s* \{ \s* \d{5,}
    """,
    re.VERBOSE,
)


_HUGE_POWER = re.compile(r"10\^\{[-+]?\d{6,}\}")


def _too_large(text: str) -> bool:
    """Whether evaluation might never end: towers of powers, huge exponents and factorials."""
    return _LARGE.search(text) is not None


def _is_mathematics(latex: str) -> bool:
    return plain_value(latex) is not None or not all(isinstance(item, str) for item in parsed(latex))
