"""`morl rewards`: what is told of a reward is enough to use it."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from ruamel.yaml import YAML

from morl.cli.main import main
from morl.cli.reward_docs import describe_rewards
from morl.errors import UsageError
from morl.recipe.schema.objective_section import TermSpec
from morl.registry import REWARDS, Registry
from morl.rewards import reward
from morl.rewards.resource import Resource
from morl.rewards.reward import Example

Share = Annotated[float, Field(gt=0, le=1, description="Part of the words that must be there.")]


@reward("described_for_tests", examples=[Example("a", "a", 1.0, {"share": 0.5}, {"row": 1}), Example("", "x", None)])
def described(
    response: str,
    gold: Any,
    *,
    share: Share,
    least: Annotated[int, Field(ge=2, lt=9, multiple_of=2)] | None = None,
    words: Annotated[list[str], Field(min_length=1, max_length=5)] = ["a"],  # noqa: B006
    mode: Literal["all", "any"] = "all",
    sizes: dict[str, tuple[int, int]] | None = None,
) -> float:
    """What it does.

    How it does it.
    """
    return 1.0


@reward("bare_for_tests", batch=True, resource=Resource, deadline_s=600)
async def bare(response: list[str], resource: Resource) -> list[float]:
    return [1.0]


EXPLAINED = """\
described_for_tests

What it does.

How it does it.

from:  test_describe:described (here)
asks:  response, gold; each prompt needs a gold
runs:  in a worker process, for 10 s at most unless the term has a 'deadline_s'

Options:
  share: float (required, more than 0, 1 or less)
      Part of the words that must be there.
  least: int | null = null (2 or more, less than 9, a multiple of 2)
  words: list[str] = ["a"] (not empty, at most 5 of them)
  mode: all | any = "all"
  sizes: dict[str, tuple[int, int]] | null = null

Examples:
         1  response: 'a', gold: 'a', share: 0.5, row: 1
  no score  response: '', gold: 'x'

In a recipe:
  gold: "{{ answer }}"
  rewards: [{use: described_for_tests, share: 0.5}]"""


def test_one_reward_is_explained_whole() -> None:
    here = REWARDS.entry("described_for_tests").origin
    assert describe_rewards("described_for_tests") == EXPLAINED.replace("test_describe:described (here)", here)


def test_a_reward_that_says_nothing_of_itself_is_explained_too() -> None:
    told = describe_rewards("bare_for_tests")
    assert "It has no documentation." in told
    assert "It has no options." in told
    assert "Examples" not in told
    assert "asks:  response\n" in told
    assert (
        "runs:  on the event loop, many responses together, with a resource that is kept for the run, for 600 s" in told
    )


@pytest.mark.parametrize("name", [name for name, e in REWARDS.entries().items() if e.target.startswith("morl.")])
def test_the_recipe_line_of_every_reward_of_morl_is_one(name: str) -> None:
    told = describe_rewards(name)
    line = told.rpartition("\n")[2].strip()
    (term,) = YAML(typ="safe").load(line)["rewards"]
    assert TermSpec.model_validate(term).use == name
    assert f"morl-rl {version('morl-rl')} ({REWARDS.entry(name).target})" in told


def test_the_list_has_every_reward_with_origin_and_options() -> None:
    listed = describe_rewards()
    for name, entry in REWARDS.entries().items():
        (block,) = (block for block in listed.split("\n\n") if block.startswith(f"{name}\n"))
        assert entry.origin in block
    assert "share: float, least: int | null = null" in listed


def test_a_reward_that_cannot_be_imported_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("reward", "morl.no_such_group")
    registry.register("gone")(described)
    monkeypatch.setattr("morl.cli.reward_docs.REWARDS", registry)
    monkeypatch.delattr(sys.modules[described.__module__], "described")
    told = describe_rewards()
    assert told.startswith("gone\n  reward 'gone' from ")
    assert "cannot be imported: module" in told
    assert "options: unknown" in told


def test_an_unknown_reward_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="did you mean 'number'"):
        describe_rewards("nubmer")
    assert main(["rewards", "nubmer"]) == 2
    assert "did you mean 'number'" in capsys.readouterr().err
