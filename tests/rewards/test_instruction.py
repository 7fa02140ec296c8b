"""The families of IFEval: what follows each, what does not, and how golds are read."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import check_options
from morl.rewards.checks import check_examples
from morl.rewards.parsing.instruction_families import FAMILIES, count_sentences
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.instruction import instruction

AT_LEAST, LESS = "at least", "less than"
PARAGRAPHS = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["cat", "New York"]}, ["Cats of new york"], ["cat", "newyork cat"]),
    ("keywords:frequency", {"keyword": "hop", "frequency": 2, "relation": AT_LEAST}, ["Hop, shop"], ["hop", "x"]),
    ("keywords:frequency", {"keyword": "hop", "frequency": 2, "relation": LESS}, ["hop", "x"], ["hop hop"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "c++"]}, ["concatenate"], ["a CAT.", "cat-like"]),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": AT_LEAST}, ["Q q"], ["q"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": LESS}, ["a"], ["# a"]),
    ("language:response_language", {"language": "de"}, ["Das ist eine sehr gute Frage."], ["A good question.", "42"]),
    ("language:response_language", {"language": "hi"}, ["यह एक अच्छा सवाल है।"], ["हे एक उत्तम उदाहरण आहे आणि ते चांगले आहे."]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, ["Yes. It is."], ["Dr. A is"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": LESS}, ["It is\n\nso"], ["It is. So."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b***"], ["a", "a***b***c"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, ["a***b\n\n***\n\nc"], ["a*** ***b", "a\n\nb"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": AT_LEAST}, ["a b-c", "1 2 3"], ["a b", "abc"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, ["a b"], ["a b c"]),
    ("length_constraints:nth_paragraph_first_word", PARAGRAPHS, ["a\n\nThen, b", 'a\n\n"then" b'], ["a\n\nb", "then"]),
    ("length_constraints:nth_paragraph_first_word", {**PARAGRAPHS, "nth_paragraph": 1}, ["then\n\nb"], ["a\n\nthen"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]", "[[a] [b]"], ["[a]", "[a\n] b]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["a\nP.S. b", "p. s. b"], ["a", "PS b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["a P.P.S b", "p. p. s"], ["a\nP.S. b"]),
    ("detectable_content:postscript", {"postscript_marker": "NB"}, ["a\nNB: b"], ["a"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n  - b", "- a\n\n- b"], ["* a", "**a**\n* b"]),
    ("detectable_format:constrained_response", {}, ["My answer is no."], ["no", "My answer is no. My answer is yes."]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* **b**"], ["*a*", "** ** *a*"]),
    ("detectable_format:multiple_sections", {"section_spliter": "Day", "num_sections": 2}, ["Day 1\nDay 2"], ["Day 1"]),
    ("detectable_format:json_format", {}, ['{"a": 1}', '```json\n{"a": 1}\n```', "[1]"], ["{a}", "x", "NaN", "[" * 99]),
    ("detectable_format:title", {}, ["a\n<<b>>", "<<< b >>>"], ["b", "<<>>", "<< >>", "<<a\nb>>", ">>a<<"]),
    ("combination:two_responses", {}, ["a******b", "******a\n******\nb"], ["a", "a******a", "a******b******c"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, ["say it. Yes"], ["Yes. Say it.", "Say"]),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, ["a any questions?", '"Any questions?"'], ["any"]),
    ("startend:quotation", {}, ['"a"'], ["a", '"', '"a', "'a'", '"a" b']),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": AT_LEAST}, ["A A-B"], ["A-B"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": LESS}, ["I am"], ["IT IS"]),
    ("change_case:english_capital", {}, ["THE WEATHER IS NICE TODAY"], ["The weather", "DAS WETTER IST SCHÖN", "1"]),
    ("change_case:english_lowercase", {}, ["the weather is nice today"], ["The weather", "das wetter ist heute schön"]),
    ("punctuation:no_comma", {}, ["a b"], ["a, b", "a， b", "a، b"]),
]  # fmt: skip
EXAMPLE = {name: arguments for name, arguments, _, _ in CASES}


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("instruction", runner) == []


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_a_family_tells_who_follows_it(
    name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    for response in right:
        assert instruction(f"<think>no</think>{response}", [{"id": name, **arguments}]).value == 1.0, response
    for response in wrong:
        assert instruction(response, [{"id": name, **arguments}]).value == 0.0, response


def test_every_family_is_told_and_takes_no_other_arguments() -> None:
    assert set(EXAMPLE) == set(FAMILIES)
    assert len(FAMILIES) == 25
    for name, family in FAMILIES.items():
        keys = {
            key
            for key, parameter in inspect.signature(family).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        assert keys == set(EXAMPLE[name])
        assert check_options(family, EXAMPLE[name]).keys() == keys


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "response", ["", " \n", "\u200b", "<think>My answer is yes.", "<think>a</think>"], ids=range(5)
)
def test_an_empty_answer_follows_nothing(name: str, response: str) -> None:
    for options in ({}, {"loose": True}, {"partial": True}):
        verdict = instruction(response, [{"id": name, **EXAMPLE[name]}], **options)
        assert (verdict.value, verdict.status) == (0.0, "no_answer")


@pytest.mark.parametrize("mark", ["\u200b", "\u200c", "\u2060", "\u00ad", "\ufeff"], ids=ascii)
def test_what_nobody_sees_neither_hides_a_word_nor_makes_two(mark: str) -> None:
    forbidden = {"id": "keywords:forbidden_words", "forbidden_words": ["cat"]}
    long = {"id": "length_constraints:number_words", "num_words": 3, "relation": AT_LEAST}
    assert instruction(f"A c{mark}at.", [forbidden]).value == 0.0
    assert instruction(f"Good mor{mark}ning", [long]).value == 0.0
    assert instruction("می\u200cخواهم بروم", [long]).value == 1.0  # a joiner of the script


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=3),
    st.text(max_size=60)
    | st.lists(st.sampled_from(["*", "\n", '"', "a", "<<", ">>", "[", "]", ". ", "-", "{", "}", "A"])).map("".join),
)
def test_loose_is_never_stricter_and_partial_counts(names: list[str], response: str) -> None:
    gold = {"instruction_id_list": names, "kwargs": [EXAMPLE[name] for name in names]}
    strict, loose = instruction(response, gold).value, instruction(response, gold, loose=True).value
    part = instruction(response, gold, partial=True).value
    assert 0.0 <= strict <= loose <= 1.0
    assert (part == 1.0) == (strict == 1.0)
    alone = [instruction(response, [{"id": name, **EXAMPLE[name]}]).value for name in names]
    assert part == pytest.approx(sum(alone) / len(alone))


@pytest.mark.parametrize(
    ("response", "name"),
    [
        ('Sure:\n"Home"', "startend:quotation"),
        ('"Home"\nThere you are.', "startend:quotation"),
        ('Sure:\n"Home"\nThere you are.', "startend:quotation"),
        ('**"Home"**', "startend:quotation"),
        ("Sure, here:\nNo marks", "punctuation:no_comma"),
    ],
)
def test_loose_leaves_out_first_and_last_lines_and_asterisks(response: str, name: str) -> None:
    assert instruction(response, [{"id": name}]).value == 0.0
    assert instruction(response, [{"id": name}], loose=True).value == 1.0


def test_golds_come_in_several_forms() -> None:
    listed = [
        {"id": "punctuation:no_comma"},
        {"id": "length_constraints:number_words", "num_words": 2, "relation": LESS},
    ]
    paired = {
        "key": 1,
        "prompt": "p",
        "instruction_id_list": [item["id"] for item in listed],
        "kwargs": [{}, {"num_words": 2, "relation": LESS}],
    }
    padded = {
        **paired,
        "kwargs": [{"num_words": None, "letter": None}, {"num_words": 2.0, "relation": LESS, "letter": None}],
    }
    texts = {**paired, "kwargs": [json.dumps(item) for item in paired["kwargs"]]}
    for gold in (
        listed,
        paired,
        padded,
        texts,
        json.dumps(listed),
        json.dumps(paired),
        {**paired, "kwargs": json.dumps(paired["kwargs"])},
    ):
        assert [instruction(response, gold).value for response in ("a", "a,", "a b")] == [1.0, 0.0, 0.0]
    assert instruction("a", {"id": "punctuation:no_comma"}).value == 1.0
    assert instruction("a", {"instruction_id_list": ["punctuation:no_comma"]}).value == 1.0


WORDS = "length_constraints:number_words"


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        (None, "instruction_id_list"),
        ("", "JSON"),
        ("no comma", "JSON"),
        ("[" * 100_000, "JSON"),
        (5, "instruction_id_list"),
        ([], "no instruction"),
        ({}, "instruction_id_list"),
        ([5], "instruction_id_list"),
        ({"instruction_id_list": [], "kwargs": []}, "no instruction"),
        ({"instruction_id_list": "punctuation:no_comma", "kwargs": []}, "JSON"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "1 instructions, but 0"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [5]}, "mapping"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": {}}, "lists"),
        ([{"id": "punctuation:no_commas"}], "did you mean 'punctuation:no_comma'"),
        ([{"id": None}], "unknown instruction"),
        ([{"id": ["punctuation:no_comma"]}], "unknown instruction"),
        ([{"id": "punctuation:no_comma", "num_words": 3}], "unknown key"),
        ([{"id": WORDS, "num_words": 3, "relatoin": LESS}], "relation"),
        ([{"id": WORDS, "relation": LESS}], "num_words: required"),
        ([{"id": WORDS, "num_words": 0, "relation": LESS}], "num_words"),
        ([{"id": WORDS, "num_words": float("nan"), "relation": LESS}], "num_words"),
        ([{"id": WORDS, "num_words": 3, "relation": "about"}], "relation"),
        ([{"id": "keywords:existence", "keywords": []}], "keywords"),
        ([{"id": "keywords:existence", "keywords": [" "]}], "keywords"),
        ([{"id": "keywords:existence", "keywords": "cat"}], "keywords"),
        ([{"id": "keywords:letter_frequency", "letter": "ab", "let_frequency": 1, "let_relation": LESS}], "letter"),
        ([{"id": "language:response_language", "language": "xx"}], "xx"),
        ([{"id": "startend:end_checker", "end_phrase": ""}], "end_phrase"),
    ],
    ids=range(28),
)
def test_a_gold_that_cannot_be_read_is_bad_and_says_why(gold: Any, said: str) -> None:
    for response in ("", "a"):
        verdict = instruction(response, gold)
        assert verdict.status == "bad_gold"
        assert said in verdict.detail


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("No end", 1),
        ("Hello there. How are you? Fine!", 3),
        ("Dr. Smith went to the U.S. in Jan. 2020. He left.", 2),
        ("J. K. Rowling wrote it.", 1),
        ("So it is you and I. Then we go.", 2),
        ("1. First item.\n2. Second item.", 2),
        ("It is 5. Then 6.", 2),
        ("3.14 is pi. OK.", 2),
        ("Use e.g. this. Or that, i.e. the other.", 2),
        ('He said "Hi." Then left.', 2),
        ("**Bold.** Next one.", 2),
        ("What?! No.", 2),
        ("it rains. we stay in. fine.", 3),
        ("well… so be it. no more", 2),
        ("cats, dogs, etc. and birds. no fish.", 2),
        ("Wait... what? Yes.", 2),
        ("Title\n\nText here. More.", 2),
        ("* a\n* b\n* c", 1),
        ("这是。那是。", 2),
        ("यह है। वह है।", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


@given(
    st.lists(
        st.sampled_from(["It rains", "We saw Dr. Who", "Is 3.5 more", "They came at 5 p.m. today"]),
        min_size=1,
        max_size=9,
    )
)
def test_sentences_add_up(sentences: list[str]) -> None:
    for end in (". ", "! ", "? ", ".\n\n"):
        assert count_sentences(end.join([*sentences, ""])) == len(sentences)


PUMPS = [
    "9",
    "a ",
    "[",
    '{"a":',
    "* ",
    "*",
    "******",
    "<<",
    "<< >>\n",
    "1. ",
    ". ",
    "..",
    "P.S. ",
    "\n-",
    "中。",
    "p. p. ",
    "'\"",
    '".',
]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    gold = [{"id": name, **arguments} for name, arguments in EXAMPLE.items()]
    value = instruction(pump * ((1 << 20) // len(pump)), gold, partial=True).value
    assert value is not None
    assert 0.0 <= value < 0.7
