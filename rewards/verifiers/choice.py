r"""Multiple choice: which option does the answer commit to?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from morl.rewards.parsing.answer import Span, boxes, final_text, last_together, offered_together, stated
from morl.rewards.parsing.stated_values import answer_text
from morl.rewards.reward import Example, Verdict, reward

LETTERS = "ABCDEFGHIJ"
"""The letters accepted when the options are not known."""
MAX_STATEMENTS = 100
"""The most sentences naming an option that are read, counted from the end of a response."""

_COLOURS = ["red", "blue", "green"]


def _answer(gold: Any) -> str:
    gold = gold["answer"] if isinstance(gold, Mapping) else gold
    return f"The answer is {chr(ord('A') + gold) if type(gold) is int else gold}"


@reward(
    "choice",
    examples=[
        Example("<think>A?</think>The answer is B.", "B", 1.0),
        Example("The answer is C.", "B", 0.0),
        Example(r"\boxed{\text{(B)}}", "(B)", 1.0),
        Example("Answer: A or B", "B", 0.0),
        Example("A good question about vitamin B.", "B", 0.0),
        Example("Not A, because of the sign.\n\n**B**", "b", 1.0),
        Example("The answer is blue.", "B", 1.0, {"options": _COLOURS}),
        Example("The answer is B", "blue", 1.0, {"options": _COLOURS}),
        Example("B", {"answer": "B", "options": _COLOURS}, 1.0),
        Example("B", "B", 1.0, {"options_from": "choices"}, {"choices": "A) red B) blue"}),
        Example("The answer is B", "yellow", None, {"options": _COLOURS}),
        Example("The answer is B", "", None),
    ],
    answer=_answer,
)
def choice(
    response: str,
    gold: Any,
    meta: Mapping[str, Any],
    *,
    options: Sequence[str] | dict[str, str] | str | None = None,
    options_from: str | None = None,
) -> Verdict:
    r"""1 when the answer commits to the gold option and to no other, else 0.

    Reads the last `<answer>` after the thinking, if there is one, and in it the last `\boxed{}`; without a box, the
    letter after "answer is" or a similar phrase; then a line that is only a letter; then the text of an option.
    "A or B" scores 0.

    The gold is a letter, the text of an option, its index from 0, or `{answer: …, options: …}`. If golds or answers
    are texts, the texts of the options are needed: give them as `options`, or set `options_from` to the column of
    the data that holds them (a list, a mapping from letters, or text such as "A) red B) blue").
    """
    if isinstance(gold, Mapping) and "answer" in gold:
        options = gold.get("options", options)
        gold = gold["answer"]
    elif options_from is not None:
        options = meta.get(options_from)
        if options is None:
            return Verdict(None, "bad_gold", f"the row has no column '{options_from}'")
    try:
        texts = option_texts(options)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    target = _gold_letter(gold, texts)
    if target is None:
        return Verdict(None, "bad_gold", f"the gold {str(gold)[:50]!r} is not an option")
    text = answer_text(final_text(response))
    if not text:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    chosen = chosen_letters(text, texts, {*texts, target} if texts else {*LETTERS, target})
    if len(chosen) != 1:
        return Verdict(
            0.0, "no_answer", f"several options: {', '.join(sorted(chosen))}" if chosen else "no option chosen"
        )
    (letter,) = chosen
    return Verdict(float(letter == target), "ok", letter)


_LABEL = re.compile(r"\s*[(\[]?([A-Z])[)\].:]\s*")


def option_texts(options: Any) -> dict[str, str]:
    """The options' texts by letter; empty when they are not known. Raises: ValueError when they cannot be read."""
    if options is None:
        return {}
    if isinstance(options, str):
        marks: list[re.Match[str]] = []
        for mark in re.finditer(r"(?:^|(?<=\s))[(\[]?([A-Z])[)\].:]\s+|(?:^|(?<=\s))[(\[]?([A-Z])\)", options):
            if (mark[1] or mark[2]) == chr(ord("A") + len(marks)):
                marks.append(mark)
        ends = [mark.start() for mark in marks[1:]] + [len(options)]
        options = [options[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    if isinstance(options, Mapping):
        texts = {str(letter).strip().upper(): str(text) for letter, text in options.items()}
    elif isinstance(options, Sequence):
        texts = {chr(ord("A") + index): str(text) for index, text in enumerate(options[:26])}
        labels = [_LABEL.match(text) for text in texts.values()]
        if all(label and label[1] == letter for label, letter in zip(labels, texts, strict=True)):
            texts = {letter: _LABEL.sub("", text, count=1) for letter, text in texts.items()}
    else:
        texts = {}
    if len(texts) < 2 or any(not re.fullmatch("[A-Z]", letter) for letter in texts):
        raise ValueError("the options must be a list, a mapping from letters, or text such as 'A) red B) blue'")
    return texts


def _gold_letter(gold: Any, texts: Mapping[str, str]) -> str | None:
    if isinstance(gold, int) and not isinstance(gold, bool):
        return sorted(texts)[gold] if 0 <= gold < len(texts) else None
    if not isinstance(gold, str):
        return None
    gold = answer_text(gold)
    same = _same_text(gold, texts)
    label = re.fullmatch(r"\s*[(\[]?([A-Za-z])[)\].:]{0,2}\s*", gold) or (_LABEL.match(gold) if not same else None)
    if label is not None and (not texts or label[1].upper() in texts):
        return label[1].upper()
    return same[0] if len(same) == 1 else None


def _normal(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", unicodedata.normalize("NFKC", text))
    return " ".join(text.replace("$", "").casefold().split()).strip(" .,;:!*\"'()")


def _same_text(text: str, texts: Mapping[str, str]) -> list[str]:
    wanted = _normal(text)
    return [letter for letter, option in texts.items() if wanted and _normal(option) == wanted]


def chosen_letters(text: str, texts: Mapping[str, str], letters: Iterable[str]) -> set[str]:
    """The letters of the options that the text commits to; a valid answer commits to one."""
    known = set(letters)
    for chosen in (
        _from_boxes(text, texts, known),
        _from_statements(text, texts, known),
        _from_lines(text, texts, known),
        _from_judgements(text, known),
        _from_ending(text, known),
    ):
        if chosen:
            return chosen
    return _from_last_sentence(text, texts) or _from_first_words(text, texts)


def _from_boxes(text: str, texts: Mapping[str, str], letters: set[str]) -> set[str]:
    chosen: set[str] = set()
    for box in last_together(text, boxes(text)):
        content = re.sub(r"\\[a-z]+\s*\{|[{}$\\]", " ", _OR.sub(" or ", box.text)).strip()
        same = _same_text(box.text, texts)
        if len(content) == 1:
            chosen |= {content.upper()} & letters
        elif same:
            chosen |= set(same)
        elif _REJECTED.search(box.text) and len(content) < 30 and not _LABELLED_DENIAL.match(content):
            chosen.add("none of them")
        else:
            label = _LABEL.match(content)
            rest = content[label.end() :] if label else content
            chosen |= {label[1]} & letters if label else set()
            chosen |= {span.text for span in _tokens(rest, letters)} if not label or len(rest) < 8 else set()
            chosen |= letters.intersection(_further_labels(rest)) if label and not _same_text(rest, texts) else set()
    return chosen


_OR = re.compile(r"\\(?:lor|land|vee|wedge|cup|cap)(?![a-z])")
_REJECTED = re.compile(
    r"\b(?:not|wrong|incorrect|false|neither\s\(?[a-z]|all\s+but)\b|^\s*!|\\(?:neg|lnot|overline|cancel)(?![a-z])",
    re.IGNORECASE,
)
# "B. False" and "B) Not given" name an option with its text, and deny nothing.
_LABELLED_DENIAL = re.compile(r"[(\[]?[A-Z][)\].:]\s+(?:(?:false|incorrect|wrong)\W*$|not\s+[a-z]{2})", re.IGNORECASE)
_OR_LABEL = re.compile(r"\bor\s+[(\[]?([A-Z])[)\].:]\s")


def _further_labels(rest: str) -> list[str]:
    """The labels of further options after the first one; a single "D. Roosevelt" is a name."""
    labels = [match[1] for match in _NEXT_LABEL.finditer(rest)]
    return labels if len(labels) > 1 else _OR_LABEL.findall(rest)


# What must not follow a letter that names an option. Chinese, Japanese and Korean write no space there.
_OF_A_WORD = r"(?![\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3])(?:\w|['’]\w)"
# A single capital letter, or any letter in brackets; "A" and "I" before a word are words themselves.
_TOKEN = re.compile(
    rf"""
    (?<![a-zA-Z0-9_\\-]) (?<!\w['’]) (?: \(([A-Za-z])\) | \[([A-Z])\] | ([A-Z]) ) (?! {_OF_A_WORD} | - )
    (?! (?<=[AI]) \s+ (?! (?:or|and|because|since|as|is|but|not|for|with|while|which)\b ) [a-z] )
    """,
    re.VERBOSE,
)


def _tokens(text: str, letters: set[str]) -> list[Span]:
    matches = ((match, (match[match.lastindex or 0]).upper()) for match in _TOKEN.finditer(text))
    return [Span(letter, *match.span()) for match, letter in matches if letter in letters]


_LEAD = re.compile(
    rf"""
    (?: (?<![^\W_]) answers? (?![^\W_]) [*_]{{0,2}} (?: [^.\n:：=]{{0,40}}? \b(?:is|are|be)\b )?
      | (?<!不) (?: (?:答案|정답) (?:是|为|选|은)? (?:选项)? | 选项 (?:是|为|(?=[:：])) | 选(?!项)择? )
      | \b(?:correct|right|best) \s (?:option|choice|one)\b [*_]{{0,2}} (?: \s (?:is|are|would\sbe) )?
      | \b(?:choose|chose|select|pick|go \s with) \b
      | \b(?:option|choice) (?: \s is | ["']? \s? [:：] )
      | \bit (?: ['’]s | \s is | \s (?:must|should|has \s to) \s be ) )
    [\s*_"']{{0,4}} (?: [:：=→] | \s? [–—-] (?=\s) )? [\s*_"'“‘$`]{{0,4}}
    (?: (?: the|option|choice|letter|answer|either|both|probably|likely|most|clearly|definitely|therefore|thus|just ) \b
        [\s:：*_]{{1,3}} ){{0,3}}
    (?= [\[($\\*_{{]{{0,4}} (?:text|mathbf|textbf|boxed)? [\[({{]{{0,2}} (?P<letter>[A-Za-z]) (?! {_OF_A_WORD} ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)


_DENIED_LEAD = re.compile(
    r"(?:\bnot|n['’]t|\bcannot|\bnever|\bunlikely)\b(?:\s+(?:be|to|is|likely|necessarily))*[\s*_:'\"$`]*"
    r"(?:(?:the|option|choice|letter|answer|either)\b[\s:*_]*)*$",
    re.IGNORECASE,
)
# A statement about another option does not choose that option: "The answer is B. C is wrong."
_SAID_OF = re.compile(
    r"[*_)\]'\"]{0,4}(?:,?\s(?:and|or)\s[(*_]{0,3}[A-Z][*_)]{0,3})?\s{1,3}"
    r"(?:is|are|was|were|would|can|cannot|does|do|did|has|have|gives?|fails?)\b",
)


_TAKEN_BACK = re.compile(r"[*_)\]'\"”]{0,4}\?\s{1,3}no\b", re.IGNORECASE)
_LINE_END = re.compile(r"\n(?!\s{0,3}\(?or\b)", re.IGNORECASE)


def _from_statements(text: str, texts: Mapping[str, str], letters: set[str]) -> set[str]:
    statement = stated(text)
    if statement is not None and _same_text(statement, texts):
        return set(_same_text(statement, texts))
    spans: list[Span] = []
    for match in list(_LEAD.finditer(text))[-MAX_STATEMENTS:]:
        if _DENIED_LEAD.search(match.group()):
            continue
        start = match.end()
        line = _LINE_END.split(text[start : start + 200], maxsplit=1)[0]
        first = _first_token(line, match["letter"], letters)
        if first is None or _TAKEN_BACK.match(line, first.end):
            continue
        together = [first]
        for token in _tokens(line, letters):
            if token.start >= first.end:
                if _SAID_OF.match(line, token.end) or not offered_together(line[together[-1].end : token.start]):
                    break
                together.append(token)
        spans += [Span(span.text, start + span.start, start + span.end) for span in together]
    return {span.text for span in last_together(text, spans)}


def _first_token(line: str, letter: str, letters: set[str]) -> Span | None:
    at = line.find(letter)
    for token in _tokens(line, letters)[:1]:
        if token.start <= at < token.end:
            return token
    # A small letter counts only before a mark or the end: "answer: b", not "the answer is a".
    if letter.islower() and letter.upper() in letters and re.match(r"[)\]*_}$.,;\s]{0,4}$|[)\]]", line[at + 1 :]):
        return Span(letter.upper(), at, at + 1)
    return None


# "B is correct"; _DOUBT must not precede it in the clause: "it is not certain that B is correct".
_JUDGEMENT = re.compile(
    r"""
    [*_)\]]{0,4} [ ]{1,2} (?: is | must\ be | should\ be | seems | appears | looks ) [ ] (?: to\ be [ ] )?
    (?: (?:the|indeed|clearly|therefore|thus|also|most|likely|definitely|only|single) [ ] ){0,3}
    (?: correct | right | best | answer | true | accurate | appropriate ) \b (?! [^.!\n]{0,100} \? )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:not|cannot|never|unlikely)\b|n['’]t\b|\b(?:neither|nor|if|whether|unless|why|would|could|might|when|wrong|incorrect)\b",
    re.IGNORECASE,
)

_CORRECTION = re.compile(r"\b(?:but|however|wait|actually|no|instead|finally|so|thus|hence|therefore)\b", re.IGNORECASE)


def _from_judgements(text: str, letters: set[str]) -> set[str]:
    chosen: set[str] = set()
    end = 0
    for match in list(_JUDGEMENT.finditer(text))[-MAX_STATEMENTS:]:
        start = max(text.rfind("\n", 0, match.start()) + 1, match.start() - 200)
        clause = re.split(r"[.!?;。](?=\s)", text[start : match.start()])[-1]
        start = match.start() - len(clause)
        tokens = _tokens(text[start : match.end()], letters)
        tokens = [token for token in tokens if token.start < len(clause)]
        if not tokens or re.search(r"\w", clause[tokens[-1].end :]):
            continue
        together = last_together(clause, tokens)
        before = clause[: together[0].start]
        if not _DOUBT.search(re.split(r"[,，:：]", before)[-1]):
            chosen = set() if _CORRECTION.search(text[end : match.start()][-200:]) else chosen
            chosen |= {token.text for token in together}
            end = match.end()
    return chosen


_ENDING = re.compile(
    r"""
    (?: ^ | [,:，：] | 选项
      | \b(?:so|thus|hence|therefore|option|choice|letter(?:\ is)?|answer|say|think|believe|guess)\b ) [\s*_]*$
    """,
    re.VERBOSE | re.IGNORECASE,
)


# The words before this concern other options: "Not A. So B", "not A but B".
_DONE_WITH = re.compile(r"[.!?]\s|\bnot\s[*_(\[]{0,3}[A-Z][*_)\]]{0,3},?\sbut\b", re.IGNORECASE)


def _from_ending(text: str, letters: set[str]) -> set[str]:
    """The letter that ends "Therefore: B", "so D" or "Option C"."""
    sentence = re.split(r"(?<=[!?。])\s|(?<=[^A-Z]\.)\s|\n", text[-200:].strip())[-1]
    tokens = _tokens(sentence, letters)
    if not tokens or re.search(r"\w", sentence[tokens[-1].end :]):
        return set()
    together = last_together(sentence, tokens)
    before = _DONE_WITH.split(sentence[: together[0].start])[-1]
    if not _ENDING.search(before) or _DENIAL.search(before):
        return set()
    return {token.text for token in together}


_ALONE = re.compile(r"[\s*_(\[\"'#>$`-]*([A-Za-z])[\s*_)\].:\"'$`]*")
_LABELLED = re.compile(
    r"[\s*_>-]*[(\[]?(?:([A-Za-z])[)\].:]+[\s*_]+\S|([A-Z])[)\].:]*[*_]*,?\s+(?:because|since|as)\b).*"
)
_NEXT_LABEL = re.compile(r"(?<=\s)[(\[]?([A-Z])[)\].:](?=\s|$)")


def _from_lines(text: str, texts: Mapping[str, str], letters: set[str]) -> set[str]:
    lines = [line for line in text.split("\n") if line.strip()]
    alone = {match[1].upper() for match in map(_ALONE.fullmatch, (line for line in lines if len(line) < 20)) if match}
    if alone & letters:
        return alone & letters
    same = _same_text(lines[-1], texts)
    if same:
        return set(same)
    labelled = [letter for line in lines for letter in _labels(line) if letter in letters]
    # Several labelled lines repeat the options; they are an answer only if the last line is labelled as well.
    return set(labelled) if len(labelled) == 1 or _LABELLED.fullmatch(lines[-1]) else set()


def _labels(line: str) -> list[str]:
    """The letters that label parts of a line: one of "A) because B) is wrong", three of "A) 5 B) 6 C) 7"."""
    first = _LABELLED.fullmatch(line)
    if first is None:
        return []
    letters, end = [(first[1] or first[2]).upper()], first.end(first.lastindex or 0)
    for match in _NEXT_LABEL.finditer(line, end):
        if re.search(r"\b(?:because|since|as|not|but)\b", line[end : match.start()], re.IGNORECASE):
            break
        letters.append(match[1])
        end = match.end()
    return letters


_DENIAL = re.compile(r"\b(?:not|cannot|never|unlikely)\b|n['’]t\b|\bwrong\b|\bincorrect\b|\bneither\b", re.IGNORECASE)


def _from_last_sentence(text: str, texts: Mapping[str, str]) -> set[str]:
    sentence = re.split(r"(?<=[.!?])\s|\n", text[-1000:].strip())[-1]
    return set() if _DENIAL.search(sentence) else _named(sentence, texts)


def _from_first_words(text: str, texts: Mapping[str, str]) -> set[str]:
    """The option that opens the text, such as "No" of "No, it is not", if no other is named."""
    same = set(_same_text(re.split(r"[,.!;:](?=\s)", text[:300], maxsplit=1)[0], texts))
    return same if _named(text[:2000], texts) == same else set()


def _named(text: str, texts: Mapping[str, str]) -> set[str]:
    """The options whose texts occur in the text. "light blue" does not name "blue", nor "1/2" the option "2"."""
    normal, named = _normal(text), set[str]()
    for option in sorted(filter(None, map(_normal, texts.values())), key=len, reverse=True):
        before = r"(?<![\w/^-])(?<!\d[.,])" if option[0].isdigit() else r"(?<!\w)"
        after = r"(?![\w/^]|[.,-]\d)" if option[-1].isdigit() else r"(?!\w)"
        normal, times = re.subn(before + re.escape(option) + after, "|", normal)
        named |= set(_same_text(option, texts)) if times else set()
    return named
