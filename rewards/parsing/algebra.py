r"""Equality of two formulas: math-verify's comparison, and corrections where it is wrong.

math-verify takes the gold first; it is not symmetric. Its timeouts use SIGALRM and need the main thread, which a
worker has; the runner kills what they cannot interrupt.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from morl.rewards.parsing.latex import without_unit
from morl.rewards.parsing.math_words import opposed, same_word
from morl.rewards.parsing.plain_numbers import compared, plain_value

TIMEOUT_S = 4
"""Seconds for each parse and each comparison; a whole number."""


# math-verify reads "E_1" as Euler's number and drops the rest.
_SUBSCRIPTED = re.compile(r"(?<![\\a-zA-Z])([eEI])(?=_)")


@functools.lru_cache(maxsize=512)
def parsed(latex: str) -> tuple[Any, ...]:
    """The sympy expressions and the normalised text. Raises: math-verify's timeout, which is not an Exception."""
    from math_verify import LatexExtractionConfig, parse

    latex = _SUBSCRIPTED.sub(r"\\mathcal{\1}", latex)
    items = parse(f"${latex}$", [LatexExtractionConfig()], parsing_timeout=TIMEOUT_S, raise_on_error=True)
    return tuple(items)


_LEFT = re.compile(r"(?!.*\\not)[^=<>\d]*=\s*(?!.*=)")
"""The left side of an answer: "n_{\\min} ="."""
_NAMED = re.compile(r"([a-zA-Z](?:_\{?\w\}?)?)\s*=\s*([^=].*)")


def equal(gold: str, answer: str) -> bool:
    """Whether the answer equals the gold; both are tidied. Raises: anything sympy raises, and math-verify's timeout."""
    if opposed(gold, answer):
        return False
    same = compared(gold, answer)
    same = same_word(gold, answer) if same is None else same
    if same is not None:
        return same
    bare = without_unit(gold)
    if bare != gold and plain_value(bare) is not None:
        return equal(bare, without_unit(answer))
    left = _LEFT.match(answer)
    if left and compared(gold, answer[left.end() :]):
        return True
    if gold.endswith("%") != answer.endswith("%") and compared(_PERCENT.sub("", gold), _PERCENT.sub("", answer)):
        return True
    named, chain = _NAMED.fullmatch(gold), _NAMED.fullmatch(answer)
    if named and chain and named[1] == chain[1] and "=" in chain[2] and "=" not in named[2]:
        return equal(named[2], chain[2])  # "x = 5 + 6 = 11" for "x = 11"
    from math_verify import verify

    gold, answer = _ascending(gold), _ascending(answer)
    if (same := _same_range(gold, answer)) is not None:
        return same
    gold_items, answer_items = parsed(gold), parsed(answer)
    percent = "%" in gold + answer
    if gold_items and answer_items:
        if not percent and _are_far_apart(gold_items[0], answer_items[0]):
            return False
        orders, values = _assigned(gold_items[0]), _listed(answer_items[0])
        if _BRACES.match(answer) and values and (orders or (_listed(gold_items[0]) and gold.startswith("("))):
            return False
        if orders and values:
            gold_items, answer_items = tuple(orders), (values,)
    same = verify(
        list(gold_items),
        list(answer_items),
        allow_set_relation_comp=True,
        timeout_seconds=TIMEOUT_S,
        raise_on_error=True,
    )
    return bool(same) and not _is_mistaken(gold_items[0], answer_items[0], percent=percent)


_DESCENDING = re.compile(r"([^<>=]+)(>|\\geq?(?![a-zA-Z]))([^<>=]+)(>|\\geq?(?![a-zA-Z]))([^<>=]+)")


def _ascending(text: str) -> str:
    """The chain "5 > x > -2" as "-2 < x < 5"; math-verify does not equate them."""
    chain = _DESCENDING.fullmatch(text)
    if chain is None or "\\g" in chain[1] + chain[3] + chain[5] or "\\l" in chain[1] + chain[3] + chain[5]:
        return text
    first, second = ("<" if sign == ">" else r"\le " for sign in (chain[4], chain[2]))
    return f"{chain[5]} {first} {chain[3]} {second} {chain[1]}"


_OR = re.compile(r"\s*(?:\\text\s?\{\s*or\s*\}|\bor\b|\\lor(?![a-z])|\\vee(?![a-z]))\s*")


def _same_range(gold: str, answer: str) -> bool | None:
    """Whether "x < 1 or x > 2" and "(-\\infty, 1) \\cup (2, \\infty)" are equal; None if neither has an "or"."""
    if not _OR.search(gold) and not _OR.search(answer):
        return None
    ours, theirs = _range(gold), _range(answer)
    return ours == theirs if ours is not None and theirs is not None else None


def _range(text: str) -> Any:
    """The real numbers in intervals, or allowed by inequalities of a variable and a number; None for anything else.

    There is no time limit here, so no inequality is solved, and no sum, integral or function evaluated.
    """
    from sympy import Derivative, Function, Limit, Set, Union
    from sympy.concrete.expr_with_limits import ExprWithLimits
    from sympy.core.relational import Relational

    ranges = []
    for part in _OR.split(text):
        item = next(iter(parsed(part)), None)
        if not isinstance(item, Relational | Set) or item.has(ExprWithLimits, Limit, Derivative, Function):
            return None
        if isinstance(item, Relational):
            sides = ((item.lhs, item.rhs), (item.rhs, item.lhs))
            if item.rel_op == "==" or not any(one.is_Symbol and not other.free_symbols for one, other in sides):
                return None
            item = item.as_set()
        ranges.append(item)
    return Union(*ranges)


_PERCENT = re.compile(r"\s*\\?%$")


_BRACES = re.compile(r"(?:\\left\s?)?\\\{")


def _listed(item: Any) -> Any:
    """The values of "2, 1", "(2, 1)" and "(x, y) = (2, 1)" as a tuple; None for anything else."""
    from sympy import Eq, FiniteSet, Interval, Tuple

    if isinstance(item, Eq) and isinstance(item.lhs, Tuple) and isinstance(item.rhs, Tuple):
        pairs = sorted(zip(item.lhs.args, item.rhs.args, strict=False), key=str)
        return Tuple(*(value for _, value in pairs))
    if isinstance(item, Interval) and item.left_open and item.right_open:
        return Tuple(item.start, item.end)
    # math-verify's sets keep the written order in `_unsorted_args`.
    values = getattr(item, "_unsorted_args", item.args) if isinstance(item, FiniteSet | Tuple) else ()
    return Tuple(*values) if values and not any(isinstance(value, Eq) for value in values) else None


def _assigned(item: Any) -> list[Any]:
    """The values of "x=1, y=2" as two tuples: in the written order, and in the order of the names."""
    from sympy import Eq, FiniteSet, Tuple

    equations = getattr(item, "_unsorted_args", ()) if isinstance(item, FiniteSet) else ()
    if len(equations) < 2 or not all(isinstance(part, Eq) and part.lhs.is_Symbol for part in equations):
        return []
    if len({part.lhs for part in equations}) < len(equations):
        return []
    return [Tuple(*(part.rhs for part in order)) for order in (equations, sorted(equations, key=str))]


def _are_far_apart(gold: Any, answer: Any) -> bool:
    """Whether they are different numbers made of roots, whose difference math-verify would try to simplify."""
    from sympy import Add, Basic, Float, Mul, NumberSymbol, Pow, Rational, preorder_traversal

    def simple(item: Any) -> bool:
        if isinstance(item, Pow):
            return isinstance(item.exp, Rational) and abs(item.exp) <= 100
        return isinstance(item, Rational | Float | NumberSymbol | Add | Mul)

    if not isinstance(gold, Basic) or not isinstance(answer, Basic) or gold == answer:
        return False
    return all(map(simple, [*preorder_traversal(gold), *preorder_traversal(answer)])) and not _close(gold, answer)


def _is_mistaken(gold: Any, answer: Any, *, percent: bool) -> bool:
    """Whether math-verify wrongly calls the two equal.

    It rounds to six decimals, so all tiny numbers are equal; it takes the right side of any equation, so "9 = 1"
    is 1; and two equations without a real solution have the same solutions.
    """
    from sympy import And, Basic, Eq

    if not isinstance(gold, Basic) or not isinstance(answer, Basic) or gold == answer:
        return False
    if isinstance(answer, And):
        return any(_is_mistaken(gold, part, percent=percent) for part in answer.args if not part.free_symbols)
    if isinstance(answer, Eq):
        if isinstance(gold, Eq):
            return gold.free_symbols != answer.free_symbols or not (
                _in_proportion(gold, answer) or _have_solution(gold)
            )
        try:
            return not answer.free_symbols and not _close(answer.lhs, answer.rhs)
        except TypeError:  # a limit, say, which cannot be checked
            return False
    return not percent and bool(gold.is_number and answer.is_number) and not _close(gold, answer)


def _close(one: Any, other: Any) -> bool:
    """Whether two numbers agree to four digits."""
    x, y = one.evalf(), other.evalf()  # floats end at 1e308
    return bool(abs(x - y) <= 1e-4 * max(abs(x), abs(y)))


def _have_solution(equation: Any) -> bool:
    from sympy import solve

    return bool(solve(equation, *equation.free_symbols))


def _in_proportion(one: Any, other: Any) -> bool:
    """Whether the equations differ by a constant factor only, and so are the same."""
    from sympy import simplify

    ratio = simplify((one.lhs - one.rhs) / (other.lhs - other.rhs))
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)
