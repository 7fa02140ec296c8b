"""Short texts against golds: what counts as the same, what is near, and what a policy might try."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.parsing import text_metrics
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.text import text

METRICS = get_args(get_type_hints(text)["metric"])

PIECES = [
    r"\boxed{",
    "}",
    "{",
    "$",
    "<think>",
    "</think>",
    "answer is ",
    " or ",
    ", ",
    "\n",
    "the ",
    "A",
    "3",
    "-4.5",
    "%",
]
responses = st.lists(st.sampled_from([*PIECES, "\ud800", "\u200b", "中", "é"]), max_size=12).map("".join) | st.text(
    max_size=60
)
golds = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5), max_size=3)
)
WORDS = ["red", "blue", "dog", "cat", "one", "2", "3.5", "paris", "rome"]
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("text", runner) == []


@settings(max_examples=200, deadline=None)
@given(responses, golds | st.dictionaries(st.text(max_size=3), st.text(max_size=3)), st.sampled_from(METRICS))
def test_any_response_and_any_gold_get_a_verdict(response: str, gold: Any, metric: Any) -> None:
    verdict = text(response, gold, metric=metric)
    if verdict.value is None:
        assert verdict.status == "bad_gold"
    else:
        assert 0.0 <= verdict.value <= 1.0


@settings(max_examples=200, deadline=None)
@given(phrases, phrases, st.sampled_from(METRICS))
def test_the_gold_itself_is_1_and_the_best_of_several_golds_counts(one: str, other: str, metric: Any) -> None:
    assert text(one, one, metric=metric).value == 1.0
    assert text(rf"\boxed{{{one}}}", [other, one], metric=metric).value == 1.0
    both = [text(one, gold, metric=metric).value for gold in (one, other)]
    assert text(one, [one, other], metric=metric).value == max(both)


@settings(max_examples=200, deadline=None)
@given(phrases, phrases)
def test_metrics_are_bounded_and_1_only_for_what_says_the_same(one: str, other: str) -> None:
    for metric in (text_metrics.exact, text_metrics.anls, text_metrics.wer):
        assert (metric(one, other) == 1.0) == (one == other)
        assert 0.0 <= metric(one, other) <= 1.0
    assert text_metrics.f1(one, other) == text_metrics.f1(other, one)
    assert (text_metrics.f1(one, other) == 1.0) == (sorted(one.split()) == sorted(other.split()))


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"\boxed{\text{Paris}}", "paris"),
        ("**Paris**", "Paris"),
        ("The answer is St. Louis.", "St. Louis"),
        ("The answer is Paris. It is in France.", "paris"),
        ("The answer is: 5 apples", "The answer is 5 apples"),
        ("the Eiffel  tower", "Eiffel Tower"),
        ("ＡＢＣ　４３", "abc 43"),
        ("Paris\u200b", "Paris"),
        ("\u202eParis\u202c", "Paris"),
        ("U.S.A.", "USA"),
        ("don’t", "don't"),
        ("well-known", "well known"),
        ("`foo_bar`", "foo_bar"),
        ("$5$", "5"),
        ("5 %", "5%"),
        ("−5", "-5"),
        ("m²", "m2"),
        ("A", "a"),
        ("The", "the"),
        ("43", 43),
        ("43.0", 43.0),
        ("café", "cafe\u0301"),
        ("<think>Rome</think>\n\nParis", "Paris"),
    ],
)
def test_exact_takes_for_the_same(response: str, gold: Any) -> None:
    assert text(response, gold).value == 1.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("43.0", "43"),
        ("3.5", "35"),
        ("5", "-5"),
        ("5", "5%"),
        ("$5", "5"),
        ("12:30", "1230"),
        ("C", "C++"),
        ("C", "C#"),
        ("Vitamin", "Vitamin A"),
        ("Parisian", "Paris"),
        ("Paris or Rome", "Paris"),
        ("Paris\nRome", "Paris"),
        ("The answer is Paris. Or Rome.", "Paris"),
        ("The answer is Paris.\nOr Rome?", "Paris"),
        (r"\boxed{Paris} \boxed{Rome}", ["Paris", "Rome"]),
        ("<think>Paris", "Paris"),
        ("<think>Paris</think>", "Paris"),
        ("Is it Paris?", "Paris"),
        ("हिन्दी", "हिन्द"),
        ("", "Paris"),
        ("...", "Paris"),
        ("\u200b", "Paris"),
        ("<|image_pad|>", "image pad x"),
    ],
)
def test_exact_tells_apart(response: str, gold: Any) -> None:
    assert text(response, gold).value == 0.0


NO_TEXTS = [None, "", " ", "...", "\u200b", [], [""], ["a", ""], ["a", None], {}, {"a": 1}, True, b"ab"]
NO_NUMBERS = [float("nan"), float("inf"), 10**5000]


@pytest.mark.parametrize("gold", [*NO_TEXTS, *NO_NUMBERS], ids=range(len(NO_TEXTS) + len(NO_NUMBERS)))
def test_a_gold_that_is_no_text_is_bad(gold: Any) -> None:
    for metric in METRICS:
        assert text("Paris", gold, metric=metric).status == "bad_gold"


@pytest.mark.parametrize(
    ("response", "options", "value"),
    [
        ("paris", {"ignore_case": False}, 0.0),
        ("Paris!", {"ignore_punctuation": False}, 0.0),
        ("The Paris", {"ignore_articles": False}, 0.0),
        ("The answer is Paris", {"part": "text"}, 0.0),
        (r"\boxed{Paris} or \boxed{Rome}", {"part": "text", "metric": "f1"}, 1 / 3),
    ],
)
def test_options_are_obeyed(response: str, options: dict[str, Any], value: float) -> None:
    assert text(response, "Paris", **options).value == pytest.approx(value)


def test_articles_are_left_out_where_the_metric_is_about_words() -> None:
    assert text("a big dog", "big dog", metric="f1").value == 1.0
    assert text("a big dog", "big dog", metric="wer").value == 0.5
    assert text("a big dog", "big dog", metric="wer", ignore_articles=True).value == 1.0


@pytest.mark.parametrize(
    ("response", "gold", "value"),
    [
        ("Invoice", "invoice", 1.0),
        ("Invoize", "Invoice", 6 / 7),
        ("ab", "abcd", 0.5),
        ("a", "abcd", 0.0),
        ("abcx", "xcba", 0.0),
        ("9" * 10**6, "1234", 0.0),
    ],
)
def test_anls(response: str, gold: str, value: float) -> None:
    assert text(response, gold, metric="anls").value == pytest.approx(value)
    assert text(response, gold, metric="anls", threshold=1.0).value == float(value == 1.0)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("the cat sat on the mat", 1.0),
        ("the cat sat on mat", 5 / 6),
        ("the cat sat on the red mat", 5 / 6),
        ("a dog ran at a bat", 0.0),
        ("the cat sat on the mat " * 2, 0.0),
        ("the cat sat on the mat and so on for", 2 / 6),
    ],
)
def test_wer(response: str, value: float) -> None:
    assert text(response, "The cat sat on the mat.", metric="wer").value == pytest.approx(value)


def test_wer_and_f1_count_characters_where_no_spaces_are_written() -> None:
    assert text("今天天气好", "今天天气很好", metric="wer").value == pytest.approx(5 / 6)
    assert text("今天天气好", "今天天气很好", metric="f1").value == pytest.approx(10 / 11)


def asks(question: Any) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Paris"}, {"role": "user", "content": question}]


@pytest.mark.parametrize(
    ("response", "gold", "question", "value"),
    [
        ("It is in Paris.", "Paris", "", 1.0),
        ("New York City", "New York", "", 2 / 3),
        ("York New", "New York", "", 0.0),
        ("Parisian", "Paris", "", 0.0),
        ("3.5", "3", "", 0.0),
        ("Paris or Rome", "Paris", "", 0.0),
        ("not Paris", "Paris", "", 0.0),
        ("It isn't Paris", "Paris", "", 0.0),
        ("Paris, Rome", "Paris", "", 0.5),
        ("on off", "off", "", 0.5),
        ("he she", "he", "", 0.5),
        ("he she they", "they", "", 1 / 3),
        ("up down left", "left", "", 1 / 3),
        ("over under above below behind", "behind", "", 1 / 5),
        ("yes no", "yes", "", 0.5),
        ("The capital of France is Paris.", "Paris", "What is the capital of France?", 1.0),
        ("Paris London Rome", "Paris", "Paris, London or Rome?", 1 / 3),
        (" ".join(map(str, range(1000))), "7", "", 1 / 1000),
        ("Paris " * 1000, "Paris", "", 1 / 1000),
    ],
)
def test_contains_makes_listing_cost(response: str, gold: str, question: str, value: float) -> None:
    for content in (question, [{"type": "image"}, {"type": "text", "text": question}]):
        assert text(response, gold, asks(content), metric="contains").value == pytest.approx(value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"]), min_size=1, max_size=8, unique=True
    )
)
def test_offering_k_guesses_pays_no_more_than_one_of_them_does_on_average(guesses: list[str]) -> None:
    # Each guess is as likely as the others: the sum over golds is what one guess would get.
    offered = " ".join(guesses)
    assert sum(text(offered, gold, metric="contains").value for gold in guesses) == pytest.approx(1.0)
    loose = sum(text(offered, gold, metric="contains", maximum_ratio=2).value for gold in guesses)
    assert loose == pytest.approx(min(2.0, len(guesses)))


@pytest.mark.parametrize(
    ("response", "gold", "value"),
    [
        ("1,050", "1000", 1.0),
        ("1,051", "1000", 0.0),
        ("950", 1000, 1.0),
        ("0", "0", 1.0),
        ("0.01", "0", 0.0),
        ("-5", "5", 0.0),
        ("50%", "50", 1.0),
        ("50%", "0.5", 1.0),
        ("0.5", "50%", 1.0),
        ("$12.50", "12.5", 1.0),
        ("about 43 million", "43", 1.0),
        ("1.05 million", "1000000", 1.0),
        ("1.05 million", "1 million", 1.0),
        ("1.06 million", "1 million", 0.0),
        ("5 million", "5 thousand", 0.0),
        ("5", "5 million", 0.0),
        ("5,100", "5k", 1.0),
        ("5 or 6", "5", 0.0),
        ("5, 5.1", "5", 0.0),
        ("2010", "2010 election", 0.0),
        ("Yes.", "yes", 1.0),
        ("no", "yes", 0.0),
        ("1e999", "5", 0.0),
        ("NaN", "5", 0.0),
    ],
)
def test_relaxed(response: str, gold: Any, value: float) -> None:
    assert text(response, gold, metric="relaxed").value == value


def test_options_out_of_range_fail_at_load() -> None:
    for options in (
        {"metric": "bleu"},
        {"threshold": 2},
        {"maximum_ratio": 0.5},
        {"tolerance": float("nan")},
        {"tol": 1},
    ):
        with pytest.raises(ValidationError):
            check_options(text, options)


PUMPS = [
    "9",
    "a ",
    "[",
    '{"a":',
    r"\boxed{",
    r"\text{",
    "$1",
    "**a",
    "'",
    "a.",
    "中",
    "the ",
    "answer is ",
    "é",
    "\u200b",
]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    for metric, size in (dict.fromkeys(METRICS, 1 << 14) | {"contains": 1 << 20}).items():
        value = text(pump * (size // len(pump)), "Paris 12", metric=metric).value
        assert value is not None
        assert value < 0.1
