r"""Mathematics: is the answer equal to the gold, as numbers, formulas, sets, intervals, equations or matrices?

The comparison is math-verify's, with the gold first (it is not symmetric). Its own timeouts use SIGALRM
and so need a main thread, which a worker has; what they cannot interrupt, the runner kills.
What math-verify would get wrong or never finish is kept from it: see `_too_large` and `_is_mistaken`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from morl.rewards.answer import (
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
from morl.rewards.decorator import Example, Verdict, reward
from morl.rewards.latex import DECIMAL_COMMA, MAX_LENGTH, tidy, without_unit
from morl.rewards.plain import compared, plain_value
from morl.rewards.question import question
from morl.rewards.reading import answer_text
from morl.rewards.undone import after_approximation, left_undone

TIMEOUT_S = 4
"""Whole seconds for each parse and each comparison."""
MAX_NESTING = 12
"""Brackets within brackets; the parser's time grows steeply with them."""
MAX_TAIL = 2000
"""Characters at the end of a response that are searched for an answer which is neither boxed nor stated."""


def _boxed(gold: Any) -> str:
    return f"\\boxed{{{gold_text(gold)}}}"


@reward(
    "math",
    examples=[
        # With the first one a worker warms up: it must need the parser.
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
    what follows "answer is" or `####`, in prose its first formula or number; without that, the last one. A number
    that is denied ("not 5", "more than 5") is none. "3 or 4" and two boxes side by side are one answer of two
    parts: right for a gold of those two parts, or if each equals the gold, and wrong otherwise.

    Where the gold is a plain number, a calculation left undone ("34 * 2" for 68) is wrong, and so is one that takes
    longer than the deadline of math-verify.

    The gold is LaTeX, a number, or a list whose order does not matter; of a GSM8K solution, what follows `####`.
    """
    try:
        gold_latex = gold_text(gold)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    refusal = _refusal(gold_latex)
    if refusal is None and _SENSELESS.search(gold_latex):
        refusal = "its power of ten has six digits or more"
    if refusal is None and not _is_mathematics(gold_latex):
        refusal = "cannot be read as mathematics"
    if refusal is not None:
        return Verdict(None, "bad_gold", f"the gold {gold_latex[:100]!r}: {refusal}")
    parts = [tidy(after_approximation(part, gold_latex)) for part in answer_parts(response)]
    if isinstance(plain_value(gold_latex), Fraction):
        parts = [without_unit(DECIMAL_COMMA.sub(r"\1.\2", part) if "." in gold_latex else part) for part in parts]
    if not any(parts):
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    shown = " ; ".join(parts)
    if _squeezed(shown) == _squeezed(gold_latex):
        return Verdict(1.0, "ok", f"{shown[:200]}: the gold itself")
    pieces = [piece for part in parts for piece in _BETWEEN.split(part) if piece]
    if any(left_undone(piece, gold_latex, question(messages)) for piece in pieces):
        return Verdict(0.0, "ok", f"{shown[:200]}: a calculation, not its result")
    refusal = _refusal(shown)
    if refusal is None and _too_large(shown) and not _too_large(gold_latex):
        refusal = "a number too large to be meant"
    if refusal is not None:
        return Verdict(0.0, "ok", f"{shown[:200]}: {refusal}")
    try:
        right = _equal(gold_latex, " ; ".join(parts)) or (
            len(pieces) > 1 and all(_equal(gold_latex, piece) for piece in pieces)
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever algebra runs into with what a policy wrote
        return Verdict(0.0, "ok", f"{shown[:200]}: cannot be compared with the gold ({type(error).__name__})")
    except BaseException as error:
        from math_verify.errors import TimeoutException

        # That is no Exception. What takes so long beside a plain number is no result.
        if not isinstance(error, TimeoutException) or not isinstance(plain_value(gold_latex), Fraction):
            raise
        return Verdict(0.0, "ok", f"{shown[:200]}: a calculation too long to be done")
    if right:
        return Verdict(1.0, "ok", shown)
    return Verdict(0.0, "ok", f"{shown}: not equal to {gold_latex[:100]}")


_BETWEEN = re.compile(r"\s*(?:\\text\s*\{\s*or\s*\}|\bor\b)\s*")


def gold_text(gold: Any) -> str:
    """The gold as LaTeX without delimiters. Raises: ValueError when it is empty, or not one answer."""
    if isinstance(gold, Sequence) and not isinstance(gold, str):
        if not gold:
            raise ValueError("the gold is an empty list")
        return " ; ".join(gold_text(part) for part in gold)
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        raise ValueError(f"the gold must be text, a number or a list of them, not {type(gold).__name__}")
    text = answer_text(str(gold).rpartition("####")[2])
    found = last_together(text, boxes(text))
    if not found:
        found = formulas(text)
        if len(found) != len(last_together(text, found)):
            raise ValueError("the gold is a text with several formulas: which is the answer?")
    text = tidy(" ; ".join(different(found)) if found else text)
    if not text or text in ("nan", "inf", "-inf"):
        raise ValueError("the gold is empty" if not text else f"the gold is {text}")
    return text


def answer_parts(response: str) -> tuple[str, ...]:
    """The parts of the answer, as they are written: one, unless several are offered together."""
    text = answer_text(final_text(response))
    found = last_together(text, boxes(text))
    if found:
        return different(_with_hedge(text, found))
    if "\\boxed" in text:
        return ()  # cut off within its box
    said = stated(text)
    return _unboxed(text[-MAX_TAIL:], stated=False) if said is None else _unboxed(said[:MAX_TAIL], stated=True)


_HEDGE = r"\b(?:or|alternatively|otherwise|maybe|perhaps|possibly)\b"
_OR = re.compile(
    rf"[\s$)\\,.;:(*]{{0,6}}(?:text\{{\s*)?{_HEDGE}(?:[\s,]{{1,3}}(?:{_HEDGE}|even|else|also)){{0,2}}[\s,}}$(\\*:]{{0,8}}",
    re.IGNORECASE,
)
_PERCENT_SIGN = re.compile(r"\s?\\?%")


def _with_hedge(text: str, found: list[Span]) -> list[Span]:
    """The boxes, with a number or a formula that an "or" joins to them."""
    start, end = found[0].start, found[-1].end
    before, after = text[max(0, start - 60) : start], text[end : end + 60]
    left = [other for other in _candidates(before)[-1:] if _OR.fullmatch(before, other.end)]
    right = [other for other in _candidates(after)[:1] if _OR.fullmatch(after, 0, other.start)]
    if right and _PERCENT_SIGN.match(after, right[0].end):
        right = [Span(right[0].text + r"\%", right[0].start, right[0].end)]
    return [*left, *found, *right]


_PROSE = re.compile(r"(?<![\\\w])(?!(?:or|and|sqrt|pi|ln|log|sin|cos|tan|exp)\b)[^\W\d_]{2,}")
MAX_LEAD = 2
"""Words between "answer is" and its number, as in "answer is about 5", at most; with more the number comes last."""


def _candidates(text: str) -> list[Span]:
    """The formulas of a text, and its numbers that stand in none, in order."""
    found = formulas(text)
    bare = [number for number in numbers(text) if not any(f.start <= number.start < f.end for f in found)]
    return sorted([*found, *bare], key=lambda span: span.start)


def _unboxed(text: str, *, stated: bool) -> tuple[str, ...]:
    candidates = _candidates(text)
    in_formulas = bool(formulas(text))
    # A few symbols, or a name, are the answer as a whole; in prose it is a formula or number: what is stated
    # begins with it, and what leads to an answer ends with it.
    words = _PROSE.findall(text)
    if not in_formulas and len(text) <= 60 and (not words or (len(words) <= 2 and not candidates)):
        return (text,)
    meant = [span for span in candidates if not denied(text, span)]
    if stated and meant and len(_PROSE.findall(text, 0, meant[0].start)) <= MAX_LEAD:
        return different(first_together(text, meant))
    return different(last_together(text, meant))


_NAMED = re.compile(r"([a-zA-Z](?:_\{?\w\}?)?)\s*=\s*([^=].*)")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _refusal(text: str) -> str | None:
    """Why the text is not given to the parser; None when it is."""
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
    | \d [eE] [-+]? \d{5,}
    | \\[dt]?binom \s* \{ \s* \d{5,}
    """,
    re.VERBOSE,
)


_SENSELESS = re.compile(r"10\^\{[-+]?\d{6,}\}")


def _too_large(text: str) -> bool:
    """Whether computing it might take for ever: towers of powers, huge exponents and factorials."""
    return _LARGE.search(text) is not None


@functools.lru_cache(maxsize=512)
def _parsed(latex: str) -> tuple[Any, ...]:
    """Sympy expressions, and the normalised text. Raises: math-verify's timeout, which is no Exception."""
    from math_verify import LatexExtractionConfig, parse

    found = parse(f"${latex}$", [LatexExtractionConfig()], parsing_timeout=TIMEOUT_S, raise_on_error=True)
    return tuple(found)


def _is_mathematics(latex: str) -> bool:
    return plain_value(latex) is not None or not all(isinstance(item, str) for item in _parsed(latex))


def _equal(gold: str, answer: str) -> bool:
    same = compared(gold, answer)
    if same is not None:
        return same
    if gold.endswith("%") != answer.endswith("%") and compared(_PERCENT.sub("", gold), _PERCENT.sub("", answer)):
        return True
    named, chain = _NAMED.fullmatch(gold), _NAMED.fullmatch(answer)
    if named and chain and named[1] == chain[1] and "=" in chain[2] and "=" not in named[2]:
        return _equal(named[2], chain[2])  # "x = 5 + 6 = 11" for "x = 11"
    from math_verify import verify

    known, given = _parsed(gold), _parsed(answer)
    percent = "%" in gold + answer
    if known and given and not percent and _are_far_apart(known[0], given[0]):
        return False
    same = verify(
        list(known), list(given), allow_set_relation_comp=True, timeout_seconds=TIMEOUT_S, raise_on_error=True
    )
    return bool(same) and not _is_mistaken(known[0], given[0], percent=percent)


_PERCENT = re.compile(r"\s*\\?%$")


def _are_far_apart(gold: Any, answer: Any) -> bool:
    """Whether they are different numbers, made of roots: math-verify would try to simplify their difference."""
    from sympy import Add, Basic, Float, Mul, NumberSymbol, Pow, Rational, preorder_traversal

    def simple(item: Any) -> bool:
        if isinstance(item, Pow):
            return isinstance(item.exp, Rational) and abs(item.exp) <= 100
        return isinstance(item, Rational | Float | NumberSymbol | Add | Mul)

    if not isinstance(gold, Basic) or not isinstance(answer, Basic) or gold == answer:
        return False
    return all(map(simple, [*preorder_traversal(gold), *preorder_traversal(answer)])) and not _close(gold, answer)


def _is_mistaken(gold: Any, answer: Any, *, percent: bool) -> bool:
    """Whether math-verify calls two things equal that are not.

    It rounds to six decimals, so that all tiny numbers are equal; it takes the right side of any
    equation, so that "9 = 1" is 1; and two equations without a real solution have the same solutions.
    """
    from sympy import And, Basic, Eq

    if not isinstance(gold, Basic) or not isinstance(answer, Basic) or gold == answer:
        return False
    if isinstance(answer, And):
        return any(_is_mistaken(gold, part, percent=percent) for part in answer.args if not part.free_symbols)
    if isinstance(answer, Eq):
        if isinstance(gold, Eq):
            return gold.free_symbols != answer.free_symbols or not (
                _have_solution(gold) or _in_proportion(gold, answer)
            )
        try:
            return not answer.free_symbols and not _close(answer.lhs, answer.rhs)
        except TypeError:  # a limit, say, which cannot be checked
            return False
    return not percent and bool(gold.is_number and answer.is_number) and not _close(gold, answer)


def _close(one: Any, other: Any) -> bool:
    """Whether two numbers agree to four digits."""
    x, y = complex(one.evalf()), complex(other.evalf())
    return abs(x - y) <= 1e-4 * max(abs(x), abs(y))


def _have_solution(equation: Any) -> bool:
    from sympy import solve

    return bool(solve(equation, *equation.free_symbols))


def _in_proportion(one: Any, other: Any) -> bool:
    """Whether the two equations' sides differ by a constant factor, which makes them one equation."""
    from sympy import simplify

    ratio = simplify((one.lhs - one.rhs) / (other.lhs - other.rhs))
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)
