"""The structure of a response: what each option asks for, and what does not get by."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from morl.rewards.format import format  # noqa: A004

PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    r"\boxed{",
    "}",
    "x",
    " ",
    "```json\n",
    "\n```",
    "{}",
    "\u200b",
]


options = st.fixed_dictionaries(
    {},
    optional={
        "thinking": st.sampled_from(["required", "optional", "forbidden"]),
        "opened": st.booleans(),
        "answer_tags": st.booleans(),
        "boxed": st.integers(0, 3),
        "fenced_json": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), options)
def test_all_is_1_when_each_part_is_and_partial_is_never_less(response: str, chosen: dict[str, Any]) -> None:
    whole = format(response, **chosen).value
    part = format(response, **chosen, partial=True).value
    assert whole in (0.0, 1.0)
    assert 0.0 <= whole <= part <= 1.0
    assert (part == 1.0) == (whole == 1.0)
    assert format(f"\n{response} ", **chosen).value == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_opened_is_the_same_as_a_response_with_the_tag_before_it(response: str) -> None:
    assume(not response.lstrip().startswith("<think>"))
    for thinking in ("required", "optional"):
        assert (
            format(response, opened=True, thinking=thinking).value
            == format("<think>" + response, thinking=thinking).value
        )
