"""Arithmetic and word problems, with their working."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

NAMES = ("ann", "ben", "eva", "tom", "zoe", "max", "kim")
GOODS = ("apples", "books", "cards", "coins", "eggs", "pens", "stamps", "toys")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question whose answer is a whole number from 0 to 100."""

    question: str
    result: int
    working: str


def problem(rng: Random, level: int) -> Problem:
    """Level 1: one-digit sums. 2: sums of numbers up to 30, one-step stories. 3: products, two steps."""
    if level == 1:
        return _sum(rng, 9)
    if level == 2:
        return _sum(rng, 30) if rng.random() < 0.5 else _story(rng, 20, steps=1)
    return rng.choice((_product, _three, _two_steps))(rng)


def _sum(rng: Random, most: int) -> Problem:
    a, b = rng.randint(1, most), rng.randint(1, most)
    if rng.random() < 0.5:
        sign, working = "plus", f"{a} + {b} = {a + b}"
        result = a + b
    else:
        a, b = max(a, b), min(a, b)
        sign, working = "minus", f"{a} - {b} = {a - b}"
        result = a - b
    term = working.rpartition("=")[0]
    return Problem(rng.choice((f"{term}= ?", f"what is {a} {sign} {b}?", f"find {term.strip()}.")), result, working)


def _product(rng: Random) -> Problem:
    a, b = rng.randint(2, 10), rng.randint(2, 10)
    who, what = rng.choice(NAMES), rng.choice(GOODS)
    questions = (f"{a} * {b} = ?", f"what is {a} times {b}?", f"{who} has {a} bags of {b} {what}. how many {what}?")
    return Problem(rng.choice(questions), a * b, f"{a} * {b} = {a * b}")


def _three(rng: Random) -> Problem:
    a, b, c = (rng.randint(1, 20) for _ in "abc")
    c = min(c, a + b)
    return Problem(f"{a} + {b} - {c} = ?", a + b - c, f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}")


def _two_steps(rng: Random) -> Problem:
    return _story(rng, 20, steps=2)


_GETS = ("gets {} more", "buys {} more", "finds {} more")
_LOSES = ("gives {} away", "loses {}", "sells {}")


def _story(rng: Random, most: int, steps: int) -> Problem:
    who, what, total = rng.choice(NAMES), rng.choice(GOODS), rng.randint(2, most)
    clauses, working = [f"{who} has {total} {what}"], []
    for _ in range(steps):
        amount = rng.randint(1, most)
        if amount <= total and rng.random() < 0.5:
            clauses.append(rng.choice(_LOSES).format(amount))
            working.append(f"{total} - {amount} = {total - amount}")
            total -= amount
        else:
            clauses.append(rng.choice(_GETS).format(amount))
            working.append(f"{total} + {amount} = {total + amount}")
            total += amount
    return Problem(f"{' and '.join(clauses)}. how many {what} now?", total, ", ".join(working))
