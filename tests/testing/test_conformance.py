"""The conformance kit: every reward that comes with morl passes it, and each rule can be broken."""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import pickle

import broken_rewards
import pytest

from morl.errors import MorlError, UsageError
from morl.registry import REWARDS
from morl.rewards.verdict import to_term_score
from morl.testing.adversarial_inputs import HOSTILE_GOLDS, HOSTILE_RESPONSES
from morl.testing.conformance import RewardCheckError, check_reward
from morl.testing.probe import probe, shown

NEEDS_A_SERVICE = {
    "remote": "asks a server that the recipe names; its own tests start one",
    "reward_model": "loads a model that the recipe names, and scores as that model was trained to",
}
"""Rewards that cannot be called with nothing but their examples."""

BUILT_IN = sorted(
    name
    for name, entry in REWARDS.entries().items()
    if entry.target.startswith("morl.rewards.") and name not in NEEDS_A_SERVICE
)


def test_the_rewards_of_morl_are_found() -> None:
    assert len(BUILT_IN) >= 15
    assert set(NEEDS_A_SERVICE) <= set(REWARDS.entries())


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_reward_of_morl_conforms(name: str) -> None:
    check_reward(name)


@pytest.mark.parametrize("name", ["good_for_tests", "good_batch_for_tests", "good_resource_for_tests"])
def test_a_good_reward_of_any_kind_conforms(name: str) -> None:
    check_reward(name)


def test_a_reward_may_be_named_or_given() -> None:
    check_reward(broken_rewards.good, deadline_s=5.0, seed=3)
    with pytest.raises(UsageError, match="did you mean 'good_for_tests'"):
        check_reward("god_for_tests")
    with pytest.raises(RewardCheckError, match="no reward is registered as broken_rewards:said: decorate it"):
        check_reward(broken_rewards.said)


# Each breaks one rule: what is told of it, and the input that shows it.
BROKEN = [
    ("undocumented", "has no documentation", ""),
    ("one_example", "has no two examples with different values", ""),
    ("wrong_example", "has examples that do not hold", "example 2, response 'maybe': expected 1, got 0 (ok: maybe)"),
    ("wrong_option", "cannot be used as in example 2", "option 'strikt': unknown key; did you mean 'strict'?"),
    ("taken_option", "has an option 'weight', which means something else in a recipe", ""),
    ("raises", "raises instead of returning a verdict", "IndexError: string index out of range: response '', gold 'yes'"),
    ("hashes_gold", "raises instead of returning a verdict", "TypeError: unhashable type: 'list': response 'yes', gold []"),
    ("not_a_number", "returns no valid verdict", "returned nan, not a finite number: response '', gold 'yes'"),
    ("text", "returns no valid verdict", "returned str, not a number: response '<think><think>"),
    ("unbounded", "returns a value outside [0, 1]", "gold 'yes'"),
    ("mutates", "changes its arguments", "response 'a', gold ['a']"),
    ("mutates_row", "changes its arguments", "response 'a', gold None"),
    ("random", "gives another verdict when called again", "response '', gold 'yes'"),
    ("remembers", "gives another verdict in another process, in another order or beside other responses", " after '"),
    ("address", "gives another verdict in another process, in another order or beside other responses", "(ok: process "),
    ("neighbours", "gives another verdict in another process, in another order or beside other responses", "1 (ok: yes), then 0."),
    ("slow", "gives no verdict", "took longer than 2 s: response '1111111111"),
    ("dies", "gives no verdict", "3 worker processes died of it: response 'NaN', gold 'yes'"),
    ("hides", "gives no score because of what a response says, so that a policy could escape a low score", "no score (error: no word): response ' '"),
    ("empty_gold", "lets a response match an empty gold", "1 (ok): response 'yes', gold ''"),
    ("wrong_answer", "does not give 1 to the response that its `answer` writes for a gold", "response 'The answer is yes'"),
    ("no_answer", "cannot write the gold of one of its examples as a response", "AttributeError"),
    ("thinking", "does not give 0 to an empty response, or to thinking without an end", "1 (ok): response '<think>yes', gold 'yes'"),
    ("gone", "cannot be imported", "has no attribute 'gone'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "shown"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_a_broken_rule_is_told_with_what_breaks_it(name: str, rule: str, shown: str) -> None:
    with pytest.raises(RewardCheckError) as raised:
        check_reward(f"{name}_for_tests", deadline_s=2.0)
    assert len(raised.value.broken) == 1, str(raised.value)
    assert rule in raised.value.broken[0]
    assert shown in raised.value.broken[0]
    assert str(raised.value).startswith(f"reward '{name}_for_tests' breaks 1 rule:\n- ")


def test_the_error_is_one_of_pytest_and_of_morl() -> None:
    error = RewardCheckError("x", ["one", "two"])
    assert isinstance(error, AssertionError)
    assert isinstance(error, MorlError)
    assert str(error) == "reward 'x' breaks 2 rules:\n- one\n- two"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.broken) == (str(error), error.broken)


def test_inputs_that_show_the_same_are_counted() -> None:
    with pytest.raises(RewardCheckError) as raised:
        check_reward("hides_for_tests")
    lines = raised.value.broken[0].splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("  … and ")
    assert max(map(len, lines)) < 1000


@pytest.mark.parametrize(
    "kind",
    ["", "1" * 1_000_000, "[" * 1_000_000, '{"a":' * 200_000, "４２", "NaN", "Infinity", "1e999", "[90, 90, 10, 10]"],
    ids=lambda text: text[:9],
)
def test_the_inputs_are_those_that_break_verifiers(kind: str) -> None:
    assert kind in HOSTILE_RESPONSES


def test_there_are_golds_of_every_type() -> None:
    assert {type(gold) for gold in HOSTILE_GOLDS} >= {str, int, float, bool, list, dict, type(None)}
    assert sum("\u200b" in text or "\u202e" in text for text in HOSTILE_RESPONSES) >= 2


@pytest.mark.parametrize(
    ("name", "response", "said"),
    [
        ("good", "yes", "1 (ok: =yes)"),
        ("good_batch", "no", "0 (ok: =no)"),
        ("good_resource", "yes", "1 (ok: =yes)"),
        (
            "raises",
            "",
            "no score (error: !raises instead of returning a verdict ¦ IndexError: string index out of range)",
        ),
        ("not_a_number", "", "no score (error: !returns no valid verdict ¦ returned nan, not a finite number)"),
        ("unbounded", "12345", "no score (error: !returns a value outside [0, 1] ¦ 1.66667)"),
        ("hides", "1", "no score (error: =no word)"),
    ],
)
def test_a_call_is_watched(name: str, response: str, said: str) -> None:
    target = f"broken_rewards:{name}"
    verdict = probe(target, {"response": response, "gold": "yes", "meta": {}}, {}, 2)
    assert shown(to_term_score(verdict, 0.0)) == said


def test_what_changes_between_calls_is_seen() -> None:
    told = probe("broken_rewards:by_chance", {"response": "maybe", "gold": "yes"}, {}, 2).detail
    assert told.startswith("!gives another verdict when called again ¦ ")
    gold = ["a"]
    assert probe("broken_rewards:mutates", {"response": "a", "gold": gold}, {}, 1).detail.startswith("!changes its arg")
    assert probe("broken_rewards:uneven_batch", {"response": "a"}, {}, 1).detail.startswith("!raises")
