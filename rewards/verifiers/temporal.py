"""Time spans: when does something happen in a video?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.geometry import MAX_PAIRS, Segment, best_sum, segment_iou
from morl.rewards.parsing.stated_values import Match, Notation, finite, gold_value, in_json, read
from morl.rewards.reward import Example, Verdict, reward

MAX_SECONDS = 1e7
"""The greatest time, about four months."""


def _answer(gold: Any) -> str:
    return ", ".join("[{}, {}]".format(*segment) for segment in gold_segments(gold))


@reward(
    "temporal",
    examples=[
        Example("<think>[0, 1]</think>[00:10, 00:20]", [10, 20], 1.0),
        Example("It happens from 10 to 30 s.", [10, 20], 0.5),
        Example("10.0 - 12.5 seconds", "[00:00:10, 00:00:12.5]", 1.0),
        Example('```json\n{"start": "00:10", "end": 20}\n```', [10, 20], 1.0),
        Example(r"\boxed{[1:00, 1:30]}", {"start": 60, "end": 90}, 1.0),
        Example("[20, 10]", [10, 20], 0.0),
        Example("[30, 40]", [10, 20], 0.0),
        Example("[10, 20] or [30, 40]", [10, 20], 0.5),
        Example("[30, 40], [10, 20]", [[10, 20], [30, 40]], 1.0),
        Example("[10, 20]", [[10, 20], [30, 40]], 0.5),
        Example("[10, 30]", [10, 20], 0.0, {"threshold": 0.7}),
        Example("[10, 30]", [10, 20], 1.0, {"threshold": 0.5, "hit": True}),
        Example("after a while", [10, 20], 0.0),
        Example("[10, 20]", [10, 10], None),
    ],
    answer=_answer,
)
def temporal(
    response: str,
    gold: Any,
    *,
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0,
    hit: bool = False,
) -> Verdict:
    r"""How well the answer's time spans overlap the gold's: temporal IoU, in [0, 1].

    Reads `[mm:ss, mm:ss]`, `hh:mm:ss.fff`, `from 3.2 to 8 s`, `3.2 - 8.0 seconds`, `1 min 5 s to 2 min`,
    `starts at 3 s and ends at 8 s` and JSON with `start` and `end`, or keys such as `start_time` and `end_time`,
    after the thinking: in the last `\boxed{}` or `<answer>`, else in the first fenced block, else after "answer is",
    else anywhere. Plain numbers are seconds.
    The gold is a pair of numbers or of such texts, `{"start": …, "end": …}`, a list of these, or a text.

    One answer span against one gold span scores the overlap over the union. With several spans, each gold span is
    paired with one answer span so that the sum of scores is greatest, and the sum is divided by the number of spans
    in the longer list. A span whose end is not after its start is counted, and scores 0.

    `threshold`: a pair that scores less counts 0. `hit`: a pair that reaches the threshold and scores above 0
    counts 1; without a threshold, a span of the whole video then scores 1.
    """
    try:
        golds = gold_segments(gold)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    text = _plain(final_text(response))
    answers = read(text, SEGMENTS, one=len(golds) == 1)
    if not answers:
        return Verdict(0.0, "no_answer", "no time span in the answer")
    valid = [item.segment for item in answers if item.segment is not None]
    detail = f"{len(answers)} spans for {len(golds)}" if len(answers) > 1 or len(golds) > 1 else ""
    if len(valid) < len(answers):
        detail += f"{', ' * bool(detail)}not a span: {next(item.problem for item in answers if item.problem)}"
    if not valid or len(golds) * len(valid) > MAX_PAIRS:
        return Verdict(0.0, "ok", detail)

    def score(a: Segment, b: Segment) -> float:
        overlap = segment_iou(a, b)
        if overlap < threshold or overlap <= 0:
            return 0.0
        return 1.0 if hit else overlap

    if len(answers) == 1 and len(golds) == 1:
        return Verdict(score(golds[0], valid[0]), "ok", "{:g} to {:g} s".format(*valid[0]))
    scores = [[score(a, b) for b in valid] for a in golds]
    return Verdict(best_sum(scores) / max(len(golds), len(answers)), "ok", detail)


_NUMBER = r"(?:[0-9]++(?:\.[0-9]++)?+|\.[0-9]++)"
_HOURS, _MINUTES, _SECONDS = r"(?:hours?|hrs?|h)", r"(?:minutes?|mins?|m|分钟?)", r"(?:seconds?|secs?\.?|s|秒)"
_END = r"(?![A-Za-z])"
_TIME = (
    r"(?:(?<![A-Za-z0-9_.:])(?:"
    r"[0-9]{1,5}+:[0-9]{2}:[0-9]{2},[0-9]{3}(?![0-9]|:[0-9])|[0-9]{1,5}+:[0-9]{2}(?::[0-9]{2})?+(?:\.[0-9]++)?+(?![0-9]|:[0-9])"
    rf"|{_NUMBER}\s*+{_HOURS}{_END}(?:\s*+{_NUMBER}\s*+{_MINUTES}{_END})?+(?:\s*+{_NUMBER}\s*+{_SECONDS}{_END})?+"
    rf"|{_NUMBER}\s*+{_MINUTES}{_END}(?:\s*+{_NUMBER}\s*+{_SECONDS}{_END})?+"
    rf"|{_NUMBER}(?![0-9:])(?:\s*+{_SECONDS}{_END})?+))"
)
_SIDE = r"[\s\"'<>*$|`]*+"
_TO = r"(?:-{1,2}+>?+|–|—|→|~|to\b|until\b|till\b|through\b|up\s+to\b|到|至)"
_AT = r"(?:(?:(?:the|around|about|approximately|roughly|seconds?)\s++|t\s*+=\s*+|第))*+"
_SEGMENT = re.compile(
    rf"[\[(]{_SIDE}{_TIME}{_SIDE}(?:[,;]|{_TO}|and\b|(?<=\s)){_SIDE}{_TIME}{_SIDE}[\])]"
    rf"|[\[(]?(?<![\s(\[]-)(?<!\A-){_TIME}{_SIDE}[\])]?{_SIDE}{_TO}{_SIDE}{_AT}[\[(]?{_SIDE}{_TIME}"
    r"(?!\s*+[-–—]\s*+[0-9])"
    rf"|\bbetween\s++{_SIDE}{_AT}{_TIME}{_SIDE}and\s++{_SIDE}{_AT}{_TIME}"
    rf"|\b(?:start|begin)[^0-9\[\]{{}}()\n.]{{0,40}}+{_TIME}[^0-9\[\]{{}}()]{{0,25}}?"
    rf"\b(?:end|finish|stop|last|continu)[^0-9\[\]{{}}()\n.]{{0,40}}+{_TIME}",
    re.IGNORECASE,
)
_BARE = re.compile(rf"{_SIDE}{_TIME}\s*+(?:,|and\b)?\s*+{_SIDE}{_TIME}{_SIDE}\.?+", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:text|mathrm|mbox)\{([^{}]*+)\}|\\[,;: ]")
_NARROW = re.compile(r"\\!")
_HYPHEN = re.compile(r"(?<=[0-9])-(?=(?:second|sec|minute|min|hour)s?\b)|\smarks?\b", re.IGNORECASE)
# Below 60 the second number belongs to the first and ends no span: "1 min and 10 s", not "1 min and 90 s".
_AND = re.compile(
    rf"(?<=[0-9])(\s*+(?:{_HOURS}|{_MINUTES}))\s++and\s++"
    rf"(?=[0-5]?[0-9](?:\.[0-9]++)?+\s*+(?:{_MINUTES}|{_SECONDS}){_END})",
    re.IGNORECASE,
)
_ORDINALS = re.compile(
    r"(?<![0-9])([0-9]++)(?:st|nd|rd|th)(?: second)?+( (?:to|until|through|and) )(?:the )?+"
    r"([0-9]++)(?:st|nd|rd|th)(?= second)",
    re.IGNORECASE,
)
_CLOCK_SECONDS = re.compile(r"(?<=:[0-9]{2})\s?s(?:ec(?:ond)?s?)?(?![A-Za-z])", re.IGNORECASE)
_ONE_TIME = re.compile(_TIME, re.IGNORECASE)
_UNIT = re.compile(rf"({_NUMBER})\s*+([hms分秒])", re.IGNORECASE)
_SECONDS_OF = {"h": 3600.0, "m": 60.0, "s": 1.0, "分": 60.0, "秒": 1.0}


def _plain(text: str) -> str:
    """The text with its times in one notation."""
    text = _HYPHEN.sub(" ", _LATEX.sub(r" \1 ", _NARROW.sub("", text)))
    text = _AND.sub(r"\1 ", text)
    return _CLOCK_SECONDS.sub("", _ORDINALS.sub(r"\1\2\3", text))


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A time span of an answer, or the reason why it is not one."""

    segment: Segment | None
    """In seconds; None when the span is invalid: see `problem`."""
    problem: str = ""


def seconds(value: Any) -> float | None:
    """Seconds of a number, of `mm:ss` or `hh:mm:ss.fff`, or of a text with units; None for anything else."""
    if not isinstance(value, str):
        return finite(value)
    text = value.strip()
    if len(text) > 100 or not _ONE_TIME.fullmatch(text):
        return finite(text)
    if ":" in text:
        parts = [float(part) for part in text.replace(",", ".").split(":")]
        if any(part >= 60 for part in parts[1:]):
            return None
        total = 0.0
        for part in parts:
            total = 60 * total + part
        return total
    units = _UNIT.findall(text)
    return sum(float(number) * _SECONDS_OF[unit.lower()] for number, unit in units) if units else finite(text)


def _time_span(parts: Sequence[Any], label: str | None) -> TimeSpan:
    if len(parts) != 2:
        return TimeSpan(None, f"{len(parts)} times instead of two")
    start, end = map(seconds, parts)
    if start is None or end is None:
        return TimeSpan(None, "not two times")
    last = parts[1].strip() if isinstance(parts[1], str) else ""
    if isinstance(parts[0], str) and finite(parts[0]) is not None and _UNIT.search(last):
        # "from 1 to 2 min": the unit is written once, for both.
        start *= _SECONDS_OF[_UNIT.findall(last)[0][1].lower()]
    if not 0 <= start <= MAX_SECONDS or not 0 <= end <= MAX_SECONDS:
        return TimeSpan(None, "a time before 0, or longer than any video")
    if start >= end:
        return TimeSpan(None, "it ends before it starts" if start > end else "it has no length")
    return TimeSpan((start, end))


_NAMES = (("start", "end"), ("begin", "end"), ("from", "to"))


def _named(item: Mapping[str, Any]) -> list[Any] | None:
    """The values of two keys such as `start_time` and `end_time`; shorter keys win."""
    keys = sorted((key for key in item if "frame" not in key), key=len)
    for first, second in _NAMES:
        for key in keys:
            if first in key and (last := key.replace(first, second)) in item:
                return [item[key], item[last]]
    return None


def _in_text(text: str) -> Iterator[Match]:
    return (Match(_ONE_TIME.findall(match.group()), *match.span()) for match in _SEGMENT.finditer(text))


_KEYS = ("segment", "segments", "timestamp", "timestamps", "time", "times", "time_range", "span", "spans", "interval",
         "intervals", "time_span")  # fmt: skip
SEGMENTS = Notation((frozenset(_KEYS),), _named, _in_text, _BARE, _ONE_TIME, _time_span)


def gold_segments(gold: Any) -> list[Segment]:
    """The gold's time spans, in seconds; at least one.

    Raises: ValueError when it holds anything but time spans that end after they start.
    """
    gold = gold_value(gold, SEGMENTS)
    if not isinstance(gold, list | Mapping) or not gold:
        raise ValueError(f"the gold must be time spans, not {type(gold).__name__ if gold else 'empty'}")
    is_one = isinstance(gold, Mapping) or not isinstance(gold[0], list | tuple | Mapping)
    items: list[Any] = [gold] if is_one else list(gold)
    if isinstance(gold, list) and all(isinstance(item, str) and seconds(item) is None for item in gold):
        items = list(gold)
    segments: list[Segment] = []
    for item in items:
        spans = in_json(item if isinstance(item, Mapping) else {"span": item}, SEGMENTS)
        if len(spans) != 1 or spans[0].segment is None:
            problem = spans[0].problem if len(spans) == 1 else f"{len(spans)} spans in one item"
            raise ValueError(f"gold span {len(segments)}: {problem}")
        segments.append(spans[0].segment)
    if len(segments) ** 2 > MAX_PAIRS:
        raise ValueError(f"more than {int(MAX_PAIRS**0.5)} gold spans cannot be matched")
    return segments
