r"""One number: a measurement, a count or the result of a calculation."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.parsing.answer_numbers import answer_numbers, gold_number
from morl.rewards.reward import Example, Verdict, reward


@reward(
    "number",
    examples=[
        Example("There are 43.0 of them.", 43, 1.0),
        Example("There are 44 of them.", 43, 0.0),
        Example("3 or 4", 3, 0.0),
        Example("<think>12</think>The answer is 1,234 km.", "1234", 1.0),
        Example(r"\boxed{3.14}", 3.14159, 1.0, {"tolerance": 0.01}),
        Example("95", 100, 1.0, {"relative_tolerance": 0.05}),
        Example("94", 100, 0.0, {"relative_tolerance": 0.05}),
        Example("many", 43, 0.0),
        Example("43", "a few", None),
    ],
    answer=lambda gold: f"The answer is {gold}",
)
def number(
    response: str,
    gold: Any,
    *,
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
) -> Verdict:
    r"""1 when the answer is one number and equals the gold, else 0; several different numbers are wrong.

    Reads the last `<answer>` after the thinking, if there is one, and in it the last `\boxed{}`; without a box, the
    number that follows "answer is"; without that, the last number. A denied number (the 3 of "4, not 3") is skipped.
    Signs, decimals, `1,234`, `3/4`, `1 3/4`, `\frac{3}{4}`, `1e-5`, `2 \times 10^3` and "5 thousand" are read exactly;
    units and percent signs are ignored. A number within a larger term, such as `5\pi`, `\sqrt{5}`, `2 + 5` without
    a result or `5x` in a box, is wrong.

    `tolerance` is the allowed difference, `relative_tolerance` the allowed difference as a fraction of the gold;
    meeting either is enough.
    """
    target = gold_number(gold)
    if target is None:
        return Verdict(None, "bad_gold", "the gold must be one finite number")
    answers = answer_numbers(response)
    if not answers:
        return Verdict(0.0, "no_answer", "no number in the answer")
    shown = ", ".join(item.text for item in answers[:5])
    if len({item.value for item in answers}) > 1:
        return Verdict(0.0, "ok", f"several numbers: {shown}")
    value = answers[0].value
    if value is None:
        return Verdict(0.0, "ok", f"{shown[:50]}: part of a larger term, too large, or divided by zero")
    allowed = max(Fraction(tolerance), Fraction(relative_tolerance) * abs(target))
    return Verdict(float(abs(value - target) <= allowed), "ok", shown)
