"""The answer follows the prompt's verifiable instructions, as in IFEval."""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from morl.error_messages import did_you_mean, explain
from morl.registry import ValidationError, check_options, options_model
from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.instruction_families import FAMILIES
from morl.rewards.parsing.text_metrics import says_something
from morl.rewards.reward import Example, Verdict, reward

_TWO = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"num_words": 3, "relation": "at least"}],
}


@reward(
    "instruction",
    examples=[
        Example("<think>Yes, yes.</think>It is so.", _TWO, 1.0),
        Example("Yes, it is so.", _TWO, 0.0),
        Example("Yes, it is so.", _TWO, 0.5, {"partial": True}),
        Example("", [{"id": "punctuation:no_comma"}], 0.0, {"partial": True}),
        Example("*Sure:*\n<<Home>>\nsweet", [{"id": "detectable_format:title"}], 1.0),
        Example('Sure:\n"Home"', [{"id": "startend:quotation"}], 0.0),
        Example('Sure:\n"Home"', [{"id": "startend:quotation"}], 1.0, {"loose": True}),
        Example("Home", [{"id": "punctuation:no_commas"}], None),
        Example("Home", [{"id": "length_constraints:number_words", "relation": "at least"}], None),
    ],
)
def instruction(response: str, gold: Any, *, loose: bool = False, partial: bool = False) -> Verdict:
    """1 when the answer follows every instruction of the gold, else 0; with `partial`, the share that it follows.

    The gold names instructions of the 25 families of IFEval (arXiv 2311.07911) as that data set does,
    `{instruction_id_list: [ids], kwargs: [arguments of each]}`, or as a list of `{id: …, arguments}`, or as JSON text
    of either. Arguments that are null count as absent.

    Only the text after the thinking is read, without invisible characters. With `loose`, as in the paper, an
    instruction also counts as followed if the text follows it without its first line, last line, both, or its
    asterisks. Sentences are split by rules and languages detected offline (see the reward `language`), so counts may
    differ slightly from those of the published program. An answer that names several of the choices of
    `constrained_response` does not follow it.

    An empty answer follows nothing, but a single letter follows "no comma": these instructions do not measure the
    quality of an answer. Mix this reward with one that does, such as a reward model.
    """
    try:
        instructions = read(gold)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error)[:300])
    text = _without_invisible(final_text(response))
    if not says_something(text):
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    variants = dict.fromkeys([text, *(_loosened(text) if loose else ())])
    violated = [name for name, follows in instructions if not any(map(follows, variants))]
    value = 1.0 - len(violated) / len(instructions) if partial else float(not violated)
    return Verdict(
        value, "ok", f"not followed: {', '.join(violated)}" if violated else f"all {len(instructions)} followed"
    )


# Zero-width joiners belong to words of some scripts, but not to ASCII words.
_JOINERS = re.compile(r"(?<=[ -~])[\u200c\u200d]|[\u200c\u200d](?=[ -~])")


def _without_invisible(text: str) -> str:
    """The text without invisible characters, which could hide forbidden words and split one word in two."""
    if text.isascii():
        return text
    hidden = {
        ord(mark): None for mark in set(text) if unicodedata.category(mark) == "Cf" and mark not in "\u200c\u200d"
    }
    return _JOINERS.sub("", text.translate(hidden)).strip()


def read(gold: Any) -> list[tuple[str, Callable[[str], bool]]]:
    """The gold's instructions: (id, check of a text). Raises: ValueError when it names none or a wrong one."""
    instructions: list[tuple[str, Callable[[str], bool]]] = []
    for name, arguments in _ids_and_arguments(_from_json(gold)):
        family = FAMILIES.get(name) if isinstance(name, str) else None
        if family is None:
            raise ValueError(f"unknown instruction {str(name)[:60]!r}{did_you_mean(str(name)[:60], FAMILIES)}")
        if not isinstance(arguments, Mapping):
            raise ValueError(f"{name}: the arguments must be a mapping")
        stated = {str(key): value for key, value in arguments.items() if value is not None}
        try:
            options = check_options(family, stated)
        except ValidationError as error:
            first = error.errors()[0]
            rule = explain(first, options_model(family).model_fields)
            raise ValueError(f"{name}: {'.'.join(map(str, first['loc']))}: {rule}") from error
        instructions.append((name, functools.partial(family, **options)))
    if not instructions:
        raise ValueError("the gold names no instruction")
    return instructions


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the gold is neither instructions nor JSON text of them: {str(error)[:100]}") from error


def _ids_and_arguments(gold: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(gold, Mapping) and "instruction_id_list" in gold:
        names, arguments = _from_json(gold["instruction_id_list"]), _from_json(gold.get("kwargs"))
        if not isinstance(names, list | tuple) or not isinstance(arguments, list | tuple | None):
            raise ValueError("instruction_id_list and kwargs must be lists")
        arguments = [{}] * len(names) if arguments is None else arguments
        if len(names) != len(arguments):
            raise ValueError(f"{len(names)} instructions, but {len(arguments)} kwargs")
        yield from zip(names, (_from_json(item) for item in arguments), strict=True)
        return
    for item in [gold] if isinstance(gold, Mapping) else gold if isinstance(gold, list | tuple) else [None]:
        if not isinstance(item, Mapping) or "id" not in item:
            raise ValueError("the gold must hold instruction_id_list and kwargs, or be a list of {id: …, arguments}")
        yield item["id"], {key: value for key, value in item.items() if key != "id"}


def _loosened(text: str) -> Iterator[str]:
    lines = text.split("\n")
    for variant in (text, "\n".join(lines[1:]), "\n".join(lines[:-1]), "\n".join(lines[1:-1])):
        for loosened in (variant.strip(), variant.replace("*", "").strip()):
            if says_something(loosened):
                yield loosened
