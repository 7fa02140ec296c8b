r"""Normalises formulas, which calculators, people and LaTeX write in many ways."""

from __future__ import annotations

import re
from fractions import Fraction

from morl.rewards.parsing.answer import boxes
from morl.rewards.parsing.number_words import numbers_for_words

MAX_LENGTH = 600
"""The most characters of an answer that is parsed."""

_SYMBOLS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "⋅": r"\cdot ",
        "∗": "*",
        "÷": "/",
        "∕": "/",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "°": r"^\circ ",
        "²": "^2",
        "³": "^3",
        "√": r"\sqrt ",
        "½": r"\frac{1}{2}",
        "∅": r"\emptyset ",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
    }
)
_CURRENCIES = dict.fromkeys(map(ord, "$€£¥₹"))
_COMMANDS = dict.fromkeys((r"\(", r"\)", r"\[", r"\]", "**", "`", "~", r"\;", r"\:", r"\,"), " ") | {
    r"\leqslant": r"\le",
    r"\geqslant": r"\ge",
    r"\varnothing": r"\emptyset",
    r"\langle": "(",
    r"\rangle": ")",
}
_STYLES = re.compile(
    r"\\(?:(?:text)?color\s?\{\w+\}|(?:displaystyle|textstyle|boldsymbol|bm|bf|underline|small|large|Large|LARGE|huge|Huge)"
    r"(?![a-zA-Z]))"
)
"""Styling without mathematical meaning."""
_OVER = re.compile(r"(?<!\\)\{([^{}]{0,100})\\(over|choose)(?![a-zA-Z])([^{}]{0,100})\}")
_GREEK = r"\\(?:pi|alpha|beta|gamma|theta|lambda|mu|phi|omega)(?![a-zA-Z])"
_TEXT = re.compile(r"\\(?:text|textbf|mbox|mathrm)\s*\{([^{}]*)\}(\s*$)?")
_DIGIT = re.compile(r"(?<![\^\w])\d")
_SCIENTIFIC = re.compile(r"([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d+)")
_WRITINGS = [
    (re.compile(r"(?<!\\)\\ "), " "),
    (re.compile(r"\\mathrm\s*\{\s*([ei])\s*\}"), r"\1"),
    (re.compile(r"(?<=\d)\\[,!](?=\d{3}(?!\d))"), ""),  # thousands
    (re.compile(r"(?<![\d.])(\d{1,6}) (\d{1,6})/(\d{1,6})(?![\d.])"), r"\1\\frac{\2}{\3}"),
    (re.compile(rf"(\\[cdt]?frac)\s?({_GREEK}|[0-9a-zA-Z])(?=\s?(?:{_GREEK}|[0-9a-zA-Z{{]))"), r"\1{\2}"),
    (re.compile(rf"(\\[cdt]?frac\{{[^{{}}]{{0,100}}\}})\s?({_GREEK}|[0-9a-zA-Z])"), r"\1{\2}"),
    (re.compile(r"\\sqrt\s*\[(\w{1,3})\]\s*(\w)"), r"\\sqrt[\1]{\2}"),
    (re.compile(r"(?<=[\w)\]}])\s?\*\*\s?(-?\d+(?:\.\d+)?|\([^()]*\)|[a-zA-Z])"), r"^{\1}"),
    (re.compile(r"(?<![\\a-zA-Z{])(pi(?![a-zA-Z])|(?:ln|log|sin|cos|tan|exp)(?=\s+\w|\s*[({\\^_\d]))"), r"\\\1 "),
    (re.compile(r"(?<=\d)\s*(?:percent|percentage|pct)\b"), r"\\%"),
    (re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])"), r" \\cup "),
]
"""Notations of calculators and people, and their LaTeX."""
DECIMAL_COMMA = re.compile(r"^(-?\d+),(?!\d{3}$)(\d+)$")
"""A number with a decimal comma; the comma of "1,234" is not one."""
_COUNTED = re.compile(
    r"(-?[\d,]*\.?\d+|-?\d+/\d+|-?\\[dt]?frac\{\d+\}\{\d+\})\s+"
    r"((?:[a-z]{2,}|[a-z](?=/))(?:[ /-][a-z]+){0,3}(?:\^\{?\d\}?)?)",
    re.IGNORECASE,
)
_CHINESE = re.compile(
    r"(-?\d[\d,]*(?:\.\d+)?)\s?"
    r"(?:(?![一二两三四五六七八九十百万亿零半或和与到至不以多余成折]|千(?![克米瓦]))[\u3400-\u9fff]){1,8}(?:/[\u3400-\u9fff]{1,4})?"
)
_NO_UNITS = frozenset(
    "or and nor not to versus percent hundred thousand million billion trillion dozen half halves third thirds "  # noqa: SIM905
    "quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth "
    "tenths elevenths twelfths sixteenth sixteenths hundredth hundredths thousandth thousandths "
    "maybe perhaps possibly either alternatively plus minus times squared cubed factorial "
    "wrong incorrect false more less".split()
)


def simply_written(text: str) -> str:
    r"""The text with commands for symbols, without styles, and with `\frac` for `\over`, `\binom` for `\choose`."""
    return _OVER.sub(
        lambda match: rf"\{'frac' if match[2] == 'over' else 'binom'}{{{match[1]}}}{{{match[3]}}}",
        _STYLES.sub("", text.translate(_SYMBOLS)),
    )


def tidy(text: str) -> str:
    """A formula without delimiters, leading equals sign and final full stop."""
    text = " ".join(text.split())
    if len(text) > 4 * MAX_LENGTH:
        return text[: 4 * MAX_LENGTH]
    text = simply_written(text).strip(" *_#✅✓✔🎉")
    for _ in range(3):
        boxed = rf"\boxed{text}" if text.startswith("{") else text
        inner = boxes(boxed)
        if len(inner) == 1 and (inner[0].start, inner[0].end) == (0, len(boxed)):
            text = inner[0].text
    text = text.replace(r"\$", "").translate(_CURRENCIES)
    for pattern, latex in _WRITINGS:
        text = pattern.sub(latex, text)
    for mark, plain in _COMMANDS.items():
        text = text.replace(mark, plain)
    text = _REPEATING.sub(_fraction, _TEXT.sub(_text_words, text))
    text = _both_signs(_formulas(_PERCENT.sub(_hundredths, text)))
    text = re.sub(r"(?<=\d)\.(?!\d)", "", text)  # "5." and "1./3"
    text = _ABOUT.sub("", " ".join(text.split())).rstrip("\\.,;:= ")
    scientific = _SCIENTIFIC.fullmatch(text)
    return rf"{scientific[1]} \times 10^{{{scientific[2]}}}" if scientific else text


_ABOUT = re.compile(r"^(?:[=≈\s]|\\approx(?:eq)?(?![a-zA-Z]))+")
_REPEATING = re.compile(r"(?<![\d.])(\d{1,9})\.(\d{0,9})\\(?:overline|bar)\s*\{?(\d{1,9})\}?")


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, start, again = match.groups()
    ahead = int(whole + start)
    return _latex(Fraction(int(whole + start + again) - ahead, (10 ** len(again) - 1) * 10 ** len(start)))


def _latex(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


_PERCENT = re.compile(r"(?<![\d.,])(\d{1,6})?\s?\\[cdt]?frac\s?(?:\{(\d{1,6})\}\s?\{(\d{1,6})\}|(\d)\s?(\d))\s?\\?%")


def _hundredths(match: re.Match[str]) -> str:
    """A fraction of a percent, which math-verify does not read, as a fraction."""
    whole, top, bottom = (int(part or 0) for part in (match[1], match[2] or match[4], match[3] or match[5]))
    return _latex((whole + Fraction(top, bottom)) / 100) if bottom else match.group()


_CASES = re.compile(r"\\begin\s?\{cases\}([^&]*)\\end\s?\{cases\}")
_BUILT = re.compile(
    r"(?:\\left)?\\\{\s?([a-zA-Z])\s?(?:\\in\s?\\mathbb\s?\{?R\}?\s?)?(?:\\mid|[|:])(?![a-zA-Z])([^{}|:,]*?)(?:\\right\s?)?\\\}"
)
_RELATION = re.compile(r"[<>]|\\(?:le|ge|leq|geq|ne|neq)(?![a-zA-Z])")


def _formulas(text: str) -> str:
    r"""The equations of `cases`, and the inequality of `\{x \mid x>3\}`."""
    if cases := _CASES.fullmatch(text):
        rows = [row.strip(" ,") for row in cases[1].split(r"\\")]
        return ", ".join(rows) if all("=" in row for row in rows) else text
    built = _BUILT.fullmatch(text)
    return built[2].strip() if built and built[1] in built[2] and _RELATION.search(built[2]) else text


_SIGNS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")


def _both_signs(text: str) -> str:
    r"""Each formula with a `\pm` as two, in a list or where it is within braces: math-verify does not read those."""
    if _SIGNS.search(text) is None:
        return text
    parts = _parts(text)
    before = _SIGNS.split(text)[0].replace(r"\{", "").replace(r"\}", "")
    if len(parts) == 1 and before.count("{") <= before.count("}"):
        return text
    if any(len(_SIGNS.findall(part)) > 1 for part in parts):
        return text
    both = ((_SIGNS.sub("+", part), _SIGNS.sub("-", part)) if _SIGNS.search(part) else (part,) for part in parts)
    return ", ".join(part.strip() for pair in both for part in pair)


def _parts(text: str) -> list[str]:
    """The parts between commas outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _text_words(match: re.Match[str]) -> str:
    r"""A `\text{}` as its words, if they are more than a unit: math-verify drops it at the end, even " or 6"."""
    words = set(re.findall(r"[a-z]+", match[1].lower()))
    counts = _DIGIT.search(match[1]) or numbers_for_words(match[1]) != match[1]
    return f" {match[1]} " if counts or (match[2] is not None and words & _NO_UNITS) else match.group()


def without_unit(text: str) -> str:
    """The number of "20 books", "5 km/h", "5元" and "5 million"; not of "5 or six"."""
    if chinese := _CHINESE.fullmatch(text):
        return chinese[1]
    spelled = numbers_for_words(text)
    if spelled.removeprefix("-").isdecimal():
        return spelled
    match = _COUNTED.fullmatch(spelled)
    if match is None or _NO_UNITS.intersection(re.split("[ /-]", match[2].lower())):
        return text
    return match[1] if numbers_for_words(match[2]) == match[2] else text
