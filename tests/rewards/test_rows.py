"""Rows of data against the verifiers: each row of `rows/<verifier>.jsonl` gets the verdict that it states.

A row has the `rule` it stands for, a `response`, and, where they are not the default, `gold`, `options`, `meta`,
`media`, `messages` and `sample` (the loss mask of the response's tokens). The verdict is `value` (null: no score),
`status` where it is not "ok", and `detail` where the reason must hold that text. Rows of one rule stand together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from morl.registry import REWARDS, call_by_name, check_options
from morl.rewards.verdict import to_term_score
from morl.types import Sample, TermScore

Row = dict[str, Any]

FILES = sorted((Path(__file__).parent / "rows").glob("*.jsonl"))
DEFAULTS = {"gold": None, "meta": {}, "media": [], "messages": [], "sample": None}
KEYS = {"rule", "response", "options", "value", "status", "detail", *DEFAULTS}
TOLERANCE = 1e-6


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parsed(lines: Iterable[str]) -> list[tuple[int, Row]]:
    """Each row with the number of its line."""
    return [(number, json.loads(line, parse_constant=no_constant)) for number, line in enumerate(lines, start=1)]


ROWS = {file.stem: parsed(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
BY_RULE = [
    pytest.param(verifier, list(rows), id=f"{verifier}: {rule}")
    for verifier, numbered in ROWS.items()
    for rule, rows in itertools.groupby(numbered, key=lambda item: item[1].get("rule"))
]


def score(verifier: str, row: Row) -> TermScore:
    """The verifier's verdict, called by name with options checked as a recipe's are."""
    function = REWARDS.load(verifier)
    available = {"response": row["response"], **{key: row.get(key, value) for key, value in DEFAULTS.items()}}
    if (mask := available["sample"]) is not None:
        size = len(mask)
        available["sample"] = Sample("p", 0, (1,) * size, tuple(mask), (0.0,) * size, 0, "stop", row["response"])
    return to_term_score(call_by_name(function, available, check_options(function, row.get("options", {}))), 0.0)


def holds(row: Row, found: TermScore) -> bool:
    """Whether a verdict is the one that the row states."""
    if (found.status, row.get("detail", "") in found.detail) != (row.get("status", "ok"), True):
        return False
    if found.value is None or row["value"] is None:
        return found.value is row["value"] is None and bool(found.detail)
    return abs(found.value - row["value"]) <= TOLERANCE


def problems(rows: list[tuple[int, Row]]) -> list[str]:
    """What is wrong with the rows themselves."""
    told: list[str] = []
    seen: dict[str, int] = {}
    rules: list[Any] = []
    for number, row in rows:
        if unknown := sorted(row.keys() - KEYS):
            told.append(f"line {number}: unknown keys {unknown}")
        if missing := sorted({"rule", "response", "value"} - row.keys()):
            told.append(f"line {number}: {missing} missing")
        rule = row.get("rule")
        if not isinstance(rule, str) or not rule.strip():
            told.append(f"line {number}: no rule")
        if rule in rules[:-1]:
            told.append(f"line {number}: apart from the other rows of its rule")
        if rules[-1:] != [rule]:
            rules.append(rule)
        verdict = {"rule", "value", "status", "detail"}
        call = json.dumps({key: value for key, value in row.items() if key not in verdict}, sort_keys=True)
        if (first := seen.setdefault(call, number)) != number:
            told.append(f"line {number}: the same call as in line {first}")
    return told


@pytest.mark.parametrize(("verifier", "rows"), BY_RULE)
def test_every_row_gets_its_verdict(verifier: str, rows: list[tuple[int, Row]]) -> None:
    wrong = []
    for number, row in rows:
        found = score(verifier, row)
        if not holds(row, found):
            expected = {key: row[key] for key in ("value", "status", "detail") if key in row}
            got = f"{found.value} {found.status} ({found.detail})"
            wrong.append(f"rows/{verifier}.jsonl:{number}: {row['response'][:200]!r}: expected {expected}, got {got}")
    assert not wrong, f"{len(wrong)} of {len(rows)} rows of the rule {rows[0][1]['rule']!r}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("verifier", ROWS)
def test_a_file_of_rows_is_well_formed(verifier: str) -> None:
    assert problems(ROWS[verifier]) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['{"rule": "a", "response": "x", "value": 1, "golden": 2}'], "unknown keys ['golden']"),
        (['{"response": "x", "value": 1}'], "no rule"),
        (['{"rule": " ", "response": "x", "value": 1}'], "no rule"),
        (['{"rule": "a", "response": "x"}'], "['value'] missing"),
        (['{"rule": "a", "response": "x", "value": 1}', '{"rule": "b", "response": "x", "value": 0}'], "the same call"),
        ([f'{{"rule": "{rule}", "response": "{i}", "value": 1}}' for i, rule in enumerate("aba")], "apart from"),
    ],
)
def test_a_row_that_is_not_well_formed_is_noticed(lines: list[str], problem: str) -> None:
    assert problem in " ".join(problems(parsed(lines)))


def test_a_row_that_does_not_hold_is_noticed() -> None:
    right = {"response": "4", "gold": 4, "value": 1.0}
    assert holds(right, score("number", right))
    for wrong in ({"value": 0.0}, {"value": None}, {"status": "no_answer"}, {"detail": "no such reason"}, {"gold": []}):
        assert not holds(right | wrong, score("number", right | wrong))


def bad_golds() -> list[tuple[str, int, Row]]:
    return [
        (verifier, number, row)
        for verifier, rows in ROWS.items()
        for number, row in rows
        if row.get("status") == "bad_gold"
    ]


def test_a_gold_that_is_bad_is_bad_whatever_the_response() -> None:
    responses = ("", "[]", "no idea", "43", "(15, 25)", "[10, 20]", '{"action": "click", "start_point": [1, 2]}')
    for verifier, number, row in bad_golds():
        if verifier == "json_schema":  # follows a reference only with a value to check
            continue
        for response in responses:
            found = score(verifier, row | {"response": response})
            assert (found.value, found.status) == (None, "bad_gold"), f"rows/{verifier}.jsonl:{number}, {response!r}"


def test_a_gold_that_is_no_text_is_bad_under_every_metric() -> None:
    metrics = get_args(get_type_hints(REWARDS.load("text"))["metric"])
    golds = [row["gold"] for verifier, _, row in bad_golds() if verifier == "text" and "gold" in row]
    assert len(metrics) >= 6
    assert len(golds) >= 10
    for gold, metric in itertools.product([None, *golds], metrics):
        assert score("text", {"response": "Paris", "gold": gold, "options": {"metric": metric}}).status == "bad_gold"


def test_a_sentence_is_in_its_language_and_in_no_other() -> None:
    rows = [row for _, row in ROWS["language"] if row["rule"] == "a sentence is in its language"]
    assert len(rows) >= 24
    for row, asked in itertools.product(rows, rows):
        expected = float(row is asked)
        assert score("language", {"response": row["response"], "gold": asked["gold"]}).value == expected
    for row in rows:
        assert score("language", {"response": row["response"].upper(), "gold": row["gold"]}).value == 1.0
