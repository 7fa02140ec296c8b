"""What holds for every verifier: its examples, its options, and a verdict in time for whatever a policy may write."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import REWARDS, ValidationError, call_by_name, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward import Verdict
from morl.traits import traits_of

VERIFIERS = (
    "box", "choice", "count", "exact", "format", "gui_action", "instruction", "json_schema", "language", "length",
    "math", "number", "overlong", "point", "regex", "repetition", "temporal", "text",
)  # fmt: skip
BUTTON = {"action": "click", "bbox": [100, 200, 180, 240]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
WORDS = "length_constraints:number_words"
MEGABYTE = 1 << 20


def score(verifier: str, response: str, gold: Any = None, **options: Any) -> Verdict:
    function = REWARDS.load(verifier)
    available = {"response": response, "gold": gold, "messages": (), "media": (), "meta": {}, "sample": None}
    verdict = call_by_name(function, available, check_options(function, options))
    assert isinstance(verdict, Verdict)
    return verdict


def is_verdict(verdict: Verdict) -> bool:
    if verdict.value is None:
        return verdict.status == "bad_gold" and bool(verdict.detail)
    return 0.0 <= verdict.value <= 1.0 and verdict.status in ("ok", "no_answer")


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_examples_hold(verifier: str, runner: WorkerPool) -> None:
    assert len(traits_of(REWARDS.load(verifier)).examples) >= 2
    assert check_examples(verifier, runner) == []


WRONG_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "box": [
        {"frame": "pixels"}, {"metric": "diou"}, {"threshold": 1.5}, {"factor": 0}, {"threshold": math.nan},
    ],
    "count": [{"falloff": 1.5}, {"falloff": math.nan}, {"tolerance": 1}],
    "format": [{"thinking": "maybe"}, {"boxed": -1}, {"tags": True}],
    "gui_action": [
        {"radius": -1}, {"radius": math.inf}, {"frame": "pixels"}, {"scroll": "up"}, {"factor": 0}, {"type_credit": 1},
        {"text_threshold": 0}, {"distance_within": -1}, {"gold_format": "cxcywh"}, {"raduis": 3},
    ],
    "json_schema": [
        {"schema": schema}
        for schema in ({"type": "strin"}, {"$ref": "http://127.0.0.1:9/x"}, {"pattern": "("}, {"a": {1}}, "text", [1])
    ],
    "language": [{"language": "Elvish"}, {"language": []}, {"share": 0}, {"share": math.nan}, {"is": "de"}],
    "length": [{}],
    "overlong": [{}, {"maximum": 5}, {"maximum": 0, "buffer": 0}, {"maximum": 5, "buffer": -1}],
    "point": [{"radius": 0}, {"radius": math.inf}, {"frame": "percent"}],
    "regex": [{"pattern": pattern} for pattern in ("", "a*", "(", "x?|y", "^")],
    "repetition": [{"n": 0}, {"allowed": 1.0}, {"maximum_run": 0}],
    "temporal": [{"threshold": 2}, {"metric": "iou"}],
    "text": [{"metric": "bleu"}, {"threshold": 2}, {"maximum_ratio": 0.5}, {"tolerance": math.nan}, {"tol": 1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("verifier", "options"), [(name, wrong) for name in WRONG_OPTIONS for wrong in WRONG_OPTIONS[name]]
)
def test_wrong_options_fail_at_load(verifier: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check_options(REWARDS.load(verifier), options)


def test_options_are_kept_as_they_are_meant() -> None:
    options = {"frame": "relative_1000", "size_from": ["w", "h"], "threshold": 0.5, "hit": True}
    assert check_options(REWARDS.load("box"), options).items() >= options.items()
    assert check_options(REWARDS.load("language"), {"language": "German"})["language"] == ["de"]
    assert check_options(REWARDS.load("json_schema"), {"schema": SCHEMA})["schema"] == SCHEMA


NAN = math.nan
BAD_GOLDS: dict[str, list[Any]] = {
    "box": [
        b"", [NAN, 2, 3, 4], [1, 2, 3, math.inf], "[" * 5000, [10**5000, 0, 1, 1], [[1, 2, 3, 4]] * 10_000,
    ],
    "count": [NAN, math.inf, b"3", "9" * 5000, 10**5000],
    "gui_action": [b"wait()", {"action": "click", "bbox": [1, 2, 3, NAN]}],
    "instruction": ["[" * 100_000, [{"id": WORDS, "num_words": NAN, "relation": "less than"}]],
    "json_schema": [NAN, {"a": {1, 2}}, {"minimum": math.inf}],
    "language": [NAN],
    "number": [NAN],
    "point": [b"", [NAN, 2]],
    "temporal": [b"", [NAN, 20], [0, math.inf], [[i, i + 1] for i in range(1001)]],
    "text": [b"ab", NAN, math.inf, 10**5000],
}  # fmt: skip


@pytest.mark.parametrize("verifier", BAD_GOLDS)
def test_a_gold_that_no_json_holds_or_that_is_far_too_long_is_bad(verifier: str) -> None:
    options: dict[str, list[dict[str, Any]]] = {
        "box": [{"gold_format": "xyxy"}, {"gold_format": "xywh"}],
        "point": [{"radius": 5}],
        "text": [{"metric": metric} for metric in ("exact", "anls", "wer", "f1", "contains", "relaxed")],
    }
    for gold in BAD_GOLDS[verifier]:
        for chosen in options.get(verifier, [{}]):
            for response in ("[1, 2, 3, 4]", "(15, 25)", '{"a": 1}', "43"):
                verdict = score(verifier, response, gold, **chosen)
                assert (verdict.value, verdict.status, bool(verdict.detail)) == (None, "bad_gold", True), chosen


@pytest.mark.parametrize("gold", [NAN, {1, 2}])
def test_a_gold_that_is_no_json_equals_nothing(gold: Any) -> None:
    assert score("json_schema", '{"a":1}', gold, match="equal").status == "bad_gold"


# Whatever a policy may write: the pieces that verifiers look for, in any order.
COMMON = (
    r"\boxed{", "}", "{", "[", "]", "$", "<think>", "</think>", "<answer>", "</answer>", "answer is ", "Answer: ",
    "####", " or ", ", ", "\n", "```", "```json\n", "A", "(B)", "3", "-4.5", "9^{", r"\frac{1}{2}", "1e999", "NaN",
    "%", "中", "é", "\ud800", "\u200b", "\x00",
)  # fmt: skip
OBJECTS = (
    '{"bbox_2d": [1, 2, 3, 4], "label": "a"}',
    '{"point": [1, 2]}',
    '{"start": 1, "end": 2}',
    '{"action": "wait"}',
)
ANY_GOLD = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


class Case(NamedTuple):
    """What one verifier is asked beside any text and any gold."""

    pieces: tuple[str, ...] = ()
    golds: tuple[Any, ...] = ()
    """Golds that are good: then there is a score."""
    options: tuple[dict[str, Any], ...] = ({},)


CASES = {
    "box": Case(
        ("[1, 2, 3, 4]", "(1,2)", OBJECTS[0]),
        ([1, 2, 3, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], [], [{"box": [1, 2, 3, 4], "label": "a"}]),
        ({"metric": "iou"}, {"metric": "giou"}, {"metric": "giou_shifted"}),
    ),
    "choice": Case(("x=",), ("A",), ({"options": ["5", "12", "7 apples"]},)),
    "count": Case(("three", "total of ", ".5", "-", "one", "hundred"), (3,), ({"falloff": 0.5},)),
    "exact": Case(),
    "json_schema": Case(('"a"', ":", "1"), (SCHEMA,), ({"match": "schema"}, {"match": "equal"})),
    "language": Case((), ("en", "ja"), ({}, {"partial": True})),
    "length": Case((), (), ({"unit": "words", "maximum": 3, "margin": 2},)),
    "number": Case(("/", "x="), (3,)),
    "point": Case(
        ("(1, 2)", "[3, 4, 5, 6]", OBJECTS[1]), ([10, 20, 30, 40], [[1, 2], [3, 4]], [5, 5]), ({"radius": 2},)
    ),
    "regex": Case((), (), ({"pattern": "a+b"},)),
    "repetition": Case((), (None,)),
    "temporal": Case(("[10, 20]", "00:10", " to ", "10", "s", ":", "-", OBJECTS[2]), ([10, 20], [[1, 2], [3, 4]])),
    "text": Case(
        ("the ",),
        ("Paris",),
        tuple({"metric": metric} for metric in ("exact", "anls", "wer", "f1", "contains", "relaxed")),
    ),
}


@pytest.mark.parametrize("verifier", CASES)
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_response_and_any_gold_get_a_verdict(verifier: str, data: st.DataObject) -> None:
    pieces, golds, options = CASES[verifier]
    mixed = st.lists(st.sampled_from((*pieces, *COMMON)), max_size=14).map("".join)
    response = data.draw(mixed | st.text(max_size=60))
    chosen = data.draw(st.sampled_from(options))
    gold = data.draw(ANY_GOLD)
    verdict = score(verifier, response, gold, **chosen)
    assert is_verdict(verdict)
    assert score(verifier, response, gold, **chosen) == verdict
    if golds:
        verdict = score(verifier, response, data.draw(st.sampled_from(golds)), **chosen)
        assert is_verdict(verdict)
        assert verdict.value is not None


# A catastrophic pattern would match for hours.
@pytest.mark.parametrize(
    ("verifier", "response", "gold"),
    [
        ("regex", "a" * 50 + "!", r"(a+)+$"),
        ("json_schema", json.dumps("a" * 50 + "!"), {"type": "string", "pattern": "^(a+)+$"}),
    ],
)
def test_a_pattern_that_backtracks_without_end_is_stopped(
    verifier: str, response: str, gold: Any, runner: WorkerPool
) -> None:
    found = asyncio.run(runner.run(REWARDS.entry(verifier).target, {"response": response, "gold": gold}, {}, 0.5))
    assert (found.value, found.status) == (None, "timeout")


LONG: list[tuple[str, str, Any, dict[str, Any], float]] = [
    ("math", rf"\boxed{{{'9' * 10**6}}}", "5", {}, 0.0),
    ("math", r"\boxed{5" + " " * 10**5 + "6}", "5", {}, 0.0),
    ("count", "9" * 10**6, 3, {}, 0.0),
    ("count", "The answer is " + "-1:-1" * 209_715, 43, {}, 0.0),
    ("box", json.dumps([{"bbox_2d": [200, 150, 260, 210]}] * 100), [200, 150, 260, 210], {"metric": "iou"}, 0.01),
    ("box", "[10, 20, 30, " + "9" * 5000 + "]", [10, 20, 30, 40], {}, 0.0),
    ("box", '{"bbox_2d": [10, 20, 30, ' + "9" * 5000 + "]}", [10, 20, 30, 40], {}, 0.0),
    ("temporal", "[10, " + "9" * 5000 + "]", [10, 20], {}, 0.0),
    ("format", "<think>a</think>```json\n" + "[" * 100_000 + "\n```", None, {"fenced_json": True}, 0.0),
    ("format", "<think>a</think>```json\n" + "9" * 10_000 + "\n```", None, {"fenced_json": True}, 0.0),
    ("json_schema", '{"a":' + "9" * 5000 + "}", SCHEMA, {}, 0.0),
    ("json_schema", '{"a":1,"b":' + "[" * 5000 + "]" * 5000 + "}", SCHEMA, {}, 0.0),
    ("json_schema", '{"a":1, "b":"' + "x" * 300_000 + '"}', SCHEMA, {}, 0.0),
    ("json_schema", json.dumps([{"a": i} for i in range(6000)]), {"type": "array", "uniqueItems": True}, {}, 1.0),
    ("overlong", "x" * 10**6, None, {"maximum": 5, "buffer": 0, "unit": "characters"}, 0.0),
    ("text", "9" * 10**6, "1234", {"metric": "anls"}, 0.0),
    ("text", " ".join(map(str, range(1000))), "7", {"metric": "contains"}, 1 / 1000),
    ("text", "Paris " * 1000, "Paris", {"metric": "contains"}, 1 / 1000),
]


@pytest.mark.parametrize(("verifier", "response", "gold", "options", "value"), LONG, ids=range(len(LONG)))
@pytest.mark.timeout(10)  # comparing each item with each would take minutes
def test_a_long_response_gets_its_verdict(
    verifier: str, response: str, gold: Any, options: dict[str, Any], value: float
) -> None:
    assert score(verifier, response, gold, **options).value == pytest.approx(value)


class Pumped(NamedTuple):
    """A megabyte of one piece, in some forms: the value is at most `most`, and is known within `seconds`.

    Time that grows with the square of the length would be hours.
    """

    seconds: int
    most: float
    gold: Any
    pieces: tuple[str, ...]
    forms: tuple[str, ...] = ("{}",)
    options: tuple[dict[str, Any], ...] = ({},)


READ = (
    "9", "A\n", " A is correct", "A" + " " * 50, "A) ", "it's A ", "answer is A or B ", "\\", "$x$", "\\boxed{A}",
    "\\boxed{", "\\text{1", "5²", "2 plus ", "1,234 thousand ", "not A but ",
)  # fmt: skip
TEXT = (
    "9", "a ", "[", '{"a":', r"\boxed{", r"\text{", "$1", "**a", "'", "a.", "中", "the ", "answer is ", "é", "\u200b",
)  # fmt: skip
IN_BOX = ("{}", r"\boxed{{{}}}")
PUMPED = {
    "choice": Pumped(30, 1.0, "A", READ, IN_BOX, ({"options": ["5", "12", "7 apples", "None of these"]},)),
    "exact": Pumped(30, 1.0, "A", READ, IN_BOX),
    "number": Pumped(30, 1.0, 5, READ, IN_BOX),
    "math": Pumped(30, 1.0, "5", READ, IN_BOX),
    "regex": Pumped(30, 0.0, "zz+", READ, IN_BOX),
    "count": Pumped(60, 1.0, 3, (
        "9", "three ", "one ", "twenty-", "two hundred and ", "total ", "total of 3 ", " ", "[", "，", "3 cats: ",
        "a in 1 ", "there are no ", "cat ", "{", "3 of them. ", "not any ",
    )),
    "format": Pumped(30, 0.0, None, (
        "9", "[", "{", r"\boxed{", "```", "```\n", "<think>", "</think>", "<answer>", "\u200b", " \n", "```json\n{}\n",
    ), ("{}", "<think>a</think>{}", "<think>a</think>```json\n{}\n```"),
        ({"answer_tags": True, "boxed": 1, "fenced_json": True},)),
    "json_schema": Pumped(30, 0.0, SCHEMA, (
        "9", "[", '{"a":', "{", "[1,", "```", "```json\n", "{}", '{"a":"x"} ', "[ ", '"', "[[]] ", "\u200b",
    ), ("{}", "```json\n{}\n```", '{{"a": {}}}')),
    "language": Pumped(30, 0.0, "th", (
        "9", "a ", "[", '{"a":', "中", "`", "```", "<a", "$x", "\\a", "a@", ".", "\u200b", "a" * 63, "www.",
    )),
    "repetition": Pumped(60, 0.01, None, (
        "9", "a ", "[", '{"a":', "中", "ab", "! ? ", "a\n", "a" * 39 + " ", "\u0301",
    )),
    "temporal": Pumped(60, 1.0, [10, 20], (
        "9", "1:", "10:10", "10:10 ", "1 to ", "1 h ", "1 s ", "start ", "start 1 end ", "[1, ", "[ ", "[1, 2]",
        "between 1 and ", "- ", "1 min and ", "10th to the ", "9th ", ".5 ", "10-second ", r"\ ", " mark", '{"start":',
        '{"start": 1, "end": 2}', r"\text{", r"\text{a}", '"', "1 - ",
    ), (*IN_BOX, "answer is {}")),
    "text": Pumped(60, 0.1, "Paris 12", TEXT, options=({"metric": "contains"},)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("verifier", "piece"),
    [
        pytest.param(name, piece, id=f"{name}-{index}", marks=pytest.mark.timeout(pumped.seconds))
        for name, pumped in PUMPED.items()
        for index, piece in enumerate(pumped.pieces)
    ],
)
def test_a_megabyte_gets_a_verdict(verifier: str, piece: str) -> None:
    pumped = PUMPED[verifier]
    text = piece * (MEGABYTE // len(piece))
    for form in pumped.forms:
        for options in pumped.options:
            value = score(verifier, form.format(text), pumped.gold, **options).value
            assert value is not None
            assert 0.0 <= value <= pumped.most
    if verifier == "temporal":
        assert score(verifier, text, [[1, 2], [3, 4]]).value is not None
    for metric in ("exact", "anls", "wer", "f1", "relaxed") if verifier == "text" else ():
        value = score(verifier, text[: 1 << 14], pumped.gold, metric=metric).value
        assert value is not None
        assert value < 0.1
