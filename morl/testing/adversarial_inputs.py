"""Adversarial inputs that a reward must survive: what policies write by chance, and to exploit rewards."""

from __future__ import annotations

from typing import Any

QUESTION = "What is the answer? Put it in \\boxed{}, as [x1, y1, x2, y2] or as one of (A) 4 (B) 5 (C) 6."
"""The prompt of every adversarial response."""

_MB = 1_000_000


def _repeated(text: str) -> str:
    """A megabyte of `text`."""
    return text * (_MB // len(text))


HOSTILE_RESPONSES: tuple[str, ...] = (
    # Empty or invisible.
    "",
    " ",
    "\n\t\r\n",
    "\x00",
    "\ufeff",
    "\u200b\u200d\u2060",
    "\u202e42\u202c",
    "\ud800",
    "４２",
    "٤٢",
    "a" + "\u0301" * 5000,
    # Thinking without an end, or without an answer.
    "<think>",
    "<think>The answer is 4.",
    "</think>",
    "<think></think>",
    "<think>" * 10_000,
    "</think>" * 10_000,
    # The question repeated, templates and special tokens.
    QUESTION,
    f"You asked: {QUESTION} That is the question.",
    "{{ gold }} {gold} %s %(gold)s {0.__class__}",
    "<|image_pad|>" * 1000,
    "<|im_end|><|endoftext|>",
    "__import__('os').system('true')",
    # Hedges and lists of everything.
    "A or B",
    "(A) (B) (C) (D) (E) (F) (G) (H) (I) (J)",
    " ".join(str(number) for number in range(2000)),
    # Non-finite numbers, and numbers too large to compute.
    "NaN",
    "Infinity",
    "-inf",
    "1e999",
    "-1e-999",
    "1/0",
    "9" * 5000,
    "9^{9^{9^{9^9}}}",
    "10**10**10",
    "(((9!)!)!)!",
    # Truncated formulas.
    r"\boxed{",
    r"\boxed{}",
    r"\frac{\boxed{{{4",
    r"\left(\frac{1}{2",
    r"\boxed{" * 10_000,
    r"\sqrt{" * 2000 + "1" + "}" * 2000,
    "$" * 9999,
    "\\" * 10_001,
    # Truncated, duplicate or excessive JSON.
    "null",
    "true",
    "[]",
    "{}",
    "[[[",
    '{"a":',
    '```json\n{"a": 1',
    "```json\n[]\n```",
    '{"a": 1, "a": 2}',
    '{"bbox_2d": [NaN, Infinity, -Infinity, 1e999], "label": null}',
    '[{"bbox_2d": [1, 1, 2, 2]}' + ', {"bbox_2d": [1, 1, 2, 2]}' * 9999 + "]",
    # Inverted boxes and time spans.
    "[-5, -5, -10, -10]",
    "[90, 90, 10, 10]",
    "[0, 0, 0, 0]",
    "<|box_start|>(9,9),(1,1)<|box_end|>",
    "<point>nan nan</point>",
    "[99:99, 00:00]",
    "from 8 s to 3.2 s",
    "click(start_box='(1e999,-1)')",
    '[{"action": "click", "point": [1e999, -1]}, {"action": 7}, null]',
    # A megabyte each: anything slower than linear time misses the deadline.
    *map(_repeated, ("1", "[", "(", "{", "a", " ", "\n", "-", '"', "\\", "$", "<", "`", "é", "！", "####", '{"a":')),
    *map(_repeated, ("[1,2,3,4]", "a ", "1,", "1 or ", "1:", "A) ", "```\n", "<think>", "answer is ", "answer is 4. ")),
    *map(_repeated, (r"\boxed{1}", r"\frac{")),
)  # fmt: skip
"""Responses that must get a value in [0, 1] within the deadline, for any valid gold."""


def _nested(depth: int) -> list[Any]:
    gold: list[Any] = []
    for _ in range(depth):
        gold = [gold]
    return gold


HOSTILE_GOLDS: tuple[Any, ...] = (
    None, "", " ", "\u200b", "\ud800", "nan", "a" * 100_000, "1" * 5000, "[", "{", r"\frac{",
    0, -1, 1.5, True, False, 10**400, float("nan"), float("inf"),
    [], [None], [[]], ["a", None, 3], [float("nan")] * 4, [90, 90, 10, 10], [0, 0, 0, 0], list(range(10_000)),
    _nested(200),
    {}, {"": None}, {"answer": None}, {"bbox": "x"}, {"type": "click"}, {"a": {"b": [{"c": None}]}},
)  # fmt: skip
"""Golds that may be invalid, which the reward must report in a verdict."""
