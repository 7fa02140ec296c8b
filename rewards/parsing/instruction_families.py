"""The 25 families of instructions of IFEval (arXiv 2311.07911), each a function of the text.

A family's keyword-only parameters are the instruction's arguments, named as in the published data. The text is a
non-empty answer, stripped of white space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from morl.rewards.parsing.language_detection import codes, share_in

Relation = Literal["at least", "less than"]
Count = Annotated[int, Field(ge=1)]
Words = Annotated[str, Field(min_length=1, pattern=r"\S")]
"""Text that is not blank."""


def _language_code(name: str) -> str:
    (code,) = codes(name)
    return code


def _holds(count: int, relation: Relation, wanted: int) -> bool:
    return count >= wanted if relation == "at least" else count < wanted


def _in_language(text: str, code: str) -> bool:
    detected = share_in(text, frozenset([code]))
    return detected is not None and detected.share >= 0.5


def existence(text: str, *, keywords: Annotated[list[Words], Field(min_length=1)]) -> bool:
    """The text contains each keyword, possibly within a word, in any case."""
    folded = text.lower()
    return all(keyword.lower() in folded for keyword in keywords)


def frequency(text: str, *, keyword: Words, frequency: Count, relation: Relation) -> bool:
    """The keyword occurs a number of times, possibly within words, in any case."""
    return _holds(text.lower().count(keyword.lower().strip()), relation, frequency)


def forbidden_words(text: str, *, forbidden_words: Annotated[list[Words], Field(min_length=1)]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(
    text: str,
    *,
    letter: Annotated[str, Field(min_length=1, max_length=1)],
    let_frequency: Count,
    let_relation: Relation,
) -> bool:
    """The letter, or another character, occurs a number of times, in any case."""
    return _holds(text.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(text: str, *, language: Annotated[str, AfterValidator(_language_code)]) -> bool:
    """At least half of the text is in the language."""
    return _in_language(text, language)


def number_sentences(text: str, *, num_sentences: Count, relation: Relation) -> bool:
    """The text has a number of sentences."""
    return _holds(count_sentences(text), relation, num_sentences)


def number_paragraphs(text: str, *, num_paragraphs: Count) -> bool:
    """The text has exactly this number of paragraphs, separated by `***`."""
    paragraphs = _without_empty_ends(text.split("***"))
    return len(paragraphs) == num_paragraphs and all(map(str.strip, paragraphs))


def number_words(text: str, *, num_words: Count, relation: Relation) -> bool:
    """The text has a number of words, which are runs of letters and digits."""
    return _holds(len(re.findall(r"\w+", text)), relation, num_words)


def nth_paragraph_first_word(text: str, *, num_paragraphs: Count, nth_paragraph: Count, first_word: Words) -> bool:
    """The text has exactly this number of paragraphs, separated by empty lines, and the nth begins with the word."""
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    if len(paragraphs) != num_paragraphs or nth_paragraph > num_paragraphs:
        return False
    word = paragraphs[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.strip().lower()


def number_placeholders(text: str, *, num_placeholders: Count) -> bool:
    """The text has at least this number of placeholders in square brackets."""
    pieces = (piece for line in text.split("\n") for piece in line.split("]")[:-1])
    return sum("[" in piece for piece in pieces) >= num_placeholders


def postscript(text: str, *, postscript_marker: Words) -> bool:
    """The text has a postscript that begins with the marker; `P.S.` and `P.P.S` may have spaces after their dots."""
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    marker = postscript_marker.strip()
    return re.search(known.get(marker) or re.escape(marker), text, re.IGNORECASE) is not None


def number_bullet_lists(text: str, *, num_bullets: Count) -> bool:
    """The text has exactly this number of lines that begin with `*` (one, not two) or `-`."""
    lines = [line.strip() for line in text.split("\n")]
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] != "*") for line in lines) == num_bullets


ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def constrained_response(text: str) -> bool:
    """The text contains exactly one of the three answers."""
    return sum(answer in text for answer in ANSWERS) == 1


def number_highlighted_sections(text: str, *, num_highlights: Count) -> bool:
    """The text has at least this number of `*highlighted*` or `**highlighted**` parts of a line."""
    single = (part[1:-1] for part in re.findall(r"\*[^\n*]*\*", text))
    double = (part[2:-2] for part in re.findall(r"\*\*[^\n*]*\*\*", text))
    return sum(bool(part.strip()) for part in (*single, *double)) >= num_highlights


def multiple_sections(text: str, *, section_spliter: Words, num_sections: Count) -> bool:
    """The text has at least this number of sections, each begun by the word and a number: "Section 1"."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, fenced or not."""
    for mark in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(mark)
    try:
        json.loads(text.removesuffix("```").strip(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def title(text: str) -> bool:
    """The text has a non-empty `<<title>>` on one line."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end and line[start:end].strip("<> \t\r"):
            return True
    return False


def two_responses(text: str) -> bool:
    """The text has two different responses, separated by `******`."""
    parts = [part.strip() for part in _without_empty_ends(text.split("******"))]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def repeat_prompt(text: str, *, prompt_to_repeat: Words) -> bool:
    """The text begins with the request, word for word, in any case."""
    return text.lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, *, end_phrase: Words) -> bool:
    """The text ends with the phrase, in any case; quotation marks around the text do not matter."""
    return text.strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    """The whole text is in double quotation marks."""
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_word_frequency(text: str, *, capital_frequency: Count, capital_relation: Relation) -> bool:
    """The text has a number of words in capitals."""
    count = sum(word.isupper() for word in re.findall(r"\w+(?:[-./]\w+)*", text))
    return _holds(count, capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    """The text is English, all in capitals."""
    return text.isupper() and _in_language(text, "en")


def english_lowercase(text: str) -> bool:
    """The text is English, without capitals."""
    return text.islower() and _in_language(text, "en")


_COMMAS = frozenset(",，﹐︐،")


def no_comma(text: str) -> bool:
    """The text has no comma, of any script or width."""
    return not _COMMAS.intersection(text)


def _without_empty_ends(parts: list[str]) -> list[str]:
    first = 0 if parts[0].strip() else 1
    last = len(parts) if parts[-1].strip() else len(parts) - 1
    return parts[first:last]


FAMILIES: dict[str, Callable[..., bool]] = {
    "keywords:existence": existence,
    "keywords:frequency": frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
"""The families by the ids of the published data."""

_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof rev hon sen rep gov gen col capt lt sgt st jr sr mt ft vs no nos vol fig figs eq eqs sec ch pp ed
    eds al cf ca approx dept univ inc ltd co corp est min max e.g i.e eg ie viz u.s u.k u.n d.c ph.d m.d b.a m.a
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri
    """.split()  # noqa: SIM905
)
# A sentence may end at marks, with closing quotes and brackets, before a space, or at full stops of other scripts.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]*+(?=\s|$)|[。！？｡।॥۔؟]+[」』”’）]*")
_OPENERS = " \t\r\n\"'“‘«([*_#>-"
_VISIBLE = re.compile(r"\S")
_LIST_NUMBER = re.compile(r"\s*[*_#>(-]*\s*\d{1,4}")


def count_sentences(text: str) -> int:
    """The number of sentences. Line ends, abbreviations and list numbers do not end one."""
    count = start = 0
    for match in _END.finditer(text):
        if match.group()[0] in ".…" and not _ends_sentence(text, match.start(), match.end()):
            continue
        count += re.search(r"\w", text[start : match.start()]) is not None
        start = match.end()
    return count + (re.search(r"\w", text[start:]) is not None)


def _ends_sentence(text: str, dot: int, end: int) -> bool:
    """Whether the dot ends a sentence, by the word before it and the letter after it."""
    if _VISIBLE.search(text, end) is None:
        return True
    line = text.rfind("\n", max(0, dot - 20), dot) + 1
    if (line or dot <= 20) and _LIST_NUMBER.fullmatch(text, line, dot):
        return False
    before = text[max(0, dot - 30) : dot]
    word = "" if before[-1:].isspace() else before.split()[-1].lstrip(_OPENERS + "“‘") if before else ""
    if text[end : end + 50].lstrip(_OPENERS)[:1].islower() and (
        text[dot] == "…" or text.startswith("..", dot) or "." in word or len(word) < 2 or word.lower() == "etc"
    ):
        return False
    return word.lower() not in _ABBREVIATIONS and not (len(word) == 1 and word.isupper() and word != "I")
